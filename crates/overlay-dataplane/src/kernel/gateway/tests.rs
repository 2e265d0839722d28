//! A crash at any call, on a real kernel.
#![expect(clippy::disallowed_methods, reason = "tests wait with a deadline")]

use core::time::Duration;
use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use overlay_testkit::lab::{self, Namespace};
use overlay_types::{Addresses, EndpointId, PortSpec, Subnet};

use super::{GatewayConfig, KernelGateway, Outcome};
use crate::{
    Error,
    desired::{Publisher, Uplink, Uplinks},
    kernel::netlink::fuse,
};

struct Lab {
    host: Namespace,
    containers: [Namespace; 2],
}

impl Lab {
    /// A gateway with nothing but what the kernel remembers.
    fn start(&self) -> KernelGateway {
        let subnets = ["172.20.0.0/16", "fd20::/64"].map(|text| text.parse().unwrap());
        let config = GatewayConfig::new(GatewayConfig::BRIDGE, subnets.into()).unwrap();
        self.host.enter(|| KernelGateway::start(config)).unwrap()
    }

    fn uplinks(&self, ports: &[&str]) -> Uplinks {
        let uplink = |(number, path): (usize, PathBuf)| {
            let addresses = Addresses { v4: Some([10, 0, 1, 2 + number as u8].into()), v6: None };
            let ports = ports.iter().flat_map(|text| PortSpec::parse(text).unwrap());
            let ports = ports.filter(|_| number == 0).collect();
            let endpoint = EndpointId::from_u128(1 + number as u128);
            let endpoints = [(endpoint, Publisher { addresses, ports })].into();
            let subnets = ["10.0.1.0/24", "fd00:1::/64"];
            let subnets = subnets.map(|text| Subnet::parse("subnet", text).unwrap()).into();
            (path, Uplink { endpoints, subnets })
        };
        let containers = self.containers.iter().map(Namespace::path).enumerate().map(uplink);
        Uplinks { containers: containers.collect(), subnets: BTreeSet::new() }
    }

    fn everything(&self) -> String {
        let mut all = String::new();
        for namespace in self.containers.iter().chain([&self.host]) {
            for command in ["-br link show", "-br address show", "route show", "-6 route show"] {
                all += &namespace.ip(command).unwrap();
            }
            all += &namespace.run(&["nft", "list", "ruleset"]).unwrap();
        }
        all
    }
}

fn converge(mut gateway: KernelGateway, desired: &Uplinks) {
    let begin = Instant::now();
    loop {
        let refused = gateway.reconcile(desired).refused;
        // Commands of other tests that are just being started have the port's last socket.
        let waits = |(_, error): &(_, Error)| matches!(error, Error::PortTaken(_));
        if refused.is_empty() {
            break;
        }
        let in_time = begin.elapsed() < Duration::from_secs(20);
        assert!(in_time && refused.iter().all(waits), "{refused:?}");
    }
    let Outcome { changes, refused } = gateway.reconcile(desired);
    assert!(changes.is_empty() && refused.is_empty(), "{changes:?} {refused:?}");
}

#[test]
fn r09_d07_n18_after_a_crash_at_any_call_it_converges_and_leaves_nothing() {
    if lab::skip() {
        return;
    }
    let new = || Namespace::new().unwrap();
    let lab = Lab { host: new(), containers: [new(), new()] };
    lab.host.run(&["iptables-nft", "-P", "FORWARD", "DROP"]).unwrap();
    let clean = lab.everything();
    let (some, nothing) = (lab.uplinks(&["8080:80"]), Uplinks::default());
    let mut other = lab.uplinks(&["8081:80", "5353:53/udp"]);
    let _ = other.containers.pop_last();
    for (way, (from, to)) in
        [(&nothing, &some), (&some, &other), (&some, &nothing)].into_iter().enumerate()
    {
        for calls in 0.. {
            converge(lab.start(), from);
            let mut gateway = lab.start();
            fuse::light(Some(calls));
            let _ = gateway.reconcile(to);
            let crashed = fuse::is_burnt();
            fuse::light(None);
            drop(gateway);
            converge(lab.start(), to);
            converge(lab.start(), &nothing);
            assert_eq!(lab.everything(), clean, "way {way}, a crash at call {calls}");
            if !crashed {
                assert!(calls > 10, "way {way}: only {calls} calls");
                break;
            }
        }
    }
}
