//! How endpoints are plugged in.

use overlay_api::v1::{self, endpoint_port::Namespace as PortNamespace};
use overlay_testkit::lab::Namespace;

use crate::hosts::{Hosts, dual, of, reaches, with_hosts};

/// The same calls on both dataplanes. (CASES 9 and 11.)
#[test]
fn n08_an_interface_that_cannot_be_is_refused_by_name_and_its_address_is_free_again() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "user"]).await;
        hosts.create(dual("net")).await;
        // A path of a namespace that is gone may be that of the next one.
        let mut kept = Vec::new();
        for host in &hosts.hosts {
            let container = Namespace::new().unwrap();
            container.ip("link add taken type veth peer name other").unwrap();
            let absent = PortNamespace::Netns("/run/netns/absent".into());
            let nobody = PortNamespace::Pid(0x7fff_fff0);
            for (interface, namespace, words) in [
                ("taken", of(&container), "taken"),
                ("a/b", of(&container), "interface \"a/b\""),
                ("eth0", PortNamespace::Netns("run".into()), "netns \"run\""),
                ("eth0", absent, "netns \"/run/netns/absent\""),
                ("eth0", nobody, "pid \"2147483632\""),
            ] {
                let refused = host.attach("net", interface, namespace).await.unwrap_err();
                assert!(refused.message().contains(words), "{refused}");
            }
            assert_eq!(host.list().await, []);
            host.attach("net", "web", of(&container)).await.unwrap();
            container.ip("link show web").unwrap();
            kept.push(container);
        }
    });
}

#[test]
fn d02_the_kernel_has_no_ports_in_memory() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel"]).await;
        hosts.create(dual("net")).await;
        let spec = v1::EndpointSpec { network: "net".to_owned(), ..Default::default() };
        let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
        let attached = hosts.hosts[0].endpoints().await.attach_endpoint(request).await;
        let refused = attached.unwrap_err();
        assert!(refused.message().contains("has no ports in memory"), "{refused}");
        assert_eq!(hosts.hosts[0].list().await, []);
    });
}

/// Without a namespace the interface is the host's, on both dataplanes.
#[test]
fn d01_the_host_itself_may_be_an_endpoint() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "user"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        hosts.create(dual("net")).await;
        let here = a.attach("net", "overlay0", None).await.unwrap();
        let there = b.attach("net", "overlay0", None).await.unwrap();
        reaches(&a.netns, &there).await;
        reaches(&b.netns, &here).await;
        for host in [a, b] {
            host.netns.ip("link show overlay0").unwrap();
        }
        a.detach(&here).await;
        assert!(a.netns.ip("link show overlay0").is_err());
    });
}

#[test]
fn n08_an_interface_moves_between_networks_of_both_dataplanes() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "kernel"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        let sealed = v1::NetworkSpec { encrypted: true, ..Default::default() };
        let networks = ["a", "b", "c", "d"];
        for (number, name) in networks.iter().enumerate() {
            let encrypted = number % 2 == 1;
            let name = (*name).to_owned();
            hosts.create(v1::NetworkSpec { name, encrypted, ..sealed.clone() }).await;
        }
        let (here, there) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        for network in networks.iter().chain(networks.iter().rev()) {
            let one = a.attach(network, "eth0", of(&here)).await.unwrap();
            let other = b.attach(network, "eth0", of(&there)).await.unwrap();
            reaches(&here, &other).await;
            a.detach(&one).await;
            b.detach(&other).await;
        }
    });
}
