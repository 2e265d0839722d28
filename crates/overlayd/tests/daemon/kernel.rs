//! Daemons with the kernel dataplane.

use overlay_testkit::lab::Namespace;

use crate::hosts::{Hosts, dual, of, reaches, with_hosts};

#[test]
fn d01_n12_endpoints_of_two_kernel_nodes_reach_each_other_and_a_leave_leaves_nothing() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "auto"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        let before = [a.listing(), b.listing()];
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
        assert_eq!(b.listing(), before[1]);
        assert!(d.ip("link show eth0").is_err());
        a.detach(&here).await;
        assert!(a.leave(true).await.contains("only manager"));
        assert_eq!(a.listing(), before[0]);
    });
}
