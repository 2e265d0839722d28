//! The gateway bridge: made if there is none of its name, and then ours.

use ipnet::IpNet;
use neli::consts::rtnl::Ifla;
use nix::errno::Errno;

use super::{
    super::{
        address::{self, Assigned},
        link::{self, Kind, Link},
        netlink::{Refusal, RouteSocket},
        netns::NetNs,
        port::allow_ipv6,
        scaffold::{GROUP, run, settle},
    },
    plan::{ALIAS, BridgeSpec},
};
use crate::Error;

/// Has the bridge as it shall be, whatever is there of it.
pub(super) fn put(
    host: &RouteSocket,
    netns: &NetNs,
    name: &str,
    spec: &BridgeSpec,
) -> Result<(), Error> {
    let subject = format!("gateway bridge {name}");
    let failed = |step| {
        let subject = subject.clone();
        move |source| Error::Kernel { step, subject, source }
    };
    let find = || host.get(link::named(name.as_bytes()), Link::parse).map_err(failed("find"));
    let bridge = if let Some(bridge) = find()? {
        bridge
    } else {
        // Its group says from the first moment on that it is ours. An MTU that is changed is kept,
        // one from the beginning follows that of the ports.
        let make = link::new_bridge(name.as_bytes())
            .put_u32(Ifla::Group, GROUP)
            .put_u32(Ifla::Mtu, spec.mtu - 1)
            .put(Ifla::Address, &spec.mac.0);
        host.request(make).map_err(failed("make"))?;
        find()?.ok_or(Error::Unsupported("keep a bridge that somebody else removes"))?
    };
    if bridge.kind != Kind::Bridge {
        let reason = "it is no bridge";
        return Err(Error::GatewayDevice { name: name.to_owned(), reason });
    }
    if spec.nets.iter().any(|net| net.addr().is_ipv6()) {
        allow_ipv6(netns, name);
    }
    let found = host.dump(address::list(), Assigned::parse).map_err(failed("list addresses of"))?;
    let own = spec.nets.iter().copied().chain(link_local(&spec.nets));
    let wanted: Vec<_> = own.map(|net| Assigned { link: bridge.index, net }).collect();
    let set = link::set(bridge.index)
        .put_u32(Ifla::Group, GROUP)
        .put_u32(Ifla::Mtu, spec.mtu)
        .put(Ifla::Address, &spec.mac.0)
        .put(Ifla::Ifalias, ALIAS);
    let mut steps = vec![
        ("set up", link::route_loopback(set)),
        ("set up", link::set_bridge(bridge.index)),
        ("bring up", link::set_up(bridge.index)),
    ];
    let old = found.iter().filter(|a| a.link == bridge.index && !a.is_link_local());
    for gone in old.filter(|a| !wanted.contains(a)) {
        steps.push(("remove an address from", gone.remove()));
    }
    for new in wanted.iter().filter(|a| !found.contains(a)) {
        steps.push(("add an address to", new.put()));
    }
    run(host, &subject, steps)?;
    settle(host, bridge.index).map_err(failed("find"))
}

/// The link-local address that a bridge with these addresses has: what it forwards to a container of
/// IPv6, it looks for from there. The one that the kernel makes is checked for a duplicate first.
pub(super) fn link_local(nets: &[IpNet]) -> Option<IpNet> {
    let has_v6 = nets.iter().any(|net| net.addr().is_ipv6());
    IpNet::new([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), 64).ok().filter(|_| has_v6)
}

/// Removes a device. One that is gone need not be removed.
pub(super) fn remove(host: &RouteSocket, index: u32) -> Result<(), Error> {
    match host.request(link::remove(index)) {
        Ok(()) | Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(()),
        Err(source) => {
            let subject = format!("device {index} of the gateway");
            Err(Error::Kernel { step: "remove", subject, source })
        }
    }
}
