//! Containers' way out and their published ports, by daemons.

use std::net::{SocketAddr, TcpListener};

use overlay_api::v1;
use overlay_testkit::{lab::Namespace, traffic::connect};

use crate::{
    calls::until,
    hosts::{Host, Hosts, dual, of, reaches, with_hosts},
};

fn network(name: &str) -> v1::NetworkSpec {
    v1::NetworkSpec { name: name.to_owned(), ..Default::default() }
}

/// Ports as they are told: published and target.
fn told(endpoint: &v1::Endpoint) -> Vec<(u32, u32)> {
    endpoint.ports.iter().map(|port| (port.published, port.target)).collect()
}

fn listen(on: &Namespace, port: u16) -> TcpListener {
    on.enter(|| TcpListener::bind(("0.0.0.0", port))).unwrap()
}

async fn endpoints(host: &Host) -> Vec<v1::Endpoint> {
    let list = v1::ListEndpointsRequest::default();
    host.endpoints().await.list_endpoints(list).await.unwrap().into_inner().endpoints
}

#[test]
fn n18_s07_s16_case08_ports_answer_on_the_node_are_told_and_are_refused_when_in_use() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "kernel"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        hosts.create(dual("net")).await;
        let (c, d) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let ports = ["8080:80", "81"];
        let web = a.publish("net", "eth0", of(&c), &ports).await.unwrap();
        // The one that was left open is chosen.
        let [(8080, 80), (chosen @ 30_000..=32_767, 81)] = told(&web)[..] else {
            panic!("{web:?}")
        };
        assert_eq!(endpoints(a).await.iter().map(told).collect::<Vec<_>>(), [told(&web)]);
        for (port, target) in [(8080, 80), (chosen as u16, 81)] {
            let listener = listen(&c, target);
            let to = SocketAddr::from(([192, 0, 2, 1], port));
            let seen = connect(&b.netns, to, &listener).unwrap();
            assert_eq!(seen.to_string(), "192.0.2.2", "the client's address is kept");
            connect(&a.netns, to, &listener).unwrap();
        }
        // On the overlay address too, from another host; and out to another host.
        let there = b.attach("net", "eth0", of(&d)).await.unwrap();
        reaches(&d, &web).await;
        let listener = listen(&c, 80);
        let own: std::net::Ipv4Addr = web.addresses[0].parse().unwrap();
        connect(&d, SocketAddr::from((own, 8080)), &listener).unwrap();
        let out = listen(&b.netns, 70);
        let seen = connect(&c, SocketAddr::from(([192, 0, 2, 2], 70)), &out).unwrap();
        assert_eq!(seen.to_string(), "192.0.2.1");
        drop(listener);

        // Somebody's port is refused by its number, and nothing stays of the endpoint.
        let _theirs = listen(&a.netns, 9000);
        let other = Namespace::new().unwrap();
        let error = a.publish("net", "eth0", of(&other), &["9000:80"]).await.unwrap_err();
        assert!(error.message().contains("9000/tcp"), "{error}");
        let error = a.publish("net", "eth0", of(&other), &["8080:80"]).await.unwrap_err();
        assert!(error.message().contains("8080"), "{error}");
        assert_eq!(endpoints(a).await.len(), 2);
        let is_empty = || (other.ip("-br link show").unwrap().lines().count() == 1).then_some(());
        until("nothing is left in the container", async || is_empty()).await;

        a.detach(&web).await;
        b.detach(&there).await;
        assert!(a.leave(true).await.contains("only manager"));
        assert_eq!(a.listing(), a.bare);
    });
}

#[test]
fn n18_a_network_that_is_internal_has_no_way_out_and_publishes_nothing() {
    with_hosts(async || {
        let hosts = Hosts::start(&["kernel", "user"]).await;
        let [a, b] = &hosts.hosts[..] else { panic!("two hosts") };
        hosts.create(v1::NetworkSpec { internal: true, ..network("inner") }).await;
        hosts.create(v1::NetworkSpec { encrypted: true, ..network("sealed") }).await;
        let c = Namespace::new().unwrap();
        a.attach("inner", "eth0", of(&c)).await.unwrap();
        assert!(c.ip("link show gw0").is_err());
        let d = Namespace::new().unwrap();
        let error = a.publish("inner", "eth0", of(&d), &["8080:80"]).await.unwrap_err();
        assert!(error.message().contains("internal"), "{error}");
        // One that is carried in user space has a way out all the same.
        a.publish("sealed", "eth1", of(&c), &["8080:80"]).await.unwrap();
        let out = listen(&b.netns, 70);
        connect(&c, SocketAddr::from(([192, 0, 2, 2], 70)), &out).unwrap();
        let listener = listen(&c, 80);
        connect(&b.netns, SocketAddr::from(([192, 0, 2, 1], 8080)), &listener).unwrap();
        // A node of the user dataplane has none yet, and says so.
        let error = b.publish("sealed", "eth0", of(&d), &["8080:80"]).await.unwrap_err();
        assert!(error.message().contains("user space"), "{error}");
        let error = a.publish("sealed", "eth7", None, &["8081:80"]).await.unwrap_err();
        assert!(error.message().contains("8081"), "{error}");
    });
}
