//! The way out of containers, and the ports that they publish (N18, S15, S16).
//!
//! ```text
//!  container            host
//!  eth0 ═══ overlay networks
//!  gw0  ═══ gw… ── overlay_gwbr ── forwards, masquerades ──► the host's way out
//!  default routes, but  ▲
//!  not to its networks  │
//!                       └─ table on the host: published port ─► container's address
//!  table: published port of the overlay address ─► target
//! ```
//!
//! Beside the dataplane, because it is about containers and the host and not about networks: a
//! container on five networks has one way out, and its networks may be on either dataplane. Like it,
//! it compares in full each time: what is (`plan::Observed`, read from the kernel), what shall be
//! ([`Uplinks`]), and the changes between them as a plan; which of these fails does not keep the next
//! from being tried. To read a container takes a thread that enters it and some ten requests, so between
//! two full comparisons a change reads those that it is about.
//!
//! The kernel holds the state: which devices are ours their group and alias say, whose an uplink is
//! its name (the number of the namespace) and alias (a path of it), and the addresses that there are
//! stay. Only ports are held by this process, with sockets, so that nobody else can have them; after
//! a restart they are taken again.
//!
//! A bridge of that name that somebody else made is used as it is. Its addresses say what containers
//! get, ours are masqueraded and kept apart from one another, and all else is its owner's business:
//! settings, firewall, others on it.
//!
//! - `plan`: what to do; pure. `pool`: subnets and addresses; pure
//! - `known`: what was found before; pure
//! - `observation`; `bridge`, `uplink`, `barrier`, `setting`: reading and making

mod barrier;
mod bridge;
mod known;
mod observation;
mod plan;
mod pool;
pub(super) mod setting;
mod uplink;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use overlay_types::{EndpointId, SpecError, Subnet};

use self::{
    known::Known,
    plan::{GatewayOp, NetNsId, Observed, Wanted, host_port},
};
use super::{
    conntrack,
    link::{self, Link},
    netlink::{self, RouteSocket},
    netns::NetNs,
    nft::{
        Nft, Table, TableId, diff, endpoint,
        forwarding::{self, Passage},
        gateway,
        publish::{self, HostPort},
        reservation::{PortTaken, Reservation},
    },
};
use crate::{Error, desired::Uplinks, user::ports::interface::is_device_name};

/// Longest prefixes of subnets for the bridge: it and a few containers find room.
const LONGEST_V4: u8 = 29;
const LONGEST_V6: u8 = 125;

/// How a node's gateway is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    bridge: String,
    subnets: Vec<Subnet>,
}

impl GatewayConfig {
    /// Name of the bridge when none is chosen. Docker's has 16 characters, a device 15 at most.
    pub const BRIDGE: &str = "overlay_gwbr";

    /// A bridge of this name. One that is made gets these subnets, at most one of each version of IP;
    /// without any, one of IPv4 that the host does not route.
    pub fn new(bridge: impl Into<String>, subnets: Vec<Subnet>) -> Result<Self, SpecError> {
        let bridge = bridge.into();
        if !is_device_name(&bridge) {
            let reason = "a device has 1-15 bytes without '/', ':' and white space, like \
                          overlay_gwbr";
            return Err(SpecError::new("gateway-bridge", bridge, reason));
        }
        let mut families = BTreeSet::new();
        for subnet in &subnets {
            let longest = if subnet.is_ipv4() { LONGEST_V4 } else { LONGEST_V6 };
            if subnet.prefix_len() > longest {
                let reason = "it has no room for the bridge and containers; IPv4 needs /29, IPv6 \
                              /125 or more";
                return Err(SpecError::new("gateway-subnet", subnet, reason));
            }
            if !families.insert(subnet.is_ipv4()) {
                let reason = "the bridge has one subnet of each version of IP";
                return Err(SpecError::new("gateway-subnet", subnet, reason));
            }
        }
        Ok(Self { bridge, subnets })
    }

    /// Name of the bridge.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self { bridge: Self::BRIDGE.to_owned(), subnets: Vec::new() }
    }
}

/// What one comparison came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was changed, or tried to, for a log.
    pub changes: Vec<String>,
    /// What failed, and the endpoints that have no way out, or a port less, for it.
    pub refused: Vec<(BTreeSet<EndpointId>, Error)>,
}

/// A node's gateway in the Linux kernel.
#[derive(Debug)]
pub struct KernelGateway {
    config: GatewayConfig,
    /// The host's namespace.
    netns: NetNs,
    host: RouteSocket,
    nft: Nft,
    held: BTreeMap<HostPort, Reservation>,
    /// Containers as they were last found, if nothing was left to do there.
    known: BTreeMap<NetNsId, Known>,
}

impl KernelGateway {
    /// A gateway on the host whose namespace the calling thread is in. Changes nothing there; what a
    /// process before it left is taken over by the first comparison.
    pub fn start(config: GatewayConfig) -> Result<Self, Error> {
        Ok(Self {
            config,
            netns: NetNs::own().map_err(Error::unopened)?,
            host: RouteSocket::open().map_err(Error::unopened)?,
            nft: Nft::open()?,
            held: BTreeMap::new(),
            known: BTreeMap::new(),
        })
    }

    /// Compares what is with what shall be, and changes what differs.
    pub fn reconcile(&mut self, desired: &Uplinks) -> Outcome {
        self.known.clear();
        self.follow(desired)
    }

    /// The same after a change of what shall be. Containers in which nothing was left to do by the last
    /// comparison are taken to be as they were then, unless their uplink is another one.
    pub fn follow(&mut self, desired: &Uplinks) -> Outcome {
        let mut outcome = Outcome::default();
        let (mut wanted, mut containers) = self.open_containers(desired, &mut outcome);
        self.reserve(&wanted, &mut outcome);
        let observed = match self.observe(&containers) {
            Ok((observed, failed)) => {
                for (id, error) in failed {
                    containers.remove(&id);
                    outcome.refused.extend(wanted.remove(&id).map(|w| (endpoints(&w), error)));
                }
                observed
            }
            Err(error) => return outcome.all_refused(&wanted, error),
        };
        let held = self.held.keys().copied().collect();
        match plan::plan(&self.config, &wanted, &held, &desired.subnets, &observed) {
            Ok(plan) => {
                outcome.refused.extend(plan.refused);
                self.known = known::settled(&observed, &plan.ops);
                self.apply(plan.ops, &wanted, &containers, &observed, &mut outcome);
                self.pass(plan.passes, &wanted, &mut outcome);
            }
            Err(error) => outcome = outcome.all_refused(&wanted, error),
        }
        // Behind the table, which leads there no more.
        let needed = ports(&wanted);
        self.held.retain(|port, _| needed.contains_key(port));
        outcome
    }

    /// Opens the namespaces, each once.
    fn open_containers(
        &self,
        desired: &Uplinks,
        outcome: &mut Outcome,
    ) -> (BTreeMap<NetNsId, Wanted>, BTreeMap<NetNsId, NetNs>) {
        let (mut wanted, mut containers) = (BTreeMap::<NetNsId, Wanted>::new(), BTreeMap::new());
        let own = self.netns.inode().ok();
        for (path, uplink) in &desired.containers {
            let opened = NetNs::open(path).and_then(|netns| Ok((netns.inode()?, netns)));
            let (id, netns) = match opened {
                Ok(opened) => opened,
                Err(source) => {
                    let error = Error::Namespace { path: path.clone(), source };
                    outcome.refused.push((uplink.endpoints.keys().copied().collect(), error));
                    continue;
                }
            };
            if own == Some(id) {
                refuse_publishing_host(&uplink.endpoints, outcome);
                continue;
            }
            containers.entry(id).or_insert(netns);
            let container = wanted.entry(id).or_insert_with(|| Wanted {
                path: path.clone(),
                endpoints: BTreeMap::new(),
                subnets: BTreeSet::new(),
            });
            container.endpoints.extend(uplink.endpoints.clone());
            container.subnets.extend(&uplink.subnets);
        }
        (wanted, containers)
    }

    /// Takes the ports that are not taken yet, so that nobody else can have them.
    fn reserve(&mut self, wanted: &BTreeMap<NetNsId, Wanted>, outcome: &mut Outcome) {
        let missing: Vec<_> =
            ports(wanted).into_iter().filter(|(port, _)| !self.held.contains_key(port)).collect();
        if missing.is_empty() {
            return;
        }
        let take = || {
            let taken = missing.into_iter().map(|(port, who)| (port, who, Reservation::take(port)));
            Ok(taken.collect::<Vec<(HostPort, EndpointId, Result<Reservation, PortTaken>)>>())
        };
        let taken = self.netns.enter(take);
        for (port, endpoint, taken) in taken.unwrap_or_default() {
            match taken {
                Ok(reservation) => drop(self.held.insert(port, reservation)),
                Err(error) => outcome.refused.push(([endpoint].into(), error.into())),
            }
        }
    }

    fn apply(
        &mut self,
        ops: Vec<GatewayOp>,
        wanted: &BTreeMap<NetNsId, Wanted>,
        containers: &BTreeMap<NetNsId, NetNs>,
        observed: &Observed,
        outcome: &mut Outcome,
    ) {
        for op in ops {
            outcome.changes.push(op.to_string());
            let concerned = match &op {
                GatewayOp::PutUplink(id, _) | GatewayOp::SetContainerTable(id, _) => {
                    wanted.get(id).map(endpoints).unwrap_or_default()
                }
                GatewayOp::RemoveUplink(_) | GatewayOp::RemoveDevice(_) => BTreeSet::new(),
                // Everybody's way out needs it.
                _ => wanted.values().flat_map(endpoints).collect(),
            };
            if let Err(error) = self.apply_one(op, containers, observed) {
                outcome.refused.push((concerned, error));
            }
        }
    }

    fn apply_one(
        &mut self,
        op: GatewayOp,
        containers: &BTreeMap<NetNsId, NetNs>,
        observed: &Observed,
    ) -> Result<(), Error> {
        match op {
            GatewayOp::RemoveUplink(id) => {
                let Some(found) = observed.uplinks.get(&id) else { return Ok(()) };
                clear_container(&found.path, id)?;
                bridge::remove(&self.host, found.port.index)
            }
            GatewayOp::RemoveDevice(index) => bridge::remove(&self.host, index),
            GatewayOp::SetTable(table) => {
                set_table(&mut self.nft, &gateway::table_id(), table.as_ref())?;
                let ways = |table: &Option<Table>| table.as_ref().map(publish::ways);
                let (before, after) = (ways(&observed.table), ways(&table).unwrap_or_default());
                let gone = before.iter().flatten().filter(|way| !after.contains(way)).copied();
                self.end_flows(&gone.collect());
                Ok(())
            }
            GatewayOp::PutBridge(spec) => {
                bridge::put(&self.host, &self.netns, &self.config.bridge, &spec)
            }
            GatewayOp::Forward { ipv6 } => setting::forward(&self.netns, ipv6),
            GatewayOp::PutUplink(id, spec) => match containers.get(&id) {
                Some(netns) => uplink::put(&self.host, &self.config.bridge, id, netns, &spec),
                None => Ok(()),
            },
            GatewayOp::SetContainerTable(id, table) => match containers.get(&id) {
                Some(netns) => set_container_table(netns, table.as_ref()),
                None => Ok(()),
            },
        }
    }

    /// Ends the connections to ports that are published no more: a datagram's would go on for as long as
    /// its client sends, to a container that is gone, whoever has the port by then.
    fn end_flows(&self, gone: &BTreeSet<publish::Way>) {
        if gone.is_empty() {
            return;
        }
        let is_over = |flow: &conntrack::Flow| {
            gone.iter().any(|way| {
                (way.protocol, way.port, way.to) == (flow.protocol, flow.to.1, flow.from)
                    && way.on.is_none_or(|on| on == flow.to.0)
            })
        };
        let ended = self.netns.enter(RouteSocket::open_netfilter);
        let ended = ended.map(|socket| conntrack::end(&socket, None, is_over));
        match ended {
            Ok(Ok(count)) if count > 0 => {
                tracing::info!(count, "connections to ports ended that are published no more");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "connections to such ports go on"),
            Err(error) => tracing::warn!(%error, "connections to such ports go on"),
        }
    }

    /// Has chains of others that drop by default let our bridge's traffic pass, or no more.
    fn pass(&mut self, passes: bool, wanted: &BTreeMap<NetNsId, Wanted>, outcome: &mut Outcome) {
        let bridge = passes.then_some(self.config.bridge.as_str());
        let used = super::call();
        let used = used.map_err(|source| super::nft::NftError::Socket { step: "use", source });
        match used.and_then(|()| forwarding::reconcile(&mut self.nft, Passage::Gateway, bridge)) {
            Ok(changed) => outcome.changes.extend(changed),
            Err(error) => {
                let all = wanted.values().flat_map(endpoints).collect();
                outcome.refused.push((all, error.into()));
            }
        }
    }

    /// Whether there are devices of ours, of this run or a former one. Anybody may ask.
    pub fn has_left(&self) -> Result<bool, Error> {
        let failed = |source| Error::Kernel { step: "list", subject: "devices".into(), source };
        let links = self.host.dump(link::list(), Link::parse).map_err(failed)?;
        Ok(links.iter().any(|link| uplink::is_ours(link) || observation::is_ours(link)))
    }

    /// Chains of others on this host that drop what is forwarded, and that are left alone.
    pub fn obstacles(&mut self) -> Result<Vec<String>, Error> {
        Ok(forwarding::obstacles(&mut self.nft)?)
    }
}

impl Outcome {
    fn all_refused(mut self, wanted: &BTreeMap<NetNsId, Wanted>, error: Error) -> Self {
        self.refused.push((wanted.values().flat_map(endpoints).collect(), error));
        self
    }
}

fn endpoints(container: &Wanted) -> BTreeSet<EndpointId> {
    container.endpoints.keys().copied().collect()
}

/// Ports that are to be held, and for whom.
fn ports(wanted: &BTreeMap<NetNsId, Wanted>) -> BTreeMap<HostPort, EndpointId> {
    let publishers = wanted.values().flat_map(|container| &container.endpoints);
    let all = publishers
        .flat_map(|(id, p)| p.ports.iter().filter_map(host_port).zip(core::iter::repeat(*id)));
    all.collect()
}

/// What is in the host's own namespace has the host's way out, and its ports are there already.
fn refuse_publishing_host(
    endpoints: &BTreeMap<EndpointId, crate::desired::Publisher>,
    outcome: &mut Outcome,
) {
    for (endpoint, publisher) in endpoints {
        for port in &publisher.ports {
            let reason = "the endpoint is in the host's own namespace: what it listens on answers \
                          there as it is";
            outcome.refused.push(([*endpoint].into(), Error::Publish { port: *port, reason }));
        }
    }
}

fn set_table(nft: &mut Nft, id: &TableId, table: Option<&Table>) -> Result<(), Error> {
    super::call().map_err(|source| super::nft::NftError::Socket { step: "use", source })?;
    let found = nft.observe(id)?;
    Ok(nft.apply(&diff(id, table, found.as_ref()))?)
}

fn set_container_table(netns: &NetNs, table: Option<&Table>) -> Result<(), Error> {
    let opened = netns.enter(|| Ok(Nft::open()));
    let mut nft =
        opened.map_err(|source| super::nft::NftError::Socket { step: "open", source })??;
    let outcome = set_table(&mut nft, &endpoint::table_id(), table);
    netlink::close(vec![nft]);
    outcome
}

/// Removes what was published in a container that has no way out any more. One that is gone, or
/// that nobody names any more, took it along or will.
fn clear_container(path: &Path, id: NetNsId) -> Result<(), Error> {
    let found = NetNs::open(path).ok().filter(|netns| netns.inode().is_ok_and(|inode| inode == id));
    let Some(netns) = found else { return Ok(()) };
    set_container_table(&netns, None)?;
    let failed = |source| Error::Kernel {
        step: "remove",
        subject: format!("routes to networks in {}", path.display()),
        source,
    };
    let inside = netns.socket().map_err(|error| failed(error.into()))?;
    barrier::put(&inside, &BTreeSet::new()).map_err(failed)
}
