//! A host with two containers, and somebody outside.
//!
//! ```text
//!  a ─ gw0 ─┐
//!           ├─ overlay_gwbr │ host │ 192.0.2.1 ═══ 192.0.2.9 outside
//!  b ─ gw0 ─┘
//! ```

#![expect(clippy::disallowed_methods, reason = "tests wait with a deadline")]

use core::{net::IpAddr, time::Duration};
use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Error,
    desired::{Publisher, Uplink, Uplinks},
    kernel::{GatewayConfig, KernelGateway, gateway::Outcome},
};
use overlay_testkit::lab::Namespace;
use overlay_types::{Addresses, EndpointId, PortSpec, Subnet};

pub(crate) const BRIDGE: &str = GatewayConfig::BRIDGE;
/// Endpoints of the containers.
pub(crate) const A: EndpointId = EndpointId::from_u128(10);
pub(crate) const B: EndpointId = EndpointId::from_u128(20);

/// Longest wait for a port to be free: commands of other tests that are just being started have its
/// socket for a moment.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    pub(crate) host: Namespace,
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
    pub(crate) outside: Namespace,
}

/// Changes a setting below `net`.
pub(crate) fn set(namespace: &Namespace, setting: &str, value: u8) -> Result<()> {
    let path = format!("/proc/sys/net/{setting}");
    namespace.enter(|| std::fs::write(&path, value.to_string())).context(path)
}

/// An address on the cable.
pub(crate) fn outer(ipv6: bool, number: u8) -> IpAddr {
    if ipv6 { [0xfd99, 0, 0, 0, 0, 0, 0, number.into()].into() } else { [192, 0, 2, number].into() }
}

/// Addresses that the endpoint of `a` has on its network.
pub(crate) fn overlay() -> Addresses {
    Addresses { v4: Some([10, 0, 1, 2].into()), v6: Some([0xfd00, 1, 0, 0, 0, 0, 0, 2].into()) }
}

impl Site {
    /// `filtered`: the host filters packets in bridges, as for Docker or Kubernetes.
    pub(crate) fn new(filtered: bool) -> Result<Self> {
        let [host, a, b, outside] =
            [Namespace::new()?, Namespace::new()?, Namespace::new()?, Namespace::new()?];
        for setting in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
            set(&host, setting, filtered.into())?;
        }
        host.connect("cable", &outside, "cable")?;
        for ipv6 in [false, true] {
            let length = if ipv6 { "64 nodad" } else { "24" };
            for number in [1, 7] {
                host.ip(&format!("address add {}/{length} dev cable", outer(ipv6, number)))?;
            }
            outside.ip(&format!("address add {}/{length} dev cable", outer(ipv6, 9)))?;
            host.ip(&format!("route add default via {}", outer(ipv6, 9)))?;
        }
        Ok(Self { host, a, b, outside })
    }

    /// A gateway that remembers nothing, with both versions of IP.
    pub(crate) fn start(&self) -> Result<KernelGateway> {
        let subnets = ["172.20.0.0/16", "fd20::/64"].map(|text| Subnet::parse("subnet", text));
        let subnets = subnets.into_iter().collect::<Result<_, _>>()?;
        self.start_as(GatewayConfig::new(BRIDGE, subnets)?)
    }

    pub(crate) fn start_as(&self, config: GatewayConfig) -> Result<KernelGateway> {
        Ok(self.host.enter(|| KernelGateway::start(config))?)
    }

    /// Ways out of both containers; that of `a` publishes ports.
    pub(crate) fn uplinks(&self, ports: &[&str]) -> Result<Uplinks> {
        let ports =
            ports.iter().map(|text| PortSpec::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let publisher = Publisher { addresses: overlay(), ports: ports.concat() };
        let containers = [(self.a.path(), A, publisher), (self.b.path(), B, Publisher::default())];
        let uplink = |(path, id, publisher): (PathBuf, EndpointId, Publisher)| {
            let subnets = BTreeSet::from(["10.0.1.0/24".parse().expect("a subnet")]);
            (path, Uplink { endpoints: [(id, publisher)].into(), subnets })
        };
        let subnets = BTreeSet::new();
        Ok(Uplinks { containers: containers.into_iter().map(uplink).collect(), subnets })
    }

    /// The bridge's address.
    pub(crate) fn gateway(&self, ipv6: bool) -> Result<IpAddr> {
        address(&self.host, BRIDGE, ipv6)
    }

    /// Devices, addresses, routes, rules and sockets of all of them.
    pub(crate) fn listing(&self) -> Result<String> {
        let mut all = String::new();
        for namespace in [&self.host, &self.a, &self.b] {
            for command in ["-d link show", "address show", "route show", "-6 route show"] {
                all += &namespace.ip(command)?;
            }
            all += &namespace.run(&["nft", "-s", "list", "ruleset"])?;
            all += &namespace.run(&["cat", "/proc/net/tcp", "/proc/net/udp"])?;
        }
        // Lifetimes of IPv6, timers, and what the kernel notices in its own time.
        let passing = ["valid_lft", "_timer", "fe80", "ff00::"];
        let lines = all.lines().filter(|line| passing.iter().all(|part| !line.contains(part)));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The address of a container's uplink.
pub(crate) fn inside(container: &Namespace, ipv6: bool) -> Result<IpAddr> {
    address(container, "gw0", ipv6)
}

/// The address of a device, of a scope that others see.
fn address(namespace: &Namespace, device: &str, ipv6: bool) -> Result<IpAddr> {
    let family = if ipv6 { "-6" } else { "-4" };
    let shown = namespace.ip(&format!("-o {family} address show dev {device} scope global"))?;
    let net = shown.split_whitespace().nth(3).with_context(|| format!("no address: {shown}"))?;
    Ok(net.split('/').next().unwrap_or_default().parse()?)
}

/// Compares, and checks that nothing failed and nothing is left to do. Returns what was changed.
pub(crate) fn converge(gateway: &mut KernelGateway, desired: &Uplinks) -> Result<Vec<String>> {
    let begin = Instant::now();
    let mut outcome = gateway.reconcile(desired);
    let waits = |(_, error): &(_, Error)| matches!(error, Error::PortTaken(_));
    while outcome.refused.iter().any(waits) && begin.elapsed() < DEADLINE {
        let before = core::mem::replace(&mut outcome, gateway.reconcile(desired));
        outcome.changes.splice(..0, before.changes);
    }
    let done = whole(outcome)?;
    let again = whole(gateway.reconcile(desired))?;
    ensure!(again.is_empty(), "there is more to do: {again:?}");
    Ok(done)
}

fn whole(outcome: Outcome) -> Result<Vec<String>> {
    match outcome.refused.into_iter().next() {
        None => Ok(outcome.changes),
        Some((endpoints, error)) => Err(error).with_context(|| format!("{endpoints:?}")),
    }
}

/// Tries until it is done, or time is up.
pub(crate) fn eventually<T>(mut done: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match done() {
            Err(_) if begin.elapsed() < DEADLINE => std::thread::yield_now(),
            done => return done,
        }
    }
}
