//! The devices of a network: a bridge, and a VXLAN device that is a port of it.

use std::os::fd::AsFd;

use neli::consts::rtnl::Ifla;
use nix::errno::Errno;
use overlay_types::{NetworkSubnet, Subnet, Vni};

use super::{
    address::{self, Assigned},
    link::{self, Kind, Link, PortFlags, Vxlan},
    netlink::{Message, Refusal, RouteSocket},
    netns::NetNs,
    stations::Devices,
};
use crate::{Error, desired::Settings, user::engine::ROUTER_MAC};

pub(super) const BRIDGE: &[u8] = b"br0";
/// Name of the VXLAN device.
pub(super) const VXLAN: &str = "vxlan0";
/// Group of all devices that carry frames of a network, so that they can be removed at once.
pub(super) const GROUP: u32 = 4789;
/// Group frames go to the VXLAN device, which answers for neighbours and knows whom else to send
/// them to. Who may send them here is checked before they are unpacked.
const VXLAN_FLAGS: PortFlags = PortFlags { floods: true, locked: false };
/// Alias of the bridge: what is set of a network that no device tells.
const ALIAS: &[u8] = b"overlay";
const ALIAS_MULTICAST: &[u8] = b"overlay multicast";

/// What is read of a network's devices.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bridge: u32,
    pub(super) devices: Devices,
    pub(super) settings: Settings,
}

/// Reads the devices. `None` when one is missing or not as [`ensure`] leaves it.
pub(super) fn read(
    links: &[Link],
    addresses: &[Assigned],
    wanted: Vxlan,
    encrypted: bool,
) -> Option<Found> {
    let bridge = find(links, BRIDGE)?;
    let vxlan = find(links, VXLAN.as_bytes())?;
    let multicast = match &bridge.alias[..] {
        ALIAS => false,
        ALIAS_MULTICAST => true,
        _ => return None,
    };
    let whole = bridge.kind == Kind::Bridge
        && bridge.up
        && !bridge.snooping
        && bridge.mac == ROUTER_MAC
        && is_ours(vxlan, wanted)
        && vxlan.up
        && vxlan.master == Some(bridge.index)
        && vxlan.port == Some(VXLAN_FLAGS)
        && vxlan.mtu == bridge.mtu;
    if !whole {
        return None;
    }
    let own = addresses.iter().filter(|a| a.link == bridge.index && !a.is_link_local());
    let subnet =
        |a: &Assigned| NetworkSubnet { subnet: Subnet::containing(a.net), gateway: a.net.addr() };
    Some(Found {
        bridge: bridge.index,
        devices: Devices { vxlan: vxlan.index },
        settings: Settings {
            vni: wanted.vni,
            encrypted,
            multicast,
            mtu: bridge.mtu.try_into().ok()?,
            subnets: own.map(subnet).collect(),
        },
    })
}

/// Settings of a network that has to be put again: no network has this MTU.
pub(super) const fn broken(vni: Vni) -> Settings {
    Settings { vni, encrypted: false, multicast: false, mtu: 0, subnets: Vec::new() }
}

/// Has the devices in the namespace, whatever is there of them.
pub(super) fn ensure(
    host: &RouteSocket,
    netns: &NetNs,
    inside: &RouteSocket,
    settings: &Settings,
    wanted: Vxlan,
) -> Result<Found, Error> {
    let subject = format!("the devices of VNI {}", settings.vni);
    let failed = |step| {
        let subject = subject.clone();
        move |source| Error::Kernel { step, subject, source }
    };
    let list = || inside.dump(link::list(), Link::parse).map_err(failed("list"));
    let links = list()?;
    for link in &links {
        let foreign = match &link.name[..] {
            BRIDGE => link.kind != Kind::Bridge,
            name if name == VXLAN.as_bytes() => !is_ours(link, wanted),
            _ => false,
        };
        if foreign {
            inside.request(link::remove(link.index)).map_err(failed("remove one of"))?;
        }
    }
    if !links.iter().any(|l| l.name == BRIDGE && l.kind == Kind::Bridge) {
        inside.request(link::new_bridge(BRIDGE)).map_err(failed("make the bridge of"))?;
    }
    if !links.iter().any(|l| l.name == VXLAN.as_bytes() && is_ours(l, wanted)) {
        let make = link::new_vxlan(VXLAN.as_bytes(), settings.mtu, wanted, netns.as_fd());
        host.request(make.put_u32(Ifla::Group, GROUP))
            .map_err(failed("make the VXLAN device of"))?;
    }
    let links = list()?;
    let (Some(bridge), Some(vxlan)) = (find(&links, BRIDGE), find(&links, VXLAN.as_bytes())) else {
        return Err(Error::Unsupported("keep devices that somebody else removes"));
    };
    let addresses = inside.dump(address::list(), Assigned::parse).map_err(failed("list"))?;
    run(inside, &subject, link_steps(bridge, vxlan, settings))?;
    for index in [bridge.index, vxlan.index] {
        silence(inside, index).map_err(failed("silence one of"))?;
    }
    run(inside, &subject, steps(bridge, vxlan, settings, &addresses))?;
    for index in [vxlan.index, bridge.index] {
        settle(inside, index).map_err(failed("find one of"))?;
    }
    Ok(Found {
        bridge: bridge.index,
        devices: Devices { vxlan: vxlan.index },
        settings: settings.clone(),
    })
}

/// What must be before the devices come up.
fn link_steps(bridge: &Link, vxlan: &Link, settings: &Settings) -> Vec<(&'static str, Message)> {
    let (mtu, alias) =
        (settings.mtu.into(), if settings.multicast { ALIAS_MULTICAST } else { ALIAS });
    let set_vxlan =
        link::set(vxlan.index).put_u32(Ifla::Mtu, mtu).put_u32(Ifla::Master, bridge.index);
    let set_bridge = link::set(bridge.index)
        .put_u32(Ifla::Mtu, mtu)
        .put(Ifla::Address, &ROUTER_MAC.0)
        .put(Ifla::Ifalias, alias);
    vec![
        ("set up the VXLAN device of", set_vxlan),
        ("set up the bridge of", link::unrouted(set_bridge)),
        ("set up the bridge of", link::set_bridge(bridge.index)),
        ("set up the port of", link::set_port(vxlan.index, VXLAN_FLAGS)),
    ]
}

fn steps(
    bridge: &Link,
    vxlan: &Link,
    settings: &Settings,
    addresses: &[Assigned],
) -> Vec<(&'static str, Message)> {
    let mut steps = vec![
        ("bring up the bridge of", link::set_up(bridge.index)),
        ("bring up the VXLAN device of", link::set_up(vxlan.index)),
    ];
    let gateways: Vec<_> = settings
        .subnets
        .iter()
        .filter_map(|s| ipnet::IpNet::new(s.gateway, s.subnet.prefix_len()).ok())
        .map(|net| Assigned { link: bridge.index, net })
        .collect();
    let found = addresses.iter().filter(|a| a.link == bridge.index && !a.is_link_local());
    for old in found.filter(|old| !gateways.contains(old)) {
        steps.push(("remove an address from", old.remove()));
    }
    for new in gateways.iter().filter(|new| !addresses.contains(new)) {
        steps.push(("add a gateway's address to", new.put()));
    }
    steps
}

/// Removes all devices that the host or an endpoint would still notice. The bridge ends with the
/// namespace: to remove a device takes the kernel tens of milliseconds, however many at once.
pub(super) fn remove(inside: &RouteSocket, vni: Vni) -> Result<(), Error> {
    // What is not in the group any more is found below.
    let _ = inside.request(link::remove_group(GROUP));
    let subject = format!("the devices of VNI {vni}");
    let failed = |source| Error::Kernel { step: "list", subject: subject.clone(), source };
    let links = inside.dump(link::list(), Link::parse).map_err(failed)?;
    let ours = links.iter().filter(|link| matches!(link.kind, Kind::Vxlan(_) | Kind::Veth));
    run(inside, &subject, ours.map(|link| ("remove one of", link::remove(link.index))).collect())
}

/// Has a device say nothing of its own. One without IPv6 (by its MTU, or the kernel's) does not.
pub(super) fn silence(socket: &RouteSocket, index: u32) -> Result<(), Refusal> {
    match socket.request(link::silence(index)) {
        Err(Refusal { errno: Errno::EAFNOSUPPORT, .. }) => Ok(()),
        result => result,
    }
}

/// Has the kernel notice now that a device is up, so that its frames go through at once.
pub(super) fn settle(socket: &RouteSocket, index: u32) -> Result<(), Refusal> {
    socket.get(link::numbered(index), Link::parse).map(drop)
}

/// Sends requests together. The first that fails is told.
pub(super) fn run(
    socket: &RouteSocket,
    subject: &str,
    steps: Vec<(&'static str, Message)>,
) -> Result<(), Error> {
    let (names, messages): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    for (step, result) in names.into_iter().zip(socket.batch(messages)) {
        result.map_err(|source| Error::Kernel { step, subject: subject.to_owned(), source })?;
    }
    Ok(())
}

fn find<'a>(links: &'a [Link], name: &[u8]) -> Option<&'a Link> {
    links.iter().find(|link| link.name == name)
}

fn is_ours(link: &Link, wanted: Vxlan) -> bool {
    link.kind == Kind::Vxlan(Some(wanted))
}
