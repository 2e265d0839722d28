//! An endpoint's namespace, entered: its table is read, changed and taken away, and flows are ended.

use core::fmt::Display;
use std::path::{Path, PathBuf};

use overlay_types::EndpointId;

use super::super::{
    conntrack::{self, Flow},
    netlink::RouteSocket,
    netns::NetNs,
    nft::{
        Batch, Nft, Table, TableId, diff,
        vip::{
            self,
            change::write,
            content::{Content, Delta},
            plan::{Cut, Plan, portions},
        },
    },
};
use crate::{
    Error,
    desired::{LocalEndpoint, PortKind, Role},
    kernel,
};

/// Octets of an element in a transaction: less than 100. The socket counts what it holds of it, too.
const OCTETS_PER_ELEMENT: usize = 250;

/// What is known of an endpoint's table.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) content: Content,
    pub(super) is_there: bool,
    /// It is as tables are made.
    pub(super) is_intact: bool,
    /// It says what it shall; `None` before that was compared.
    pub(super) agrees: Option<bool>,
    pub(super) seen: Option<Seen>,
}

impl Known {
    /// There may be anything.
    pub(super) fn nothing() -> Self {
        Self { is_there: true, ..Self::default() }
    }
}

/// When it was looked at: the namespace, and the number of its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    generation: u32,
}

/// An endpoint's interface, and where it is.
#[derive(Debug)]
pub(in crate::kernel) struct Site {
    pub(super) endpoint: EndpointId,
    table: TableId,
    device: String,
    path: PathBuf,
}

impl Site {
    /// `None` for an endpoint whose interface is not where its path leads, and for a gate: nobody in its
    /// namespace asks for a service.
    pub(in crate::kernel) fn of(endpoint: EndpointId, local: &LocalEndpoint) -> Option<Self> {
        let PortKind::Veth { name, netns } = &local.port else { return None };
        if local.role == Role::Gate {
            return None;
        }
        let table = vip::table_id(endpoint);
        let site = Self { endpoint, table, device: name.clone(), path: netns.clone() };
        (!name.is_empty()).then_some(site)
    }

    /// The interface of a gate, where it is. Its table is there for the next gate, too.
    pub(in crate::kernel) fn of_gate(endpoint: EndpointId, device: &str, path: &Path) -> Self {
        let table = vip::gate_table_id();
        Self { endpoint, table, device: device.to_owned(), path: path.to_owned() }
    }

    pub(in crate::kernel) const fn failed(&self, reason: String) -> Error {
        Error::Services { endpoint: self.endpoint, reason }
    }

    fn table_id(&self) -> TableId {
        self.table.clone()
    }
}

/// How far a table's change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// New flows are led as they shall be. What is to lose its flows is parked.
    Lead,
    /// These flows end, too.
    End,
}

/// Sockets of an endpoint's namespace. They are kept: to close one after a change takes until what that
/// removed is gone, 10 ms and more, and nobody changes a rule of the namespace meanwhile.
#[derive(Debug)]
pub(super) struct Sockets {
    inode: u64,
    nft: Nft,
    connections: Option<RouteSocket>,
}

/// An endpoint's namespace, entered.
pub(super) struct Room<'a> {
    site: &'a Site,
    netns: NetNs,
    pub(super) sockets: Sockets,
    pub(super) seen: Seen,
}

impl<'a> Room<'a> {
    /// By sockets that are there, or others. `None` when the namespace is gone.
    pub(super) fn enter(site: &'a Site, sockets: Option<Sockets>) -> Result<Option<Self>, String> {
        let Some(netns) = NetNs::find(&site.path).map_err(said)? else { return Ok(None) };
        let inode = netns.inode().map_err(said)?;
        let sockets = if let Some(kept) = sockets.filter(|sockets| sockets.inode == inode) {
            kept
        } else {
            let nft = netns.enter(|| Ok(Nft::open())).map_err(said)?.map_err(said)?;
            Sockets { inode, nft, connections: None }
        };
        let mut room = Self { site, netns, sockets, seen: Seen { inode, generation: 0 } };
        room.seen.generation = room.generation()?;
        Ok(Some(room))
    }

    fn generation(&mut self) -> Result<u32, String> {
        kernel::call().map_err(said)?;
        let generation = self.sockets.nft.generation().map_err(said)?;
        generation.ok_or_else(|| "the kernel does not number the transactions of its rules".into())
    }

    fn observe(&mut self) -> Result<Option<Table>, String> {
        kernel::call().map_err(said)?;
        self.sockets.nft.observe(&self.site.table_id()).map_err(said)
    }

    /// Whether the endpoint was in another namespace. The next comparison shows where it is now.
    pub(super) fn is_another(&self, known: &Known) -> bool {
        known.seen.is_some_and(|seen| seen.inode != self.seen.inode)
    }

    /// Reads the table, unless nothing was changed since.
    pub(super) fn refresh(&mut self, known: &mut Known) -> Result<(), String> {
        if known.seen == Some(self.seen) {
            return Ok(());
        }
        *known = Known::default();
        let found = self.observe()?;
        known.is_there = found.is_some();
        known.content = found.as_ref().map(vip::read).unwrap_or_default();
        let whole = vip::table(&self.site.device, &known.content);
        known.is_intact = found.is_none_or(|found| found == whole);
        known.seen = Some(self.seen);
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        kernel::call().map_err(said)?;
        #[cfg(test)]
        kernel::netlink::fuse::note_changes(batch.changes().count());
        self.sockets.nft.apply(batch).map_err(said)?;
        self.seen.generation = self.seen.generation.wrapping_add(1);
        Ok(())
    }

    /// Makes of a table that somebody changed the one that says the same.
    pub(super) fn mend(&mut self, known: &mut Known) -> Result<(), String> {
        let id = self.site.table_id();
        let found = self.observe()?;
        let whole = vip::table(&self.site.device, &known.content);
        self.apply(&diff(&id, Some(&whole), found.as_ref()))?;
        known.is_intact = true;
        Ok(())
    }

    /// Does it as far as `step` says. Whether there is nothing left to do.
    pub(super) fn carry_out(
        &mut self,
        known: &mut Known,
        plan: Plan,
        step: Step,
    ) -> Result<bool, String> {
        let Plan { changes, cut, ends } = plan;
        let load = self.sockets.nft.room() / OCTETS_PER_ELEMENT;
        for delta in portions(changes, load) {
            self.change(known, delta)?;
        }
        if step == Step::Lead && !cut.is_empty() {
            return Ok(false);
        }
        self.cut(&cut)?;
        for delta in portions(ends, load) {
            self.change(known, delta)?;
        }
        if known.content.is_empty() && known.is_there {
            self.delete_table()?;
            known.is_there = false;
        }
        Ok(true)
    }

    fn change(&mut self, known: &mut Known, delta: Delta) -> Result<(), String> {
        let id = self.site.table_id();
        let mut batch = Batch::new();
        if !known.is_there {
            batch.add_all(&id, &vip::table(&self.site.device, &Content::default()));
        }
        write(&mut batch, &id, &known.content, &delta);
        self.apply(&batch)?;
        known.is_there = true;
        known.content.patch(delta);
        Ok(())
    }

    fn cut(&mut self, cut: &Cut) -> Result<(), String> {
        if cut.is_empty() {
            return Ok(());
        }
        let open = || self.netns.enter(RouteSocket::open_netfilter).map_err(said);
        let socket = match &mut self.sockets.connections {
            Some(socket) => socket,
            none => none.insert(open()?),
        };
        let is_over = |flow: &Flow| cut.covers(flow.to.0, flow.from.0);
        let ended = conntrack::end(socket, Some(&cut.addresses()), is_over);
        let ended = ended.map_err(|error| format!("cannot end flows: {error}"))?;
        if ended > 0 {
            tracing::debug!(endpoint = %self.site.endpoint, ended, "flows to virtual addresses end");
        }
        Ok(())
    }

    fn delete_table(&mut self) -> Result<(), String> {
        let mut batch = Batch::new();
        batch.delete_table(&self.site.table_id());
        self.apply(&batch)
    }

    /// Takes the table away, and the flows that it made.
    pub(super) fn withdraw(&mut self, known: &Known) -> Result<(), String> {
        if !known.is_there {
            return Ok(());
        }
        if known.is_intact {
            // No more new flows; a crash from here on leaves a table that is not intact.
            let mut batch = Batch::new();
            batch.flush_chain(&self.site.table_id(), vip::LOOK_UP);
            self.apply(&batch)?;
        }
        self.cut(&Cut::all(known.content.faces().keys()))?;
        self.delete_table()
    }

    /// Whether nobody else was at the rules meanwhile.
    pub(super) fn was_alone(&mut self) -> Result<bool, String> {
        Ok(self.generation()? == self.seen.generation)
    }
}

fn said(error: impl Display) -> String {
    error.to_string()
}
