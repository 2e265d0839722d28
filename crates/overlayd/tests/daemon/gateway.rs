//! Containers' way out and their published ports, by daemons.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use overlay_api::v1;
use overlay_testkit::{lab::Namespace, traffic::connect};
use rstest::rstest;

use crate::{
    calls::{join, local, tokens, until},
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

#[rstest]
#[case("kernel")]
#[case("user")]
fn n18_s07_s16_case08_ports_answer_on_the_node_are_told_and_are_refused_when_in_use(
    #[case] dataplane: &str,
) {
    with_hosts(async || {
        let hosts = Hosts::start(&[dataplane, "kernel"]).await;
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
        hosts.create(network("plain")).await;
        // What is in the host's own namespace answers there as it is, and nothing else needs a way out yet.
        let error = a.publish("plain", "eth8", None, &["8082:80"]).await.unwrap_err();
        assert!(error.message().contains("own namespace"), "{error}");
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
        // A node of the user dataplane does the same.
        b.publish("sealed", "eth0", of(&d), &["8080:80"]).await.unwrap();
        let listener = listen(&d, 80);
        connect(&a.netns, SocketAddr::from(([192, 0, 2, 2], 8080)), &listener).unwrap();
        let error = a.publish("sealed", "eth7", None, &["8081:80"]).await.unwrap_err();
        assert!(error.message().contains("8081"), "{error}");
    });
}

/// Two gateways on one host would remove each other's containers' way out.
#[test]
fn n18_one_node_of_a_host_has_the_gateway_and_the_next_one_when_it_is_free() {
    with_hosts(async || {
        let mut hosts = Hosts::start(&["user"]).await;
        let netns = Arc::clone(&hosts.hosts[0].netns);
        netns.ip("address add 192.0.2.2/24 dev cable").unwrap();
        hosts.add_in(netns, "user");
        let token = tokens(&hosts.hosts[0].daemon).await.worker;
        join(&hosts.hosts[1].daemon, &token, &hosts.hosts[0].daemon).await;
        hosts.create(network("net")).await;
        let [first, next] = &hosts.hosts[..] else { panic!("two nodes") };
        let [has, waits, publishes] = [(); 3].map(|()| Namespace::new().unwrap());
        let web = first.publish("net", "eth0", of(&has), &["8080:80"]).await.unwrap();
        // It is on its network, and has no way out, which is said; what publishes is refused.
        hosts.attach_again(1, "net", "eth0", of(&waits)).await;
        assert!(waits.ip("link show gw0").is_err());
        let said =
            async || warnings(next).await.iter().any(|w| w.contains("no way out")).then_some(());
        until("the node warns", said).await;
        let error = next.publish("net", "eth0", of(&publishes), &["8081:80"]).await.unwrap_err();
        assert!(error.message().contains("other overlayd"), "{error}");
        let before = has.ip("link show gw0").unwrap();

        // While the other's daemon is down, too.
        hosts.hosts[0].daemon.kill();
        let next = &hosts.hosts[1];
        until("it is free, and another node's all the same", async || {
            warnings(next).await.iter().any(|w| w.contains("have it leave")).then_some(())
        })
        .await;
        assert_eq!(has.ip("link show gw0").unwrap(), before);
        hosts.hosts[0].daemon.restart();
        let [first, next] = &hosts.hosts[..] else { panic!("two nodes") };
        connect(&first.netns, SocketAddr::from(([192, 0, 2, 1], 8080)), &listen(&has, 80)).unwrap();
        assert_eq!(has.ip("link show gw0").unwrap(), before);

        first.detach(&web).await;
        until("the next one has a way out", async || waits.ip("link show gw0").ok()).await;
        until("nothing is missing", async || warnings(next).await.is_empty().then_some(())).await;
        next.publish("net", "eth0", of(&publishes), &["8081:80"]).await.unwrap();
        // Who leaves takes what is its own.
        let before = waits.ip("link show gw0").unwrap();
        first.leave(true).await;
        assert_eq!(waits.ip("link show gw0").unwrap(), before);
    });
}

async fn warnings(host: &Host) -> Vec<String> {
    let status = local(&host.daemon).await.get_status(v1::GetStatusRequest {}).await;
    status.unwrap().into_inner().warnings
}

/// Its TAP devices end with the daemon; the way out is the host's, and carries on.
#[test]
fn d05_n18_containers_of_a_user_node_keep_their_way_out_while_it_restarts() {
    with_hosts(async || {
        let mut hosts = Hosts::start(&["user", "user"]).await;
        hosts.create(network("net")).await;
        let c = Namespace::new().unwrap();
        let web = hosts.hosts[1].publish("net", "eth0", of(&c), &["8080:80"]).await.unwrap();
        let listener = listen(&c, 80);
        let to = SocketAddr::from(([192, 0, 2, 2], 8080));
        connect(&hosts.hosts[0].netns, to, &listener).unwrap();
        let before = c.ip("-br link show gw0").unwrap();
        hosts.hosts[1].daemon.kill();
        connect(&hosts.hosts[0].netns, to, &listener).unwrap();
        hosts.hosts[1].daemon.restart();
        until("it is plugged in again", async || c.ip("link show eth0").ok()).await;
        assert_eq!(c.ip("-br link show gw0").unwrap(), before);
        connect(&hosts.hosts[0].netns, to, &listener).unwrap();
        hosts.hosts[1].detach(&web).await;
        let gone = async || c.ip("link show gw0").is_err().then_some(());
        until("the way out is gone", gone).await;
        assert!(hosts.hosts[1].leave(false).await.is_empty());
        assert_eq!(hosts.hosts[1].listing(), hosts.hosts[1].bare);
    });
}
