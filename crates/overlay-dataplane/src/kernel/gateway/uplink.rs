//! The uplink of a container: a veth pair, one end a port of the gateway bridge, the other an
//! interface in the container that its default routes leave by.

use std::{
    ffi::OsStr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use neli::consts::rtnl::Ifla;
use nix::errno::Errno;

use super::{
    super::{
        address::{self, Assigned},
        link::{self, Kind, Link, Peer},
        mesh,
        netlink::RouteSocket,
        netns::NetNs,
        port::{ALIAS_LEN, allow_ipv6, unless_gone},
        route,
        scaffold::{GROUP, run, settle, silence},
    },
    barrier,
    plan::{NetNsId, UplinkSpec},
};
use crate::Error;

/// First characters of a port's name. The number of its container's namespace follows.
const PREFIX: &str = "gw";
/// What a port's alias begins with. The path of the namespace follows.
const TAG: &[u8] = b"overlay uplink ";
const LOOPBACK: &str = "lo";
/// Name of the interface: the kernel puts the first number there that is free.
const INTERFACE: &[u8] = b"gw%d";

/// Which namespace a port's name says, and which path its alias.
pub(super) fn identify(port: &Link) -> Option<(NetNsId, PathBuf)> {
    if port.kind != Kind::Veth || !is_ours(port) {
        return None;
    }
    let netns = core::str::from_utf8(&port.name).ok()?.strip_prefix(PREFIX)?.parse().ok()?;
    let path = port.alias.strip_prefix(TAG).unwrap_or_default();
    (port_name(netns).as_bytes() == port.name)
        .then(|| (netns, Path::new(OsStr::from_bytes(path)).to_owned()))
}

/// Whether a device is an uplink's port, as it was made or as it was set up.
pub(super) fn is_ours(port: &Link) -> bool {
    // The cable to the gate of the routing mesh is another one of ours.
    let is_cable = port.name == mesh::CABLE.as_bytes();
    port.kind == Kind::Veth && !is_cable && (port.group == GROUP || port.alias.starts_with(TAG))
}

/// What is found of an uplink in its container.
pub(super) fn read(
    host: &RouteSocket,
    port: &Link,
    number: Option<u32>,
) -> Result<Option<(Link, Vec<IpNet>)>, Error> {
    let subject = || format!("uplink {}", String::from_utf8_lossy(&port.name));
    let failed = |source| Error::Kernel { step: "read", subject: subject(), source };
    let (Some(netns), Some(peer)) = (port.peer_netns, port.peer) else { return Ok(None) };
    if number.is_some_and(|number| number != netns) {
        return Ok(None);
    }
    let found = host.get(link::elsewhere(netns, peer), Link::parse);
    let Some(interface) = unless_gone(found).map_err(failed)?.flatten() else { return Ok(None) };
    let mut nets = Vec::new();
    for request in address::elsewhere(netns, peer) {
        let found = unless_gone(host.dump(request, Assigned::parse)).map_err(failed)?;
        let own = found.into_iter().flatten().filter(|a| !a.is_link_local());
        nets.extend(own.map(|a| a.net));
    }
    Ok(Some((interface, nets)))
}

/// Has an uplink as it shall be, whatever is there of it.
pub(super) fn put(
    host: &RouteSocket,
    bridge: &str,
    id: NetNsId,
    netns: &NetNs,
    spec: &UplinkSpec,
) -> Result<(), Error> {
    let name = port_name(id);
    let alias = alias(&spec.path)?;
    let failed = |step| {
        move |source| Error::Kernel { step, subject: format!("uplink {}", port_name(id)), source }
    };
    let bridge = host.get(link::named(bridge.as_bytes()), Link::parse);
    let bridge = bridge.map_err(failed("find the bridge of"))?;
    let bridge = bridge.ok_or(Error::Unsupported("use a bridge that somebody else removes"))?;
    let number = netns.number_in(host).map_err(failed("find the namespace of"))?;
    let find = || host.get(link::named(name.as_bytes()), Link::parse).map_err(failed("find"));
    let mut made = false;
    let port = match find()? {
        Some(port) if read(host, &port, number)?.is_some() && number.is_some() => port,
        found => {
            if let Some(broken) = found {
                host.request(link::remove(broken.index)).map_err(failed("remove"))?;
            }
            let peer = Peer { name: INTERFACE, mac: spec.mac, netns: netns.as_fd() };
            let make = link::new_veth(name.as_bytes(), GROUP, spec.mtu, &peer);
            host.request(make).map_err(failed("make"))?;
            made = true;
            find()?.ok_or(Error::Unsupported("keep an uplink that somebody else removes"))?
        }
    };
    let enter = |source| Error::Namespace { path: spec.path.clone(), source };
    let done = netns.socket().map_err(enter).and_then(|inside| {
        set_up_interface(&inside, netns, port.peer.unwrap_or(0), spec)?;
        set_up_port(host, &port, bridge.index, &alias, spec)?;
        settle(&inside, port.peer.unwrap_or(0)).map_err(failed("find the interface of"))?;
        settle(host, port.index).map_err(failed("find"))
    });
    if made && done.is_err() {
        // It may be gone with its namespace by now.
        let _ = host.request(link::remove(port.index));
    }
    done
}

fn set_up_port(
    host: &RouteSocket,
    port: &Link,
    bridge: u32,
    alias: &[u8],
    spec: &UplinkSpec,
) -> Result<(), Error> {
    let subject = format!("uplink {}", String::from_utf8_lossy(&port.name));
    let failed = |source| Error::Kernel { step: "silence", subject: subject.clone(), source };
    silence(host, port.index).map_err(failed)?;
    let set = link::set(port.index)
        .put_u32(Ifla::Group, GROUP)
        .put_u32(Ifla::Mtu, spec.mtu.into())
        .put_u32(Ifla::Master, bridge)
        .put(Ifla::Ifalias, alias);
    let steps = vec![
        ("set up", set),
        ("keep apart", link::set_port_mode(port.index, spec.mode)),
        ("bring up", link::set_up(port.index)),
    ];
    run(host, &subject, steps)
}

fn set_up_interface(
    inside: &RouteSocket,
    netns: &NetNs,
    index: u32,
    spec: &UplinkSpec,
) -> Result<(), Error> {
    let subject = format!("the uplink in {}", spec.path.display());
    let failed = |step| {
        let subject = subject.clone();
        move |source| Error::Kernel { step, subject, source }
    };
    let interface = inside.get(link::numbered(index), Link::parse).map_err(failed("find"))?;
    let interface =
        interface.ok_or(Error::Unsupported("keep an interface that somebody else removes"))?;
    if spec.nets.iter().any(|net| net.addr().is_ipv6()) {
        allow_ipv6(netns, &String::from_utf8_lossy(&interface.name));
        // Routes that lead nowhere are the loopback device's.
        allow_ipv6(netns, LOOPBACK);
    }
    let found =
        inside.dump(address::list(), Assigned::parse).map_err(failed("list addresses of"))?;
    let wanted: Vec<_> = spec.nets.iter().map(|net| Assigned { link: index, net: *net }).collect();
    let set = link::set(index).put(Ifla::Address, &spec.mac.0).put_u32(Ifla::Mtu, spec.mtu.into());
    let mut steps = vec![("set up", link::loose_source(set))];
    let old = found.iter().filter(|a| a.link == index && !a.is_link_local());
    for gone in old.filter(|a| !wanted.contains(a)) {
        steps.push(("remove an address from", gone.remove()));
    }
    for new in wanted.iter().filter(|a| !found.contains(a)) {
        steps.push(("add an address to", new.put()));
    }
    steps.push(("bring up", link::set_up(index)));
    run(inside, &subject, steps)?;
    barrier::put(inside, &spec.barriers).map_err(failed("keep networks from"))?;
    for gateway in &spec.gateways {
        match inside.request(route::add_default(index, *gateway)) {
            // The container has a way out of its own, which is its owner's choice.
            Err(refusal) if refusal.errno == Errno::EEXIST => {}
            added => added.map_err(failed("add a default route by"))?,
        }
    }
    Ok(())
}

fn port_name(netns: NetNsId) -> String {
    format!("{PREFIX}{netns}")
}

fn alias(path: &Path) -> Result<Vec<u8>, Error> {
    let alias = [TAG, path.as_os_str().as_bytes()].concat();
    if alias.len() > ALIAS_LEN {
        return Err(Error::LongNamespacePath {
            path: path.to_owned(),
            limit: ALIAS_LEN - TAG.len(),
        });
    }
    Ok(alias)
}
