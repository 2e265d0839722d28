//! Services in VIP mode: a table of virtual addresses in the namespace of each local endpoint.
//!
//! What a namespace's rules are is read again only when somebody changed them: the kernel counts the
//! transactions of a namespace. Connections are listed only when some of them are to end.

use core::{fmt::Display, mem};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use overlay_types::{Addresses, EndpointId, NetworkId, ServiceId};

use super::{
    conntrack,
    netlink::RouteSocket,
    netns::NetNs,
    nft::{
        Batch, Nft, Table, TableId, diff,
        vip::{
            self,
            change::write,
            content::{Content, Delta},
            plan::{Cut, Plan, plan, portions},
        },
    },
};
use crate::{
    Error,
    desired::{LocalEndpoint, Network, PortKind, Role, Service},
};

/// Octets of an element in a transaction: less than 100. The socket counts what it holds of it, too.
const OCTETS_PER_ELEMENT: usize = 250;

/// Tables of local endpoints, as they were last read or made, and what is to be done to them.
#[derive(Debug, Default)]
pub(super) struct Services {
    tables: BTreeMap<EndpointId, Known>,
    /// Endpoints whose table is to be looked after whole, each with the operation that says so.
    endpoints: BTreeMap<(NetworkId, EndpointId), usize>,
    /// Services that were put or removed, and the operation.
    touched: BTreeMap<NetworkId, BTreeMap<ServiceId, usize>>,
}

/// What is known of an endpoint's table.
#[derive(Debug, Default)]
struct Known {
    content: Content,
    is_there: bool,
    /// It is as tables are made.
    is_intact: bool,
    /// It says what it shall; `None` before that was compared.
    agrees: Option<bool>,
    seen: Option<Seen>,
}

impl Known {
    /// There may be anything.
    fn nothing() -> Self {
        Self { is_there: true, ..Self::default() }
    }
}

/// When it was looked at: the namespace, and the number of its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    generation: u32,
}

/// An endpoint's interface, and where it is.
#[derive(Debug)]
pub(super) struct Site {
    endpoint: EndpointId,
    table: TableId,
    device: String,
    path: PathBuf,
}

impl Site {
    /// `None` for an endpoint whose interface is not where its path leads, and for a gate: nobody in its
    /// namespace asks for a service.
    pub(super) fn of(endpoint: EndpointId, local: &LocalEndpoint) -> Option<Self> {
        let PortKind::Veth { name, netns } = &local.port else { return None };
        if local.role == Role::Gate {
            return None;
        }
        let table = vip::table_id(endpoint);
        let site = Self { endpoint, table, device: name.clone(), path: netns.clone() };
        (!name.is_empty()).then_some(site)
    }

    /// The interface of a gate, where it is. Its table is there for the next gate, too.
    pub(super) fn of_gate(endpoint: EndpointId, device: &str, path: &Path) -> Self {
        let table = vip::gate_table_id();
        Self { endpoint, table, device: device.to_owned(), path: path.to_owned() }
    }

    pub(super) const fn failed(&self, reason: String) -> Error {
        Error::Services { endpoint: self.endpoint, reason }
    }

    fn table_id(&self) -> TableId {
        self.table.clone()
    }
}

/// An endpoint's namespace, entered.
struct Room<'a> {
    site: &'a Site,
    netns: NetNs,
    nft: Nft,
    seen: Seen,
}

impl<'a> Room<'a> {
    /// `None` when the namespace is gone.
    fn enter(site: &'a Site) -> Result<Option<Self>, String> {
        let Some(netns) = NetNs::find(&site.path).map_err(said)? else { return Ok(None) };
        let nft = netns.enter(|| Ok(Nft::open())).map_err(said)?.map_err(said)?;
        let inode = netns.inode().map_err(said)?;
        let mut room = Self { site, netns, nft, seen: Seen { inode, generation: 0 } };
        room.seen.generation = room.generation()?;
        Ok(Some(room))
    }

    fn generation(&mut self) -> Result<u32, String> {
        super::call().map_err(said)?;
        let generation = self.nft.generation().map_err(said)?;
        generation.ok_or_else(|| "the kernel does not number the transactions of its rules".into())
    }

    fn observe(&mut self) -> Result<Option<Table>, String> {
        super::call().map_err(said)?;
        self.nft.observe(&self.site.table_id()).map_err(said)
    }

    /// Whether the endpoint was in another namespace. The next comparison shows where it is now.
    fn is_another(&self, known: &Known) -> bool {
        known.seen.is_some_and(|seen| seen.inode != self.seen.inode)
    }

    /// Reads the table, unless nothing was changed since.
    fn refresh(&mut self, known: &mut Known) -> Result<(), String> {
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
        super::call().map_err(said)?;
        #[cfg(test)]
        super::netlink::fuse::note_changes(batch.changes().count());
        self.nft.apply(batch).map_err(said)?;
        self.seen.generation = self.seen.generation.wrapping_add(1);
        Ok(())
    }

    /// Makes of a table that somebody changed the one that says the same.
    fn mend(&mut self, known: &mut Known) -> Result<(), String> {
        let id = self.site.table_id();
        let found = self.observe()?;
        let whole = vip::table(&self.site.device, &known.content);
        self.apply(&diff(&id, Some(&whole), found.as_ref()))?;
        known.is_intact = true;
        Ok(())
    }

    fn carry_out(&mut self, known: &mut Known, plan: Plan) -> Result<(), String> {
        let Plan { changes, cut, ends } = plan;
        let load = self.nft.room() / OCTETS_PER_ELEMENT;
        for delta in portions(changes, load) {
            self.change(known, delta)?;
        }
        self.cut(&cut)?;
        for delta in portions(ends, load) {
            self.change(known, delta)?;
        }
        if known.content.is_empty() && known.is_there {
            self.delete_table()?;
            known.is_there = false;
        }
        Ok(())
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

    fn cut(&self, cut: &Cut) -> Result<(), String> {
        if cut.is_empty() {
            return Ok(());
        }
        let socket = self.netns.enter(RouteSocket::open_netfilter).map_err(said)?;
        let ended = conntrack::end(&socket, |flow| cut.covers(flow.to.0, flow.from.0));
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
    fn withdraw(&mut self, known: &Known) -> Result<(), String> {
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
    fn was_alone(&mut self) -> Result<bool, String> {
        Ok(self.generation()? == self.seen.generation)
    }
}

impl Services {
    /// Takes note of what a service shall be from now on.
    pub(super) fn touch(&mut self, number: usize, network: NetworkId, service: ServiceId) {
        self.touched.entry(network).or_default().insert(service, number);
    }

    /// Takes note that an endpoint was plugged in.
    pub(super) fn look_after(&mut self, number: usize, network: NetworkId, endpoint: EndpointId) {
        self.endpoints.insert((network, endpoint), number);
    }

    /// Forgets the tables of all endpoints but these.
    pub(super) fn keep(&mut self, endpoints: &BTreeSet<EndpointId>) {
        self.tables.retain(|endpoint, _| endpoints.contains(endpoint));
    }

    /// Reads the tables of a network's endpoints, and returns its services: those that are known, or
    /// else those that the first table says.
    pub(super) fn read(
        &mut self,
        network: &Network,
        known: Option<&Network>,
    ) -> BTreeMap<ServiceId, Service> {
        for site in network.locals.iter().filter_map(|(id, local)| Site::of(*id, local)) {
            let is_idle = known.is_some_and(|known| known.services.is_empty());
            if is_idle && !self.has_table(site.endpoint) {
                continue;
            }
            if let Err(reason) = self.look(&site) {
                tracing::debug!(endpoint = %site.endpoint, reason, "a table of services cannot be read");
                if known.is_none() {
                    // Without nf_tables there are networks all the same.
                    self.tables.remove(&site.endpoint);
                } else {
                    // It shows as an endpoint that is to be put again.
                    self.tables.insert(site.endpoint, Known::nothing());
                }
            }
        }
        let says = || {
            let tables = network.locals.keys().filter_map(|id| self.tables.get(id));
            let mut contents = tables.map(|table| &table.content);
            contents.find(|content| !content.is_empty()).map(Content::as_services)
        };
        known.map(|known| known.services.clone()).or_else(says).unwrap_or_default()
    }

    fn has_table(&self, endpoint: EndpointId) -> bool {
        self.tables.get(&endpoint).is_some_and(|table| table.is_there)
    }

    fn look(&mut self, site: &Site) -> Result<(), String> {
        let Some(mut room) = Room::enter(site)? else {
            // Nothing in there can be wrong.
            self.tables.remove(&site.endpoint);
            return Ok(());
        };
        room.refresh(self.tables.entry(site.endpoint).or_default())
    }

    /// Whether an endpoint's table is as it is made, and says that there are these services.
    pub(super) fn is_right(
        &mut self,
        endpoint: EndpointId,
        services: &BTreeMap<ServiceId, Service>,
    ) -> bool {
        let Some(known) = self.tables.get_mut(&endpoint) else { return true };
        let content = &known.content;
        let compare = || plan(content, services, None, endpoint).is_empty();
        known.is_intact && *known.agrees.get_or_insert_with(compare)
    }

    /// Does what was asked for since the last time. Says which operations failed.
    pub(super) fn flush(&mut self, networks: &BTreeMap<NetworkId, Network>) -> Vec<(usize, Error)> {
        let endpoints = mem::take(&mut self.endpoints);
        let touched = mem::take(&mut self.touched);
        let mut failed = Vec::new();
        for (id, network) in networks {
            let changed = touched.get(id);
            let names: Option<BTreeSet<_>> = changed.map(|c| c.keys().copied().collect());
            for site in network.locals.iter().filter_map(|(id, local)| Site::of(*id, local)) {
                let put = endpoints.get(&(*id, site.endpoint));
                let is_idle = network.services.is_empty() && !self.has_table(site.endpoint);
                if put.is_none() && changed.is_none() || is_idle {
                    continue;
                }
                let scope = names.as_ref().filter(|_| put.is_none());
                if let Err(reason) = self.program(&site, &network.services, scope) {
                    self.tables.insert(site.endpoint, Known::nothing());
                    let ops = put.into_iter().chain(changed.into_iter().flat_map(BTreeMap::values));
                    failed.extend(ops.map(|op| (*op, site.failed(reason.clone()))));
                }
            }
        }
        failed
    }

    /// Virtual addresses of services, as the table of an endpoint says them.
    pub(super) fn addresses(
        &mut self,
        site: &Site,
    ) -> Result<BTreeMap<ServiceId, Addresses>, Error> {
        self.look(site).map_err(|reason| site.failed(reason))?;
        let known = self.tables.get(&site.endpoint);
        Ok(known.map(|known| known.content.services().clone()).unwrap_or_default())
    }

    /// Has the table of an endpoint say what it shall, of all services or of some.
    pub(super) fn program(
        &mut self,
        site: &Site,
        services: &BTreeMap<ServiceId, Service>,
        touched: Option<&BTreeSet<ServiceId>>,
    ) -> Result<(), String> {
        let Some(mut room) = Room::enter(site)? else { return Ok(()) };
        let known = self.tables.entry(site.endpoint).or_default();
        if room.is_another(known) {
            return Ok(());
        }
        room.refresh(known)?;
        if !known.is_intact {
            room.mend(known)?;
        }
        let touched = touched.filter(|_| known.agrees == Some(true));
        room.carry_out(known, plan(&known.content, services, touched, site.endpoint))?;
        known.agrees = Some(true);
        known.seen = room.was_alone()?.then_some(room.seen);
        Ok(())
    }

    /// Takes an endpoint's table away, and the flows that it made.
    pub(super) fn withdraw(&mut self, site: &Site) -> Result<(), Error> {
        self.take_away(site).map_err(|reason| site.failed(reason))
    }

    fn take_away(&mut self, site: &Site) -> Result<(), String> {
        if !self.has_table(site.endpoint) {
            return Ok(());
        }
        let mut known = self.tables.remove(&site.endpoint).unwrap_or_else(Known::nothing);
        // As long as it is not known to be gone.
        self.tables.insert(site.endpoint, Known::nothing());
        if let Some(mut room) = Room::enter(site)?.filter(|room| !room.is_another(&known)) {
            room.refresh(&mut known)?;
            room.withdraw(&known)?;
        }
        self.tables.remove(&site.endpoint);
        Ok(())
    }
}

fn said(error: impl Display) -> String {
    error.to_string()
}
