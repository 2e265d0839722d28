//! Daemons with the kernel dataplane.

mod hand;
mod ports;
mod restart;

use overlay_api::v1;
use overlay_testkit::lab::Namespace;

use crate::{
    calls::{local, until},
    hosts::{Hosts, dual, of, reaches, with_hosts},
};

#[test]
fn d01_d07_r09_two_kernel_nodes_share_a_network_and_a_leave_leaves_nothing() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "auto"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        b.daemon.until_logged("nothing is missing");
        hosts.create(dual("net")).await;
        let (c, d) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let there = b.attach("net", "eth0", of(&d)).await.unwrap();
        let here = a.attach("net", "eth0", of(&c)).await.unwrap();
        assert_eq!(there.addresses.len(), 2, "{there:?}");
        reaches(&c, &there).await;
        reaches(&d, &here).await;
        assert!(c.ip("-d link show eth0").unwrap().contains("veth"));

        assert_eq!(b.leave(false).await, "");
        assert_eq!(b.listing(), b.bare);
        assert!(d.ip("link show eth0").is_err());
        a.detach(&here).await;
        assert!(c.ip("link show eth0").is_err(), "a detach ends when the interface is gone");
        assert!(a.leave(true).await.contains("only manager"));
        assert_eq!(a.listing(), a.bare);
    });
}

/// A plain and an encrypted network, each with an endpoint on a kernel node and on a user node.
#[test]
fn d03_kernel_and_user_nodes_share_plain_and_encrypted_networks() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "kernel", "user"]).await;
        hosts.create(dual("plain")).await;
        let sealed = v1::NetworkSpec { encrypted: true, ..Default::default() };
        hosts.create(v1::NetworkSpec { name: "sealed".into(), ..sealed }).await;
        // All containers last as long as the test: a path is another's once its namespace is gone.
        let mut kept = Vec::new();
        for network in ["plain", "sealed"] {
            let mut ends = Vec::new();
            for host in &hosts.hosts {
                let container = Namespace::new().unwrap();
                let endpoint = host.attach(network, "eth0", of(&container)).await.unwrap();
                ends.push((container, endpoint));
            }
            for (from, own) in &ends {
                for (_, to) in ends.iter().filter(|(_, to)| to.id != own.id) {
                    reaches(from, to).await;
                }
            }
            kept.push(ends);
        }
        for (host, dataplane) in hosts.hosts.iter().zip(["kernel", "kernel", "user"]) {
            let status = local(&host.daemon).await.get_status(v1::GetStatusRequest {}).await;
            let status = status.unwrap().into_inner();
            let found = status.dataplane().as_str_name().to_lowercase();
            assert!(found.ends_with(dataplane), "{found}");
        }
    });
}

#[test]
fn n19_a_second_kernel_dataplane_in_a_network_namespace_is_refused() {
    with_hosts(async || {
        let mut hosts = Hosts::start(&["kernel"]).await;
        let first = hosts.hosts[0].netns.clone();
        hosts.add_in(first, "kernel");
        let second = &mut hosts.hosts[1].daemon;
        assert!(!second.exit().success());
        assert!(second.log().contains("kernel dataplane of this network namespace"));
        until("the first one answers", async || Some(local(&hosts.hosts[0].daemon).await)).await;
    });
}
