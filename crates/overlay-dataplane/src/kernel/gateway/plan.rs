//! From what is and what shall be to the changes between them. Pure.
//!
//! 1. Uplinks that nobody needs go first: their addresses and ports are free then.
//! 2. The table is there before the bridge: it guards what `route_localnet` opens.
//! 3. The bridge goes behind its last uplink, the table behind the bridge.

use core::{fmt, net::IpAddr};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ipnet::IpNet;
use overlay_types::{Addresses, EndpointId, MacAddr, PortSpec, Subnet};

use super::{GatewayConfig, bridge::link_local, pool};
use crate::{
    Error,
    desired::Publisher,
    kernel::{
        link::Link,
        nft::{
            Table, endpoint,
            gateway::{Gateway, PortMode},
            publish::{HostPort, Ports, Target},
        },
        scaffold::GROUP,
    },
};

/// What the bridge's alias says.
pub(super) const ALIAS: &[u8] = b"overlay gateway";

/// A namespace, by the number of its file: two paths can stand for one.
pub(super) type NetNsId = u64;

/// A container that shall have a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// A path of its namespace.
    pub(super) path: PathBuf,
    pub(super) endpoints: BTreeMap<EndpointId, Publisher>,
    /// Subnets that it reaches otherwise.
    pub(super) subnets: BTreeSet<Subnet>,
}

/// What there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    pub(super) bridge: Option<Bridge>,
    /// Devices of ours that nothing here could be any more.
    pub(super) stale: Vec<u32>,
    pub(super) uplinks: BTreeMap<NetNsId, FoundUplink>,
    /// Of the containers that shall have a way out.
    pub(super) containers: BTreeMap<NetNsId, Inside>,
    /// The table on the host.
    pub(super) table: Option<Table>,
    /// Whether the host forwards IPv4, IPv6.
    pub(super) forwards: [bool; 2],
    /// As ports of a bridge have to be on this host.
    pub(super) mode: PortMode,
    /// Where the host routes, but by the bridge, and the MTU of its way out.
    pub(super) routes: Vec<Subnet>,
    pub(super) mtu: u32,
    /// Addresses that others on the bridge have.
    pub(super) neighbors: BTreeSet<IpAddr>,
}

/// The bridge as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) link: Link,
    pub(super) nets: Vec<IpNet>,
    /// Link-local addresses.
    pub(super) link_local: Vec<IpNet>,
    /// Made here, and not by somebody else.
    pub(super) is_ours: bool,
}

/// An uplink as it is found: a port of the bridge, and the container's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundUplink {
    pub(super) port: Link,
    /// Path of its namespace that its alias tells.
    pub(super) path: PathBuf,
    /// `None` when it is not in the namespace that its name says.
    pub(super) interface: Option<Link>,
    pub(super) nets: Vec<IpNet>,
}

/// What else there is in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Inside {
    /// It has a default route of IPv4, IPv6.
    pub(super) default_routes: [bool; 2],
    /// Subnets that do not go out by them.
    pub(super) barriers: BTreeSet<Subnet>,
    /// Its table of published ports.
    pub(super) table: Option<Table>,
}

/// One change. Making it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GatewayOp {
    /// Remove an uplink, and what its container publishes.
    RemoveUplink(NetNsId),
    /// Remove a device of ours.
    RemoveDevice(u32),
    /// Have the table on the host.
    SetTable(Option<Table>),
    /// Have the bridge.
    PutBridge(BridgeSpec),
    /// Have the host forward IPv4, or IPv6.
    Forward { ipv6: bool },
    /// Have an uplink.
    PutUplink(NetNsId, UplinkSpec),
    /// Have the table in a container.
    SetContainerTable(NetNsId, Option<Table>),
}

/// A bridge of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeSpec {
    pub(super) nets: Vec<IpNet>,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
}

/// An uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UplinkSpec {
    pub(super) path: PathBuf,
    pub(super) nets: Vec<IpNet>,
    /// The bridge's addresses.
    pub(super) gateways: Vec<IpAddr>,
    /// Subnets that do not go out by them.
    pub(super) barriers: BTreeSet<Subnet>,
    pub(super) mac: MacAddr,
    pub(super) mtu: u16,
    pub(super) mode: PortMode,
}

/// For logs.
impl fmt::Display for GatewayOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = |table: &Option<Table>| if table.is_some() { "set" } else { "remove" };
        match self {
            Self::RemoveUplink(netns) => write!(f, "remove the uplink of namespace {netns}"),
            Self::RemoveDevice(index) => write!(f, "remove device {index}"),
            Self::SetTable(table) => write!(f, "{} the table on the host", verb(table)),
            Self::PutBridge(spec) => write!(f, "have the bridge with {:?}", spec.nets),
            Self::Forward { ipv6 } => write!(f, "forward IPv{}", if *ipv6 { 6 } else { 4 }),
            Self::PutUplink(_, spec) => {
                write!(f, "have an uplink with {:?} in {}", spec.nets, spec.path.display())
            }
            Self::SetContainerTable(netns, table) => {
                write!(f, "{} the table of ports in namespace {netns}", verb(table))
            }
        }
    }
}

/// All changes, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) ops: Vec<GatewayOp>,
    pub(super) refused: Vec<(BTreeSet<EndpointId>, Error)>,
    /// The bridge is ours, and its traffic is to pass chains of others that drop by default.
    pub(super) passes: bool,
}

impl Plan {
    fn refuse(&mut self, endpoints: impl IntoIterator<Item = EndpointId>, error: Error) {
        self.refused.push((endpoints.into_iter().collect(), error));
    }
}

/// Plans all changes. `held` are the ports that are reserved on the host, `used` subnets of the
/// cluster's networks. An error means that nobody can have a way out.
pub(super) fn plan(
    config: &GatewayConfig,
    wanted: &BTreeMap<NetNsId, Wanted>,
    held: &BTreeSet<HostPort>,
    used: &BTreeSet<Subnet>,
    observed: &Observed,
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let unneeded = observed.uplinks.keys().filter(|netns| !wanted.contains_key(netns));
    plan.ops.extend(unneeded.map(|netns| GatewayOp::RemoveUplink(*netns)));
    plan.ops.extend(observed.stale.iter().map(|index| GatewayOp::RemoveDevice(*index)));
    if wanted.is_empty() {
        let ours = observed.bridge.iter().filter(|bridge| bridge.is_ours);
        plan.ops.extend(ours.map(|bridge| GatewayOp::RemoveDevice(bridge.link.index)));
        plan.ops.extend(observed.table.as_ref().map(|_| GatewayOp::SetTable(None)));
        return Ok(plan);
    }
    let nets = bridge_nets(config, used, observed)?;
    let is_ours = observed.bridge.as_ref().is_none_or(|bridge| bridge.is_ours);
    plan.passes = is_ours;
    let assigned = assign(wanted, &nets, observed, &mut plan);
    let table = host_table(config, wanted, held, &nets, &assigned, is_ours, &mut plan);
    if observed.table.as_ref() != Some(&table) {
        plan.ops.push(GatewayOp::SetTable(Some(table)));
    }
    if is_ours {
        plan.ops.extend(put_bridge(&nets, observed));
    }
    for net in &nets {
        let ipv6 = net.addr().is_ipv6();
        if !observed.forwards[usize::from(ipv6)] {
            plan.ops.push(GatewayOp::Forward { ipv6 });
        }
    }
    for (netns, own) in assigned {
        put_uplink(netns, &wanted[&netns], own, &nets, observed, &mut plan.ops);
    }
    Ok(plan)
}

/// The bridge's addresses with their subnets, at most one of each version of IP.
fn bridge_nets(
    config: &GatewayConfig,
    used: &BTreeSet<Subnet>,
    observed: &Observed,
) -> Result<Vec<IpNet>, Error> {
    let bridge = observed.bridge.as_ref();
    let first = |is_v6: bool| bridge?.nets.iter().find(|net| net.addr().is_ipv6() == is_v6);
    let has: Vec<_> = [false, true].into_iter().filter_map(first).copied().collect();
    if bridge.is_some_and(|bridge| !bridge.is_ours) {
        let reason = "somebody else made it, and it has no address";
        let name = config.bridge.clone();
        return if has.is_empty() { Err(Error::GatewayDevice { name, reason }) } else { Ok(has) };
    }
    let asked = config.subnets.iter().filter_map(|subnet| pool::with_gateway(*subnet));
    if !has.is_empty() && asked.clone().all(|net| has.contains(&net)) {
        return Ok(if config.subnets.is_empty() { has } else { asked.collect() });
    }
    let used: Vec<_> = observed.routes.iter().chain(used).copied().collect();
    pool::choose(&config.subnets, &used)
}

fn put_bridge(nets: &[IpNet], observed: &Observed) -> Option<GatewayOp> {
    let mac = nets.first().map(|net| mac(net.addr())).unwrap_or_default();
    let bridge = observed.bridge.as_ref();
    let is_whole = bridge.is_some_and(|bridge| {
        let link = &bridge.link;
        let same = |a: &[IpNet], b: &[IpNet]| a.iter().all(|net| b.contains(net));
        link.group == GROUP
            && link.alias == ALIAS
            && link.up
            && link.mac == mac
            && !link.snooping
            && link.routes_loopback
            && same(&bridge.nets, nets)
            && same(nets, &bridge.nets)
            && link_local(nets).is_none_or(|net| bridge.link_local.contains(&net))
    });
    let mtu = mtu(observed);
    (!is_whole).then(|| GatewayOp::PutBridge(BridgeSpec { nets: nets.to_vec(), mac, mtu }))
}

/// Gives each container its addresses. One that gets none is refused.
fn assign(
    wanted: &BTreeMap<NetNsId, Wanted>,
    nets: &[IpNet],
    observed: &Observed,
    plan: &mut Plan,
) -> BTreeMap<NetNsId, Vec<IpNet>> {
    let mut taken: BTreeSet<IpAddr> = nets.iter().map(IpNet::addr).collect();
    let found = |netns| observed.uplinks.get(netns).map_or(&[][..], |uplink| &uplink.nets);
    // Who has addresses goes first: nobody gets what somebody keeps.
    let (old, new): (Vec<_>, Vec<_>) =
        wanted.iter().partition(|(netns, _)| !found(netns).is_empty());
    let mut assigned = BTreeMap::new();
    for (netns, container) in old.into_iter().chain(new) {
        if found(netns).is_empty() {
            // Of those who have addresses, an uplink of ours may be a neighbor.
            taken.extend(&observed.neighbors);
        }
        let overlapped = nets.iter().map(|net| Subnet::containing(*net)).find_map(|subnet| {
            let other = container.subnets.iter().find(|other| other.overlaps(subnet))?;
            Some(Error::GatewayOverlap { subnet, other: *other })
        });
        let seed = container.endpoints.keys().next().map_or(0, |id| id.to_u128());
        let own = match overlapped {
            Some(error) => Err(error),
            None => pool::assign(nets, found(netns), seed, &mut taken),
        };
        match own {
            Ok(own) => drop(assigned.insert(*netns, own)),
            Err(error) => plan.refuse(container.endpoints.keys().copied(), error),
        }
    }
    assigned
}

/// The table on the host. On a bridge of somebody else it says nothing about others on it.
fn host_table(
    config: &GatewayConfig,
    wanted: &BTreeMap<NetNsId, Wanted>,
    held: &BTreeSet<HostPort>,
    nets: &[IpNet],
    assigned: &BTreeMap<NetNsId, Vec<IpNet>>,
    is_ours: bool,
    plan: &mut Plan,
) -> Table {
    let mut ports = Ports::new();
    for (netns, own) in assigned {
        let addresses = pool::addresses(own);
        for (endpoint, publisher) in &wanted[netns].endpoints {
            for port in &publisher.ports {
                let Some(host) = host_port(port).filter(|host| held.contains(host)) else {
                    continue;
                };
                if !answers(&host, addresses) {
                    let reason = "containers have no address of that version of IP on the gateway \
                                  bridge; give it a subnet with gateway-subnet";
                    plan.refuse([*endpoint], Error::Publish { port: *port, reason });
                    continue;
                }
                ports.insert(host, Target { addresses, port: port.target.get() });
            }
        }
    }
    let subnets = if is_ours {
        nets.iter().map(|net| Subnet::containing(*net)).collect()
    } else {
        assigned.values().flatten().map(|net| Subnet::containing(IpNet::from(net.addr()))).collect()
    };
    let bridge = config.bridge.clone();
    Gateway { bridge, subnets, masquerade: true, isolated: is_ours, ports }.table()
}

/// Where a port answers on the host, if it is published.
pub(super) fn host_port(port: &PortSpec) -> Option<HostPort> {
    let published = port.published?.get();
    Some(HostPort { protocol: port.protocol, address: port.host_ip, port: published })
}

fn answers(host: &HostPort, addresses: Addresses) -> bool {
    host.address.is_none_or(|on| addresses.iter().any(|own| own.is_ipv4() == on.is_ipv4()))
}

fn put_uplink(
    netns: NetNsId,
    container: &Wanted,
    nets: Vec<IpNet>,
    bridge_nets: &[IpNet],
    observed: &Observed,
    ops: &mut Vec<GatewayOp>,
) {
    let bridge = observed.bridge.as_ref();
    let mtu = mtu(observed);
    let is_ours = bridge.is_none_or(|bridge| bridge.is_ours);
    let mode = if is_ours { observed.mode } else { PortMode { isolated: true, hairpin: false } };
    let inside = observed.containers.get(&netns).cloned().unwrap_or_default();
    let found = observed.uplinks.get(&netns);
    // Without a default route of that version of IP nothing of it goes out.
    let goes_out =
        |subnet: &&Subnet| bridge_nets.iter().any(|net| net.addr().is_ipv4() == subnet.is_ipv4());
    let barriers: BTreeSet<Subnet> = container.subnets.iter().filter(goes_out).copied().collect();
    let is_whole = found.is_some_and(|found| {
        let (port, Some(interface)) = (&found.port, &found.interface) else { return false };
        port.group == GROUP
            && port.up
            && bridge.is_some_and(|bridge| port.master == Some(bridge.link.index))
            && port.mode == Some(mode)
            && port.mtu == mtu
            && found.path == container.path
            && interface.up
            && interface.mtu == mtu
            && nets.iter().all(|net| found.nets.contains(net))
            && nets.iter().all(|net| inside.default_routes[usize::from(net.addr().is_ipv6())])
            && inside.barriers == barriers
    });
    if !is_whole {
        let spec = UplinkSpec {
            path: container.path.clone(),
            mac: nets.first().map(|net| mac(net.addr())).unwrap_or_default(),
            nets,
            gateways: bridge_nets.iter().map(IpNet::addr).collect(),
            barriers,
            mtu: mtu.try_into().unwrap_or(u16::MAX),
            mode,
        };
        ops.push(GatewayOp::PutUplink(netns, spec));
    }
    let published = container.endpoints.values().flat_map(|publisher| {
        let published = publisher.ports.iter().filter_map(|p| Some((p, p.published?)));
        published.map(|(p, port)| (publisher.addresses, p.protocol, port.get(), p.target.get()))
    });
    let table = endpoint::table(published);
    if table != inside.table {
        ops.push(GatewayOp::SetContainerTable(netns, table));
    }
}

/// That of the bridge, or of one that is to be finished.
fn mtu(observed: &Observed) -> u32 {
    let whole = observed.bridge.as_ref().filter(|bridge| !bridge.nets.is_empty());
    whole.map_or(observed.mtu, |bridge| bridge.link.mtu)
}

/// The Ethernet address that goes with an address (N15).
fn mac(address: IpAddr) -> MacAddr {
    match address {
        IpAddr::V4(v4) => MacAddr::from_ipv4(v4),
        IpAddr::V6(v6) => MacAddr::from_unique(v6.to_bits() as u32),
    }
}
