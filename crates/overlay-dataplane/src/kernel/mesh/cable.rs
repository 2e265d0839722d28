//! The cable between the host and the gate's namespace: a veth pair with fixed neighbours, and the routes
//! over it.

use core::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;
use neli::consts::rtnl::Ifla;
use overlay_types::{MacAddr, Subnet};

use super::{
    super::{
        address::{self, Assigned},
        link::{self, Kind, Link, Peer},
        neighbor::{Content, Entry, list_neighbors},
        netlink::{Message, Refusal, RouteSocket},
        netns::NetNs,
        port::allow_ipv6,
        route::{self, MAIN, NewRoute, Route, Way},
        scaffold::{GROUP, run, settle, silence},
    },
    addresses::Cable,
};
use crate::Error;

/// Names of the ends.
pub(in crate::kernel) const HOST_END: &str = "overlay_mesh";
pub(super) const GATE_END: &str = "host0";
/// What the host's end says.
const ALIAS: &[u8] = b"overlay mesh";
/// The overlay's MTU is what counts on the way; clients are told that one.
const MTU: u16 = u16::MAX;
/// Stands for all that has no route of its own.
pub(super) const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What there is of the cable.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) host: Link,
    /// The other end; `None` when it is not in the gate's namespace.
    pub(super) gate: Option<Link>,
    /// Addresses of both ends.
    pub(super) nets: Vec<IpNet>,
}

/// One end as it shall be.
struct End<'a> {
    socket: &'a RouteSocket,
    link: &'a Link,
    nets: Vec<IpNet>,
    /// The other end's addresses, and where they are.
    others: Vec<IpNet>,
    other: MacAddr,
    routes: Vec<NewRoute>,
}

/// Reads what is there. What has the cable's name and is something else is refused.
pub(super) fn read(
    host: &RouteSocket,
    gate: &NetNs,
    inside: &RouteSocket,
) -> Result<Option<Found>, Error> {
    let Some(link) = find_any(host)? else { return Ok(None) };
    if !is_ours(&link) {
        return Err(Error::MeshDevice(HOST_END.to_owned()));
    }
    let number = gate.number_in(host).map_err(failed("find the namespace of"))?;
    let peer = match (link.peer_netns, link.peer) {
        (Some(netns), Some(peer)) if number == Some(netns) => {
            inside.get(link::numbered(peer), Link::parse).map_err(failed("find the end of"))?
        }
        _ => None,
    };
    let mut ends = nets(host, &link)?;
    if let Some(peer) = &peer {
        ends.extend(nets(inside, peer)?);
    }
    Ok(Some(Found { host: link, gate: peer, nets: ends }))
}

/// Addresses of an end.
pub(super) fn nets(socket: &RouteSocket, link: &Link) -> Result<Vec<IpNet>, Error> {
    let all = socket.dump(address::list(), Assigned::parse);
    let all = all.map_err(failed("list addresses of"))?;
    let own = all.iter().filter(|a| a.link == link.index && !a.is_link_local());
    Ok(own.map(|a| a.net).collect())
}

/// The host's end, if there is one that is ours.
pub(super) fn find(host: &RouteSocket) -> Result<Option<Link>, Error> {
    Ok(find_any(host)?.filter(is_ours))
}

fn find_any(host: &RouteSocket) -> Result<Option<Link>, Error> {
    host.get(link::named(HOST_END.as_bytes()), Link::parse).map_err(failed("find"))
}

fn is_ours(link: &Link) -> bool {
    link.kind == Kind::Veth && (link.group == GROUP || link.alias == ALIAS)
}

/// Subnets that the host, or the gate, routes otherwise.
pub(super) fn routed(socket: &RouteSocket) -> Result<Vec<Subnet>, Error> {
    let mut subnets = Vec::new();
    for request in route::list() {
        let routes = socket.dump(request, Route::parse).map_err(failed("list what is beside"))?;
        subnets.extend(routes.iter().filter(|route| !route.is_default()).map(|r| r.subnet));
    }
    Ok(subnets)
}

/// Has the cable as it shall be, whatever is there of it. Says whether anything was changed.
pub(super) fn put(
    (host_netns, host): (&NetNs, &RouteSocket),
    (gate_netns, inside): (&NetNs, &RouteSocket),
    found: Option<&Found>,
    cable: &Cable,
    ingress: u32,
) -> Result<bool, Error> {
    let mut changed = false;
    let (link, peer) = match found {
        Some(Found { host: link, gate: Some(peer), .. }) => (link.clone(), peer.clone()),
        found => {
            if let Some(broken) = found {
                host.request(link::remove(broken.host.index)).map_err(failed("remove"))?;
            }
            changed = true;
            make(host, gate_netns, inside, cable)?
        }
    };
    if cable.has_v6() {
        allow_ipv6(host_netns, HOST_END);
        allow_ipv6(gate_netns, GATE_END);
    }
    let virtuals = cable.virtual_subnets();
    let (own, others) = (cable.host(), cable.gate());
    let next = |nets: &[IpNet], subnet: &Subnet| {
        nets.iter().map(IpNet::addr).find(|a| a.is_ipv4() == subnet.is_ipv4())
    };
    let route = |subnet: &Subnet, link: u32, gateway| NewRoute {
        subnet: *subnet,
        table: MAIN,
        link,
        gateway,
        source: None,
    };
    let to_gate = virtuals.iter().map(|s| route(s, link.index, next(&others, s))).collect();
    let everywhere = own.iter().filter_map(|net| IpNet::new(unspecified(*net), 0).ok());
    let everywhere: Vec<_> = everywhere.map(Subnet::containing).collect();
    let mut inner: Vec<_> =
        everywhere.iter().map(|s| route(s, peer.index, next(&own, s))).collect();
    // Where a look-up of the way finds that the gate's interface is to translate them.
    inner.extend(virtuals.iter().map(|s| route(s, ingress, None)));
    let host_end = End {
        socket: host,
        link: &link,
        nets: own.clone(),
        others: others.clone(),
        other: peer.mac,
        routes: to_gate,
    };
    let gate_end = End {
        socket: inside,
        link: &peer,
        nets: others,
        others: own,
        other: link.mac,
        routes: inner,
    };
    changed |= host_end.put(true)?;
    changed |= gate_end.put(false)?;
    Ok(changed)
}

/// Removes the cable. One that is gone need not be removed.
pub(super) fn remove(host: &RouteSocket) -> Result<bool, Error> {
    let Some(link) = find(host)? else { return Ok(false) };
    host.request(link::remove(link.index)).map_err(failed("remove"))?;
    Ok(true)
}

fn make(
    host: &RouteSocket,
    gate: &NetNs,
    inside: &RouteSocket,
    cable: &Cable,
) -> Result<(Link, Link), Error> {
    let gone = || Error::Unsupported("keep a cable that somebody else removes");
    let mac = match cable.gate().first().map(IpNet::addr) {
        Some(IpAddr::V4(v4)) => MacAddr::from_ipv4(v4),
        _ => MacAddr::from_unique(0),
    };
    let peer = Peer { name: GATE_END.as_bytes(), mac, netns: gate.as_fd() };
    host.request(link::new_veth(HOST_END.as_bytes(), GROUP, MTU, &peer)).map_err(failed("make"))?;
    let link = find(host)?.ok_or_else(gone)?;
    let peer = inside.get(link::named(GATE_END.as_bytes()), Link::parse);
    Ok((link, peer.map_err(failed("find the end of"))?.ok_or_else(gone)?))
}

impl End<'_> {
    fn put(&self, is_host: bool) -> Result<bool, Error> {
        let index = self.link.index;
        let found = self.socket.dump(address::list(), Assigned::parse);
        let found = found.map_err(failed("list addresses of"))?;
        let wanted: Vec<_> =
            self.nets.iter().map(|net| Assigned { link: index, net: *net }).collect();
        let old = found.iter().filter(|a| a.link == index && !a.is_link_local());
        let old =
            old.filter(|a| !wanted.contains(a)).map(|a| ("remove an address from", a.remove()));
        let new = wanted.iter().filter(|a| !found.contains(a));
        let mut steps: Vec<_> = old.chain(new.map(|a| ("add an address to", a.put()))).collect();
        if !self.is_set_up(is_host) {
            silence(self.socket, index).map_err(failed("silence"))?;
            let set = link::set(index).put_u32(Ifla::Mtu, MTU.into());
            let mut set_up = vec![("set up", link::loose_source(set))];
            if is_host {
                let set = link::set(index).put_u32(Ifla::Group, GROUP).put(Ifla::Ifalias, ALIAS);
                set_up.push(("set up", link::route_loopback(set)));
            }
            steps.splice(0..0, set_up);
            steps.push(("bring up", link::set_up(index)));
        }
        steps.extend(self.neighbors()?);
        // Routes go with a device that is taken down, and come behind it.
        let is_new = !steps.is_empty();
        run(self.socket, HOST_END, steps)?;
        let routes = self.routes()?;
        let changed = is_new || !routes.is_empty();
        run(self.socket, HOST_END, routes)?;
        if changed {
            settle(self.socket, index).map_err(failed("find"))?;
        }
        Ok(changed)
    }

    fn is_set_up(&self, is_host: bool) -> bool {
        let link = self.link;
        let is_named = link.group == GROUP && link.alias == ALIAS && link.routes_loopback;
        link.up && link.mtu == u32::from(MTU) && (is_named || !is_host)
    }

    /// Neither end asks for the other.
    fn neighbors(&self) -> Result<Vec<(&'static str, Message)>, Error> {
        let mut found = Vec::new();
        for request in list_neighbors() {
            let entries = self.socket.dump(request, Entry::parse);
            found.extend(entries.map_err(failed("list neighbours of"))?);
        }
        let entry = |net: &IpNet| {
            let content = Content::Neighbor(net.addr(), self.other);
            Entry { link: self.link.index, content }
        };
        let missing = self.others.iter().map(entry).filter(|entry| !found.contains(entry));
        Ok(missing.map(|entry| ("add a neighbour to", entry.put())).collect())
    }

    /// Routes that do not lead where they shall.
    fn routes(&self) -> Result<Vec<(&'static str, Message)>, Error> {
        let mut missing = Vec::new();
        for route in &self.routes {
            let ipv6 = !route.subnet.is_ipv4();
            // The first virtual address behind those of the ends.
            let probe = if route.subnet.prefix_len() == 0 {
                Some(ANYWHERE[usize::from(ipv6)])
            } else {
                route.subnet.nth(4)
            };
            let Some(probe) = probe else { continue };
            let leads = Some(Way { link: Some(route.link), gateway: route.gateway });
            if way(self.socket, probe, 0)? != leads {
                missing.push(("add a route over", route.put()));
            }
        }
        Ok(missing)
    }
}

/// The way that packets with a mark take, if there is one.
pub(super) fn way(socket: &RouteSocket, to: IpAddr, mark: u32) -> Result<Option<Way>, Error> {
    use nix::errno::Errno;
    match socket.get(route::toward(to, mark), Way::parse) {
        Err(Refusal { errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. }) => Ok(None),
        found => found.map_err(failed("look up the way over")),
    }
}

const fn unspecified(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(_) => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
        IpNet::V6(_) => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
    }
}

fn failed(step: &'static str) -> impl Fn(Refusal) -> Error {
    move |source| Error::Kernel { step, subject: format!("cable {HOST_END}"), source }
}
