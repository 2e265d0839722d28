//! The dataplane of a node: the switch in user space, and beside it the kernel's where there is one.
//!
//! ```text
//!              ┌ plain networks ──────────────► kernel ──► UDP 4789 (and ESP)
//!   op ── of ──┤ (user node: these, too)          ┆
//!              └ encrypted ones, associations ─► switch ─► ESP (and UDP 4789)
//!                (kernel with ESP: not these)
//! ```
//!
//! Beside both is the [gateway](NodeGateway): containers' way out and their published ports; and the
//! node's part of the [routing mesh](NodeMesh).
//! Where the kernel has no ESP, a kernel node carries encrypted networks as a user node does.

mod choice;
mod gateway;
mod mesh;
mod seat;

use core::net::IpAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use overlay_crypto::esp::SaId;
use overlay_dataplane::{
    Dataplane, Desired, Error, Observed, Op, diff,
    kernel::{
        KernelConfig, KernelDataplane,
        filter::NftFilter,
        nft::admission::Ports,
        xfrm::{
            Esp, Leftovers, Protection,
            holder::{self, Holder},
        },
    },
    sa::PeerTraffic,
    user::{SwitchConfig, UserDataplane, engine::Sas},
};
use overlay_types::{Cluster, DataplaneKind, Encapsulation, EndpointId, NetworkId, NodeId};
use tokio::task::spawn_blocking;

use crate::{Config, NodeError};

pub(crate) use self::{
    choice::Choice,
    gateway::{GatewayTrace, NodeGateway, sweep as sweep_gateway},
    mesh::{NodeMesh, sweep as sweep_mesh},
};

/// UDP port of VXLAN that a filter is opened with which shall only go.
const ANY_PORT: u16 = 4789;

/// What endpoints miss of what is beside the dataplane.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Why endpoints are not plugged in without it.
    pub(crate) failures: BTreeMap<EndpointId, String>,
    /// What others go without, as sentences.
    pub(crate) lacks: Vec<String>,
}

/// Two dataplanes as one: each network is on one of them.
#[derive(Debug)]
pub(crate) struct NodeDataplane<U = UserDataplane, K = KernelDataplane> {
    user: U,
    kernel: Option<K>,
    carriers: Carriers,
    /// Networks that the kernel has.
    in_kernel: BTreeSet<NetworkId>,
}

/// Which dataplane of a node carries what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carriers {
    /// That of plain networks.
    pub(crate) plain: DataplaneKind,
    /// That of encrypted ones, and of the associations.
    pub(crate) encrypted: DataplaneKind,
    /// The process may open sockets for IP protocol 50, which the switch needs when ESP travels so.
    pub(crate) opens_raw: bool,
}

impl Carriers {
    /// That of a network.
    pub(crate) const fn of(self, encrypted: bool) -> DataplaneKind {
        if encrypted { self.encrypted } else { self.plain }
    }

    /// Whether a node with these carries encrypted networks whose ESP travels so.
    pub(crate) fn carry(self, esp: Encapsulation) -> bool {
        esp != Encapsulation::None || self.opens_raw || self.encrypted == DataplaneKind::Kernel
    }
}

/// What tells, on the host, that there is something of a node in its kernel.
#[derive(Debug)]
pub(crate) struct Traces {
    /// Directory of the namespaces of networks.
    pub(crate) netns_dir: PathBuf,
    /// Socket of the process that has ESP taken in while this one is down.
    pub(crate) holder: PathBuf,
    /// There while there may be associations and policies.
    pub(crate) ipsec: PathBuf,
}

/// Where the dataplane's files and datagrams are.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) traces: Traces,
    pub(crate) data_path: IpAddr,
    /// As the view has it.
    pub(crate) cluster: Option<Cluster>,
    /// How a process is started that has ESP taken in while this one is down, if there is to be one.
    pub(crate) holder: Option<Holder>,
}

impl Site {
    fn switch(&self, carriers: Carriers) -> SwitchConfig {
        let mut config = SwitchConfig::new(self.data_path, rand::random());
        if let Some(cluster) = &self.cluster {
            config.vxlan_port = Some(cluster.vxlan_port);
            config.esp = Some(cluster.esp).filter(|esp| carriers.carry(*esp));
            config.engine.encrypted_vxlan_port = cluster.encrypted_vxlan_port;
        }
        // The kernel has the ports of what it carries.
        let mine = |carrier| carrier == DataplaneKind::User;
        config.vxlan_port = config.vxlan_port.filter(|_| mine(carriers.plain));
        config.esp = config.esp.filter(|_| mine(carriers.encrypted));
        config
    }

    fn kernel(&self, carriers: Carriers) -> Result<KernelDataplane, Error> {
        let mut config = KernelConfig::new(&self.traces.netns_dir, self.data_path);
        config.holder.clone_from(&self.holder);
        config.trace = Some(self.traces.ipsec.clone());
        if let Some(cluster) = &self.cluster {
            config.port = cluster.vxlan_port;
            if carriers.encrypted == DataplaneKind::Kernel {
                let vxlan_port = cluster.encrypted_vxlan_port;
                config.esp = Some(Esp { vxlan_port, encapsulation: cluster.esp });
            }
        }
        open_kernel(config)
    }
}

impl NodeDataplane {
    /// Starts what was chosen. A node of the user dataplane removes what it left when it was one of the
    /// kernel's: that has the port of plain networks. In a thread of its own, because it may wait for another
    /// process.
    pub(crate) async fn start(carriers: Carriers, site: Site) -> Result<Self, NodeError> {
        let started = spawn_blocking(move || Self::start_here(carriers, &site)).await;
        let failed = |source| NodeError::File { path: "thread of the dataplane".into(), source };
        Ok(started.map_err(|error| failed(io::Error::other(error)))??)
    }

    fn start_here(carriers: Carriers, site: &Site) -> Result<Self, Error> {
        if carriers.plain == DataplaneKind::User {
            sweep_here(carriers.plain, &site.traces);
        }
        if carriers.encrypted == DataplaneKind::User || site.holder.is_none() {
            // The switch takes its port, or the kernel's dataplane that shall have none.
            end_holder(&site.traces.holder);
        }
        let in_kernel = carriers.plain == DataplaneKind::Kernel;
        let kernel = in_kernel.then(|| site.kernel(carriers)).transpose()?;
        let user = UserDataplane::start(site.switch(carriers))?;
        Ok(Self { user, kernel, carriers, in_kernel: BTreeSet::new() })
    }

    /// The switch in user space.
    pub(crate) const fn user(&self) -> &UserDataplane {
        &self.user
    }

    pub(crate) const fn user_mut(&mut self) -> &mut UserDataplane {
        &mut self.user
    }

    /// Associations that something came with, and how much each outbound one has carried.
    pub(crate) fn noticed(&self) -> (Vec<SaId>, Vec<(SaId, u64, u64)>) {
        if let Some(protection) = self.kernel.as_ref().and_then(KernelDataplane::protection) {
            return (protection.heard().collect(), protection.outbound_use().collect());
        }
        let look = |sas: &mut Sas| (sas.newly_heard(), sas.outbound_use().collect());
        // A switch that stopped has nothing to say.
        self.user.switch().with_sas(look).unwrap_or_default()
    }

    /// Addresses that the kernel seals for with associations of a run before.
    pub(crate) fn predecessors(&self) -> BTreeSet<IpAddr> {
        let protection = self.kernel.as_ref().and_then(KernelDataplane::protection);
        protection.map(Protection::predecessors).cloned().unwrap_or_default()
    }

    /// What associations have carried with each peer.
    pub(crate) fn traffic(&self) -> BTreeMap<NodeId, PeerTraffic> {
        if let Some(protection) = self.kernel.as_ref().and_then(KernelDataplane::protection) {
            return protection.traffic().clone();
        }
        // A switch that stopped has nothing to say.
        self.user.switch().with_sas(|sas| sas.traffic()).unwrap_or_default()
    }
}

fn open_kernel(config: KernelConfig) -> Result<KernelDataplane, Error> {
    let sealed = config.esp.map(|esp| esp.vxlan_port);
    let filter = NftFilter::open(Ports { plain: config.port, sealed })?;
    KernelDataplane::start(config, Box::new(filter))
}

fn has_left(netns_dir: &Path) -> bool {
    fs::read_dir(netns_dir).is_ok_and(|mut files| files.next().is_some())
}

/// Removes what a kernel dataplane of this node left on this host, on a node of `kind` that has none. What
/// cannot be removed is logged.
pub(crate) async fn sweep(kind: DataplaneKind, config: &Config) {
    let traces = config.traces();
    // It may wait for another process. What panicked has said so.
    let _ = spawn_blocking(move || sweep_here(kind, &traces)).await;
}

fn sweep_here(kind: DataplaneKind, traces: &Traces) {
    let networks = has_left(&traces.netns_dir);
    // Another node's, whose daemon is down at the moment, looks the same in the kernel.
    if !networks && !traces.holder.exists() && !traces.ipsec.exists() {
        return;
    }
    if networks {
        match try_sweep(kind, traces.netns_dir.clone()) {
            Ok(count) => tracing::info!(count, "networks of the kernel dataplane removed"),
            Err(error) => {
                tracing::error!(%error, "networks of the kernel dataplane stay on this host");
                // What remains of them may not send in clear.
                return;
            }
        }
    }
    if let Err(error) = sweep_esp(kind, &traces.ipsec) {
        tracing::error!(%error, "associations and policies of the kernel dataplane stay on this host");
        return;
    }
    end_holder(&traces.holder);
}

/// Ends the process that has the port of ESP while this one is down, if one was left.
fn end_holder(path: &Path) {
    if let Err(error) = holder::end(path) {
        let path = path.display();
        tracing::error!(%error, %path, "a process that holds the socket of ESP stays; end it");
    }
}

/// Removes what a kernel dataplane left of IPsec, behind its networks, and then what tells of it.
fn sweep_esp(kind: DataplaneKind, trace: &Path) -> anyhow::Result<()> {
    // What belongs to another daemon that runs is not touched.
    let _seat = seat::of_another(kind)?;
    if let Some(left) = Leftovers::find()? {
        left.remove()?;
    }
    match fs::remove_file(trace) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn try_sweep(kind: DataplaneKind, netns_dir: PathBuf) -> anyhow::Result<usize> {
    let _seat = seat::of_another(kind)?;
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
    // What goes behind the networks, and belongs to none, is tried once more, and said if it stays.
    dataplane.observe()?;
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
            | Op::RemoveOutboundSa(_) => {
                return match self.carriers.encrypted {
                    DataplaneKind::Kernel => Side::Kernel,
                    DataplaneKind::User => Side::User,
                };
            }
            // A network does not change sides while it is there: encryption is for its life.
            Op::PutNetwork(id, settings) => {
                if self.carriers.of(settings.encrypted) == DataplaneKind::Kernel {
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
            let found = kernel.observe()?;
            self.in_kernel = found.networks.keys().copied().collect();
            observed.networks.extend(found.networks);
            observed.inbound.extend(found.inbound);
            observed.outbound.extend(found.outbound);
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
