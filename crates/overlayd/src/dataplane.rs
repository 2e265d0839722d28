//! The dataplane of a node: the switch in user space, and beside it the kernel's where there is one.
//!
//! ```text
//!              ┌ plain networks ──────────────► kernel ──► UDP 4789
//!   op ── of ──┤ (user node: these, too)          ┆
//!              └ encrypted ones, associations ─► switch ─► UDP 4500 (and 4789)
//! ```
//!
//! Beside both is the [gateway](NodeGateway): containers' way out and their published ports.
//! The kernel's path has no ESP yet, so a kernel node carries encrypted networks as a user node does.

mod choice;
mod gateway;

use core::net::IpAddr;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use overlay_dataplane::{
    Dataplane, Desired, Error, Observed, Op, diff,
    kernel::{KernelConfig, KernelDataplane, filter::NftFilter},
    user::{SwitchConfig, UserDataplane},
};
use overlay_types::{DataplaneKind, NetworkId, View};

pub(crate) use self::{
    choice::Choice,
    gateway::{NodeGateway, sweep as sweep_gateway},
};

/// UDP port of VXLAN that a filter is opened with which shall only go.
const ANY_PORT: u16 = 4789;

/// Two dataplanes as one: each network is on one of them.
#[derive(Debug)]
pub(crate) struct NodeDataplane<U = UserDataplane, K = KernelDataplane> {
    user: U,
    kernel: Option<K>,
    /// Networks that the kernel has.
    in_kernel: BTreeSet<NetworkId>,
}

/// Where the dataplane's files and datagrams are.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// Directory of the namespaces of networks.
    pub(crate) netns_dir: &'a Path,
    pub(crate) data_path: IpAddr,
    pub(crate) view: &'a View,
}

impl Site<'_> {
    fn switch(&self, kind: DataplaneKind) -> SwitchConfig {
        let mut config = SwitchConfig::new(self.data_path, rand::random());
        if let Some(cluster) = self.view.cluster() {
            config.vxlan_port = Some(cluster.vxlan_port);
            config.esp_port = cluster.esp_port;
            config.engine.encrypted_vxlan_port = cluster.encrypted_vxlan_port;
        }
        // The kernel's VXLAN has that port.
        config.vxlan_port = config.vxlan_port.filter(|_| kind == DataplaneKind::User);
        config
    }

    fn kernel(&self) -> Result<KernelDataplane, Error> {
        let mut config = KernelConfig::new(self.netns_dir, self.data_path);
        if let Some(cluster) = self.view.cluster() {
            config.port = cluster.vxlan_port;
        }
        open_kernel(config)
    }
}

impl NodeDataplane {
    /// Starts what was chosen. A node of the user dataplane removes what it left when it was one of the
    /// kernel's: that has the port of plain networks.
    pub(crate) fn start(kind: DataplaneKind, site: &Site<'_>) -> Result<Self, Error> {
        let kernel = match kind {
            DataplaneKind::Kernel => Some(site.kernel()?),
            DataplaneKind::User => {
                sweep(kind, site.netns_dir);
                None
            }
        };
        let user = UserDataplane::start(site.switch(kind))?;
        Ok(Self { user, kernel, in_kernel: BTreeSet::new() })
    }

    /// The switch in user space.
    pub(crate) const fn user(&self) -> &UserDataplane {
        &self.user
    }

    pub(crate) const fn user_mut(&mut self) -> &mut UserDataplane {
        &mut self.user
    }
}

fn open_kernel(config: KernelConfig) -> Result<KernelDataplane, Error> {
    let filter = NftFilter::open(config.port)?;
    KernelDataplane::start(config, Box::new(filter))
}

/// Which dataplane of a node carries a network.
pub(crate) const fn carrier(node: DataplaneKind, encrypted: bool) -> DataplaneKind {
    if encrypted { DataplaneKind::User } else { node }
}

fn has_left(netns_dir: &Path) -> bool {
    std::fs::read_dir(netns_dir).is_ok_and(|mut files| files.next().is_some())
}

/// Removes what a kernel dataplane left on this host, on a node of `kind` that has none. What cannot be
/// removed is logged.
pub(crate) fn sweep(kind: DataplaneKind, netns_dir: &Path) {
    if !has_left(netns_dir) {
        return;
    }
    match try_sweep(kind, netns_dir.to_owned()) {
        Ok(count) => tracing::info!(count, "networks of the kernel dataplane removed"),
        Err(error) => tracing::error!(%error, "networks of the kernel dataplane stay on this host"),
    }
}

fn try_sweep(kind: DataplaneKind, netns_dir: PathBuf) -> anyhow::Result<usize> {
    let _seat = (kind == DataplaneKind::User).then(choice::take_seat).transpose()?;
    // Which address they were at does not matter any more.
    let nowhere = IpAddr::from([127, 0, 0, 1]);
    let config = KernelConfig { port: ANY_PORT, ..KernelConfig::new(netns_dir, nowhere) };
    Ok(remove_all(&mut open_kernel(config)?)?)
}

/// Removes every network. Returns how many there were.
pub(crate) fn remove_all(dataplane: &mut impl Dataplane) -> Result<usize, Error> {
    let observed = dataplane.observe()?;
    let ops = diff(&Desired::default(), &observed);
    // One that fails keeps no other from being removed.
    dataplane.apply(ops).into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(observed.networks.len())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    User,
    Kernel,
}

impl<U: Dataplane, K: Dataplane> NodeDataplane<U, K> {
    /// Whose an operation is, given all before it.
    fn side(&mut self, op: &Op) -> Side {
        let network = match op {
            Op::AddInboundSa(_)
            | Op::SetOutboundSa { .. }
            | Op::RemoveInboundSa(_)
            | Op::RemoveOutboundSa(_) => return Side::User,
            // A network does not change sides while it is there: encryption is for its life.
            Op::PutNetwork(id, settings) => {
                if self.kernel.is_some() && !settings.encrypted {
                    self.in_kernel.insert(*id);
                }
                id
            }
            Op::RemoveNetwork(id) => {
                return if self.in_kernel.remove(id) { Side::Kernel } else { Side::User };
            }
            Op::SetMembers(id, _)
            | Op::PutLocal(id, ..)
            | Op::RemoveLocal(id, _)
            | Op::PutRemote(id, ..)
            | Op::RemoveRemote(id, _)
            | Op::PutService(id, ..)
            | Op::RemoveService(id, _) => id,
        };
        if self.in_kernel.contains(network) { Side::Kernel } else { Side::User }
    }

    fn apply_run(&mut self, side: Side, run: Vec<Op>) -> Vec<Result<(), Error>> {
        match (&mut self.kernel, side) {
            (Some(kernel), Side::Kernel) => kernel.apply(run),
            _ => self.user.apply(run),
        }
    }
}

impl<U: Dataplane, K: Dataplane> Dataplane for NodeDataplane<U, K> {
    fn observe(&mut self) -> Result<Observed, Error> {
        let mut observed = self.user.observe()?;
        if let Some(kernel) = &mut self.kernel {
            let networks = kernel.observe()?.networks;
            self.in_kernel = networks.keys().copied().collect();
            observed.networks.extend(networks);
        }
        Ok(observed)
    }

    /// In order, also between the two: an interface may move from a network of one to a network of the
    /// other. What follows one another on one side is given to it at once.
    fn apply(&mut self, ops: Vec<Op>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(ops.len());
        let mut run: (Side, Vec<Op>) = (Side::User, Vec::new());
        for op in ops {
            let side = self.side(&op);
            if side != run.0 {
                let (side, run) = core::mem::replace(&mut run, (side, Vec::new()));
                results.extend(self.apply_run(side, run));
            }
            run.1.push(op);
        }
        results.extend(self.apply_run(run.0, run.1));
        results
    }
}

#[cfg(test)]
mod tests;
