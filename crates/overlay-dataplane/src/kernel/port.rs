//! How an endpoint is plugged in: a veth pair, one end a port of the network's bridge, the other the
//! interface in the endpoint's namespace.

use core::net::IpAddr;
use std::{
    ffi::OsStr,
    fs,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use neli::consts::rtnl::Ifla;
use nix::errno::Errno;
use overlay_types::{Addresses, EndpointId, id::ID_TEXT_LEN};

use super::{
    address::{self, Assigned},
    link::{self, Kind, Link, Peer, PortFlags},
    netlink::{Message, Refusal, RouteSocket},
    netns::NetNs,
    route,
    scaffold::{GROUP, run, settle, silence},
};
use crate::{
    Error,
    desired::{LocalEndpoint, PortKind, Role, Settings},
};

/// First characters of a port's name. The last of its endpoint's id follow.
const PREFIX: &str = "ep";
/// Characters of the id that have room in a name of 15.
const TAIL: usize = 13;
/// What a port's alias begins with, by the endpoint's role. Its id and the path of its namespace follow.
const TAGS: [(Role, &str); 2] =
    [(Role::Station, "overlay endpoint "), (Role::Gate, "overlay gate ")];
/// Octets of an alias (`IFALIASZ` of linux/if.h, and a zero).
pub(super) const ALIAS_LEN: usize = 255;

/// Where ports are plugged in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Board<'a> {
    pub(super) inside: &'a RouteSocket,
    pub(super) bridge: u32,
    pub(super) settings: &'a Settings,
}

/// A port as it is found.
#[derive(Debug)]
pub(super) struct FoundPort {
    pub(super) endpoint: EndpointId,
    pub(super) index: u32,
    pub(super) local: LocalEndpoint,
}

impl Board<'_> {
    /// Has an endpoint plugged in, whatever is there of it. Returns the index of its port.
    pub(super) fn plug(
        &self,
        endpoint: EndpointId,
        old: Option<&LocalEndpoint>,
        local: &LocalEndpoint,
    ) -> Result<u32, Error> {
        let (interface, path) = veth(local)?;
        let alias = alias(endpoint, local.role, path)?;
        let enter = |source| Error::Namespace { path: path.to_owned(), source };
        let netns = NetNs::open(path).map_err(enter)?;
        let name = port_name(endpoint);
        let (port, made) = match self.existing(&name, interface, &netns)? {
            Some(port) => (port, false),
            None => (self.make(&name, local, interface, path, &netns)?, true),
        };
        let done = self.set_up(&port, &alias).and_then(|()| {
            let socket = netns.socket().map_err(enter)?;
            let peer = port.peer.unwrap_or(0);
            self.set_up_interface(&socket, &netns, (interface, peer), old, local)?;
            let ends = [(&socket, peer), (self.inside, port.index)];
            let failed =
                |source| Error::Kernel { step: "find port", subject: name.clone(), source };
            ends.into_iter().try_for_each(|(socket, end)| settle(socket, end).map_err(failed))
        });
        if made && done.is_err() {
            // It may be gone with its namespace by now.
            let _ = self.inside.request(link::remove(port.index));
        }
        done.map(|()| port.index)
    }

    /// The endpoint's port, if it leads to that interface. One that leads elsewhere is removed.
    fn existing(&self, name: &str, interface: &str, netns: &NetNs) -> Result<Option<Link>, Error> {
        let failed = |step| move |source| Error::Kernel { step, subject: name.to_owned(), source };
        let found = self.inside.get(link::named(name.as_bytes()), Link::parse);
        let Some(port) = found.map_err(failed("find port"))? else { return Ok(None) };
        let number = netns.number_in(self.inside).map_err(failed("find the other end of port"))?;
        let peer = match (port.peer_netns, port.peer) {
            (Some(netns), Some(peer)) if number == Some(netns) => self.other_end(netns, peer),
            _ => Ok(None),
        };
        let peer = peer.map_err(failed("find the other end of port"))?;
        if peer.is_some_and(|peer| peer.name == interface.as_bytes()) {
            return Ok(Some(port));
        }
        self.inside.request(link::remove(port.index)).map_err(failed("remove port"))?;
        Ok(None)
    }

    fn make(
        &self,
        name: &str,
        local: &LocalEndpoint,
        interface: &str,
        path: &Path,
        netns: &NetNs,
    ) -> Result<Link, Error> {
        let peer = Peer { name: interface.as_bytes(), mac: local.mac, netns: netns.as_fd() };
        let make = link::new_veth(name.as_bytes(), GROUP, self.settings.mtu, &peer);
        let subject = || format!("interface {interface:?} in {}", path.display());
        self.inside.request(make).map_err(|source| match source.errno {
            Errno::EEXIST => {
                Error::InterfaceInUse { name: interface.to_owned(), path: path.to_owned() }
            }
            _ => Error::Kernel { step: "make", subject: subject(), source },
        })?;
        let found = self.inside.get(link::named(name.as_bytes()), Link::parse);
        let failed = |source| Error::Kernel { step: "find", subject: subject(), source };
        let gone = || Error::Unsupported("keep an interface that somebody else removes");
        found.map_err(failed)?.ok_or_else(gone)
    }

    fn set_up(&self, port: &Link, alias: &[u8]) -> Result<(), Error> {
        let set = link::set(port.index)
            .put_u32(Ifla::Mtu, self.settings.mtu.into())
            .put_u32(Ifla::Master, self.bridge)
            .put(Ifla::Ifalias, alias);
        let subject = format!("port {}", String::from_utf8_lossy(&port.name));
        run(self.inside, &subject, vec![("set up", set)])?;
        let failed = |source| Error::Kernel { step: "silence", subject: subject.clone(), source };
        silence(self.inside, port.index).map_err(failed)?;
        let steps = vec![
            ("set up", link::set_port(port.index, self.flags())),
            ("bring up", link::set_up(port.index)),
        ];
        run(self.inside, &subject, steps)
    }

    fn set_up_interface(
        &self,
        socket: &RouteSocket,
        netns: &NetNs,
        (name, index): (&str, u32),
        old: Option<&LocalEndpoint>,
        local: &LocalEndpoint,
    ) -> Result<(), Error> {
        if local.addresses.v6.is_some() {
            allow_ipv6(netns, name);
        }
        let set = link::set(index)
            .put(Ifla::Address, &local.mac.0)
            .put_u32(Ifla::Mtu, self.settings.mtu.into());
        let mut steps = vec![("set up", link::loose_source(set))];
        let subject = format!("interface {name:?}");
        let failed = |source| Error::Kernel { step: "list", subject: subject.clone(), source };
        let found = socket.dump(address::list(), Assigned::parse).map_err(failed)?;
        let wanted: Vec<_> = self.assigned(index, &local.addresses).collect();
        let before = old.map(|old| old.addresses).unwrap_or_default();
        for gone in self.assigned(index, &before).filter(|a| !wanted.contains(a)) {
            if found.contains(&gone) {
                steps.push(("remove an address from", gone.remove()));
            }
        }
        for new in wanted.iter().filter(|a| !found.contains(a)) {
            steps.push(("add an address to", new.put()));
        }
        steps.push(("bring up", link::set_up(index)));
        steps.extend(self.routes(index, &local.addresses));
        run(socket, &subject, steps)
    }

    /// To other subnets of the network.
    fn routes(
        &self,
        index: u32,
        addresses: &Addresses,
    ) -> impl Iterator<Item = (&'static str, Message)> {
        let beyond = self.settings.subnets_beyond(addresses);
        beyond.map(move |(subnet, source)| {
            ("add a route to", route::put_direct(index, subnet, source))
        })
    }

    fn assigned(&self, link: u32, addresses: &Addresses) -> impl Iterator<Item = Assigned> {
        let addresses: Vec<IpAddr> = addresses.iter().collect();
        addresses.into_iter().filter_map(move |address| {
            let net = IpNet::new(address, self.prefix_len(address)).ok()?;
            Some(Assigned { link, net })
        })
    }

    fn prefix_len(&self, address: IpAddr) -> u8 {
        let subnet = self.settings.subnets.iter().find(|s| s.subnet.contains(address));
        subnet.map_or(if address.is_ipv4() { 32 } else { 128 }, |s| s.subnet.prefix_len())
    }

    const fn flags(&self) -> PortFlags {
        PortFlags { floods: self.settings.multicast, locked: true }
    }

    /// Reads the port that a device is, if it is one. `known` says what an endpoint had; of several
    /// addresses of an interface those are its own.
    pub(super) fn read(
        &self,
        port: &Link,
        known: impl Fn(EndpointId) -> Option<Addresses>,
    ) -> Result<Option<FoundPort>, Error> {
        let Some((endpoint, role, path)) = identify(port) else { return Ok(None) };
        let subject = || format!("port {}", String::from_utf8_lossy(&port.name));
        let failed = |source| Error::Kernel { step: "read", subject: subject(), source };
        let mut kind = PortKind::Veth { name: String::new(), netns: PathBuf::new() };
        let mut local = LocalEndpoint::new(port.mac, Addresses::default(), kind.clone());
        local.role = role;
        let (Some(netns), Some(peer)) = (port.peer_netns, port.peer) else {
            return Ok(Some(FoundPort { endpoint, index: port.index, local }));
        };
        let Some(interface) = self.other_end(netns, peer).map_err(failed)? else {
            return Ok(Some(FoundPort { endpoint, index: port.index, local }));
        };
        local.mac = interface.mac;
        // A path that is gone says nothing: the namespace is there as long as the interface is.
        let number = match NetNs::open(&path) {
            Ok(named) => named.number_in(self.inside).map_err(failed)?,
            Err(_) => Some(netns),
        };
        if number == Some(netns) {
            let name = String::from_utf8_lossy(&interface.name).into_owned();
            kind = PortKind::Veth { name, netns: path };
        }
        local.port = kind;
        let whole = port.up
            && port.master == Some(self.bridge)
            && port.port == Some(self.flags())
            && port.mtu == u32::from(self.settings.mtu)
            && interface.up
            && interface.mtu == port.mtu;
        if whole {
            let mut found = Vec::new();
            for request in address::elsewhere(netns, peer) {
                let addresses = self.inside.dump(request, Assigned::parse);
                found.extend(unless_gone(addresses).map_err(failed)?.unwrap_or_default());
            }
            local.addresses = self.own(&found, known(endpoint).unwrap_or_default());
        }
        Ok(Some(FoundPort { endpoint, index: port.index, local }))
    }

    fn other_end(&self, netns: u32, peer: u32) -> Result<Option<Link>, Refusal> {
        let found = self.inside.get(link::elsewhere(netns, peer), Link::parse);
        Ok(unless_gone(found)?.flatten())
    }

    /// Which of an interface's addresses are the endpoint's.
    fn own(&self, found: &[Assigned], known: Addresses) -> Addresses {
        let own = |a: &&Assigned| {
            !a.is_link_local() && a.net.prefix_len() == self.prefix_len(a.net.addr())
        };
        let all: Vec<IpAddr> = found.iter().filter(own).map(|a| a.net.addr()).collect();
        let first = |is_v4: bool, known: Option<IpAddr>| {
            let mut same = all.iter().copied().filter(move |a| a.is_ipv4() == is_v4);
            known.filter(|known| all.contains(known)).or_else(|| same.next())
        };
        Addresses {
            v4: first(true, known.v4.map(IpAddr::V4)).and_then(|a| match a {
                IpAddr::V4(a) => Some(a),
                IpAddr::V6(_) => None,
            }),
            v6: first(false, known.v6.map(IpAddr::V6)).and_then(|a| match a {
                IpAddr::V6(a) => Some(a),
                IpAddr::V4(_) => None,
            }),
        }
    }
}

/// A namespace that ended has a number for a while, under which nothing is found any more.
pub(super) fn unless_gone<T>(found: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    match found {
        Err(Refusal { errno: Errno::EINVAL, .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// Unplugs an endpoint: both ends go.
pub(super) fn unplug(inside: &RouteSocket, endpoint: EndpointId) -> Result<(), Error> {
    let name = port_name(endpoint);
    match inside.request(link::remove_named(name.as_bytes())) {
        Err(source) if source.errno != Errno::ENODEV => {
            Err(Error::Kernel { step: "remove port", subject: name, source })
        }
        _ => Ok(()),
    }
}

/// The interface's name and the path of its namespace.
pub(super) fn veth(local: &LocalEndpoint) -> Result<(&str, &Path), Error> {
    match &local.port {
        PortKind::Veth { name, netns } => {
            if !crate::user::ports::interface::is_device_name(name) {
                return Err(Error::DeviceName(name.clone()));
            }
            Ok((name, netns))
        }
        PortKind::Memory => Err(Error::Unsupported("have ports in memory")),
        PortKind::Tap { .. } => Err(Error::Unsupported("make TAP devices; it makes veth pairs")),
    }
}

/// Name of an endpoint's port.
pub(super) fn port_name(endpoint: EndpointId) -> String {
    let id = endpoint.to_string();
    format!("{PREFIX}{}", &id[id.len() - TAIL..])
}

fn alias(endpoint: EndpointId, role: Role, path: &Path) -> Result<Vec<u8>, Error> {
    let tag = TAGS.iter().find(|(of, _)| *of == role).map_or("", |(_, tag)| tag);
    let alias = [format!("{tag}{endpoint} ").as_bytes(), path.as_os_str().as_bytes()].concat();
    if alias.len() > ALIAS_LEN {
        let limit = ALIAS_LEN + path.as_os_str().len() - alias.len();
        return Err(Error::LongNamespacePath { path: path.to_owned(), limit });
    }
    Ok(alias)
}

/// Whose port a device is. One without an alias was never finished: it has an id that its name fits.
fn identify(port: &Link) -> Option<(EndpointId, Role, PathBuf)> {
    if port.kind != Kind::Veth {
        return None;
    }
    let tagged = || {
        let of =
            |(role, tag): &(Role, &str)| Some((*role, port.alias.strip_prefix(tag.as_bytes())?));
        let (role, rest) = TAGS.iter().find_map(of)?;
        let (id, path) = rest.split_at_checked(ID_TEXT_LEN)?;
        let id: EndpointId = core::str::from_utf8(id).ok()?.parse().ok()?;
        let path = Path::new(OsStr::from_bytes(path.strip_prefix(b" ")?)).to_owned();
        (port_name(id).as_bytes() == port.name).then_some((id, role, path))
    };
    let unfinished = || {
        let tail = core::str::from_utf8(port.name.strip_prefix(PREFIX.as_bytes())?).ok()?;
        let id = format!("{tail:0>ID_TEXT_LEN$}").parse().ok()?;
        (tail.len() == TAIL).then(|| (id, Role::Station, PathBuf::new()))
    };
    tagged().or_else(unfinished)
}

/// Where IPv6 is off for new interfaces, as container engines have it. Where this cannot be
/// written, the kernel says so when the address is added.
pub(super) fn allow_ipv6(netns: &NetNs, interface: &str) {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    let _ = netns.enter(|| {
        if fs::read(&file)?.first() == Some(&b'1') {
            fs::write(&file, "0")?;
        }
        Ok(())
    });
}
