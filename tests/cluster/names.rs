//! Names as programs in a container ask for them: at 127.0.0.11, in its network namespace, with `dig`.

mod container;
mod upstream;

use overlay_api::v1::{self, networks_client::NetworksClient, services_client::ServicesClient};
use overlay_testkit::lab::skip;

use self::{container::Container, upstream::Upstream};
use crate::{
    lab::{Lab, until},
    metrics::{scrape, value},
};

/// A manager whose endpoints ask the test's upstream about names of others.
async fn manager() -> Lab {
    let mut lab = Lab::new();
    let place = lab
        .start_with(|config| config.dns_upstream = vec![upstream::ADDRESS.parse().unwrap()])
        .await;
    lab.nodes[place].handle.init(v1::InitClusterRequest::default()).await.unwrap();
    lab
}

async fn network(lab: &Lab, spec: v1::NetworkSpec) {
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let spec = Some(v1::NetworkSpec { attachable: true, ..spec });
    client.create_network(v1::CreateNetworkRequest { spec, ..Default::default() }).await.unwrap();
}

/// A network with this /24, and whether it has a way out.
fn plain(name: &str, subnet: &str, internal: bool) -> v1::NetworkSpec {
    let subnets = vec![v1::SubnetSpec { subnet: subnet.into(), ..Default::default() }];
    v1::NetworkSpec { name: name.into(), subnets, internal, ..Default::default() }
}

async fn service(lab: &Lab, name: &str, network: &str, spec: v1::ServiceSpec) {
    let mut client = ServicesClient::new(lab.nodes[0].channel().await);
    let aliases = if name == "web" { vec!["www".into()] } else { Vec::new() };
    let networks = vec![v1::ServiceNetwork { network: network.into(), aliases }];
    let spec = Some(v1::ServiceSpec { name: name.into(), networks, ..spec });
    client.create_service(v1::CreateServiceRequest { spec, ..Default::default() }).await.unwrap();
}

/// An endpoint in memory at this address.
async fn task(lab: &Lab, place: usize, network: &str, service: &str, addresses: &[&str]) {
    let spec = v1::EndpointSpec {
        network: network.into(),
        service: service.into(),
        addresses: addresses.iter().map(|&address| address.into()).collect(),
        ..Default::default()
    };
    let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
    lab.nodes[place].handle.attach(request).await.unwrap();
}

async fn until_answer(container: &Container, question: &str, answer: &str) {
    let what = format!("{question} is {answer:?} and not {:?}", container.dig(question));
    until(&what, async || (container.dig(question)? == answer).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_s06_every_kind_of_name_is_answered_inside_a_container() {
    if skip() {
        return;
    }
    let lab = manager().await;
    let subnet = |subnet: &str| v1::SubnetSpec { subnet: subnet.into(), ..Default::default() };
    let subnets = vec![subnet("10.61.1.0/24"), subnet("fd61:1::/64")];
    network(&lab, v1::NetworkSpec { ipv6: true, subnets, ..plain("front", "", false) }).await;
    network(&lab, plain("old", "10.61.2.0/24", false)).await;
    let dnsrr = v1::EndpointMode::Dnsrr.into();
    service(&lab, "web", "front", v1::ServiceSpec { mode: dnsrr, ..Default::default() }).await;
    task(&lab, 0, "front", "web", &["10.61.1.21", "fd61:1::21"]).await;
    task(&lab, 0, "front", "web", &["10.61.1.22", "fd61:1::22"]).await;
    let ports = vec![v1::PortSpec { target: 80, published: 8080, ..host_port() }];
    let shop = v1::ServiceSpec { mode: dnsrr, ports, ..Default::default() };
    service(&lab, "shop", "front", shop).await;

    // A container's loopback is down until somebody brings it up.
    let container = Container::new();
    container.netns.ip("link set lo down").unwrap();
    let spec = v1::EndpointSpec {
        name: "box".into(),
        aliases: vec!["crate".into()],
        addresses: vec!["10.61.1.30".into(), "fd61:1::30".into()],
        ..Default::default()
    };
    let attached = container.attach(&lab, 0, "front", spec).await;
    assert!(attached.resolv_conf.starts_with("nameserver 127.0.0.11\n"), "{attached:?}");
    assert!(attached.resolv_conf.ends_with("options ndots:0\n"), "{attached:?}");
    let spec = v1::EndpointSpec { addresses: vec!["10.61.2.9".into()], ..Default::default() };
    container.attach(&lab, 0, "old", v1::EndpointSpec { name: "elder".into(), ..spec }).await;

    for (question, answer) in [
        ("box A", "10.61.1.30"),
        ("BOX.Front A", "10.61.1.30"),
        ("crate AAAA", "fd61:1::30"),
        ("web A", "10.61.1.21\n10.61.1.22"),
        ("www AAAA", "fd61:1::21\nfd61:1::22"),
        ("tasks.web.front A", "10.61.1.21\n10.61.1.22"),
        ("+tcp tasks.web AAAA", "fd61:1::21\nfd61:1::22"),
        ("+noedns box A", "10.61.1.30"),
        ("-x 10.61.1.30", "box.front."),
        ("-x 10.61.1.21", "tasks.web.front."),
        ("-x fd61:1::30", "box.front."),
        ("_8080._tcp.shop SRV", "0 0 80 shop.front."),
        ("elder A", "10.61.2.9"),
        ("elder AAAA", ""),
    ] {
        assert_eq!(container.dig(question).as_deref(), Some(answer), "{question}");
    }
    let whole = container.ask("elder AAAA").unwrap();
    for part in ["status: NOERROR", "ANSWER: 0", " aa ", "EDNS: version: 0, flags:; udp: 1232"] {
        assert!(whole.contains(part), "{part}: {whole}");
    }
    assert!(container.ask("box A").unwrap().contains("\t5\tIN\tA\t10.61.1.30"));
}

fn host_port() -> v1::PortSpec {
    v1::PortSpec { mode: v1::PublishMode::Host.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_what_is_cut_over_udp_is_whole_over_tcp_inside_a_container() {
    if skip() {
        return;
    }
    let lab = manager().await;
    network(&lab, plain("front", "10.61.1.0/24", false)).await;
    service(&lab, "web", "front", v1::ServiceSpec::default()).await;
    for host in 101..=140 {
        task(&lab, 0, "front", "web", &[&format!("10.61.1.{host}")]).await;
    }
    let container = Container::new();
    container.attach(&lab, 0, "front", v1::EndpointSpec::default()).await;
    let cut = container.ask("+noedns +ignore tasks.web A").unwrap();
    assert!(cut.contains("flags: qr aa tc rd ra"), "{cut}");
    let whole = container.dig("+noedns tasks.web A").unwrap();
    assert_eq!(whole.lines().count(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_names_of_others_are_asked_from_the_container_and_never_from_an_internal_network() {
    if skip() {
        return;
    }
    let lab = manager().await;
    network(&lab, plain("shut", "10.61.1.0/24", true)).await;
    network(&lab, plain("open", "10.61.2.0/24", false)).await;
    let container = Container::new();
    let upstream = Upstream::start(&container.netns);
    container.attach(&lab, 0, "shut", v1::EndpointSpec::default()).await;
    assert!(container.ask("example.com A").unwrap().contains("status: REFUSED"));
    assert_eq!(upstream.asked(), 0);

    // The second network has a way out. The host cannot reach the upstream: only the container can.
    let spec = v1::EndpointSpec { name: "box".into(), ..Default::default() };
    let attached = container.attach(&lab, 0, "open", spec).await;
    assert_eq!(container.dig("example.com A").as_deref(), Some("198.51.100.7"));
    assert_eq!(container.dig("+tcp +noedns large.example TXT").unwrap().len(), 4 * 225 + 3);
    assert!(container.ask("nothing.example A").unwrap().contains("status: NXDOMAIN"));
    let before = upstream.asked();
    assert!(before >= 3);
    // What was asked before comes from the cache, until the way out is gone.
    assert_eq!(container.dig("EXAMPLE.com A").as_deref(), Some("198.51.100.7"));
    assert!(container.ask("+tcp nothing.example A").unwrap().contains("status: NXDOMAIN"));
    assert_eq!(upstream.asked(), before);

    lab.nodes[0].handle.detach(&attached.endpoint.unwrap().id).await.unwrap();
    for question in ["example.com A", "nothing.example A"] {
        until(question, async || container.ask(question)?.contains("REFUSED").then_some(())).await;
    }
    assert_eq!(upstream.asked(), before);
    let status = container.status(&lab, 0).await;
    assert_eq!(status["dns.resolvers"], 1);
    assert_eq!(status["dns.cached"], 2);
    assert!(status["dns.refused"] >= 3 && status["dns.forwarded"] >= 3, "{status:?}");
    assert!(status["dns.queries"] >= status["dns.refused"] + status["dns.forwarded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_one_name_server_of_a_namespace_follows_its_networks_until_the_last() {
    if skip() {
        return;
    }
    let lab = manager().await;
    network(&lab, plain("a", "10.61.1.0/24", true)).await;
    network(&lab, plain("b", "10.61.2.0/24", true)).await;
    task(&lab, 0, "a", "", &["10.61.1.50"]).await;
    let named = |name: &str| v1::EndpointSpec { name: name.into(), ..Default::default() };
    let container = Container::new();
    let at = |address: &str, name: &str| v1::EndpointSpec {
        addresses: vec![address.into()],
        ..named(name)
    };
    let first = container.attach(&lab, 0, "a", at("10.61.1.10", "one")).await;
    assert_eq!(container.dig("one A").as_deref(), Some("10.61.1.10"));
    assert!(container.ask("two A").unwrap().contains("REFUSED"));

    // The second endpoint gets there by another path.
    let sleeper = container.netns.spawn(&["sleep", "1000"]).unwrap();
    let by_process = container.through(sleeper.id());
    let second = by_process.attach(&lab, 0, "b", at("10.61.2.10", "two")).await;
    assert_eq!(container.dig("one A").as_deref(), Some("10.61.1.10"));
    assert_eq!(container.dig("two.b A").as_deref(), Some("10.61.2.10"));
    assert_eq!(container.status(&lab, 0).await["dns.resolvers"], 1);
    let text = scrape(&lab.nodes[0]).await;
    assert_eq!(value(&text, "overlay_dns_resolvers"), Some(1));
    assert!(value(&text, "overlay_dns_queries_total{outcome=\"answered\"}").unwrap() >= 3);

    lab.nodes[0].handle.detach(&first.endpoint.unwrap().id).await.unwrap();
    until("the first network is left", async || {
        container.ask("one A")?.contains("REFUSED").then_some(())
    })
    .await;
    lab.nodes[0].handle.detach(&second.endpoint.unwrap().id).await.unwrap();
    drop(sleeper);
    until("nobody answers", async || container.is_silent().then_some(())).await;
    let status = container.status(&lab, 0).await;
    assert_eq!((status["dns.resolvers"], status["dns.resolvers_failed"]), (0, 0));
    assert!(status["dns.answered"] >= 3, "what stopped is counted still: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_restarted_node_answers_again_without_managers() {
    if skip() {
        return;
    }
    let mut lab = manager().await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    network(&lab, plain("net", "10.61.1.0/24", true)).await;
    let dnsrr = v1::EndpointMode::Dnsrr.into();
    service(&lab, "web", "net", v1::ServiceSpec { mode: dnsrr, ..Default::default() }).await;
    task(&lab, 0, "net", "web", &["10.61.1.21"]).await;
    task(&lab, worker, "net", "web", &["10.61.1.22"]).await;
    let container = Container::new();
    let addresses = vec!["10.61.1.30".into()];
    let spec = v1::EndpointSpec { name: "box".into(), addresses, ..Default::default() };
    container.attach(&lab, worker, "net", spec).await;
    until_answer(&container, "tasks.web A", "10.61.1.21\n10.61.1.22").await;

    // G04: what stood on a node that went is in no answer.
    lab.nodes[0].stop().await;
    until_answer(&container, "tasks.web A", "10.61.1.22").await;
    lab.nodes[worker].restart().await;
    until_answer(&container, "box.net A", "10.61.1.30").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_what_is_in_the_way_of_a_name_server_fails_no_attachment() {
    if skip() {
        return;
    }
    let lab = manager().await;
    network(&lab, plain("net", "10.61.1.0/24", true)).await;
    let container = Container::new();
    let other = container.netns.enter(|| std::net::UdpSocket::bind("0.0.0.0:53").unwrap());
    let spec = v1::EndpointSpec {
        name: "box".into(),
        addresses: vec!["10.61.1.10".into()],
        ..Default::default()
    };
    container.attach(&lab, 0, "net", spec).await;
    assert_eq!(container.status(&lab, 0).await["dns.resolvers_failed"], 1);
    drop(other);
    until_answer(&container, "box A", "10.61.1.10").await;
    assert_eq!(container.status(&lab, 0).await["dns.resolvers_failed"], 0);

    // A namespace that is gone is let go of, and others are served.
    let path = container.path();
    drop(container);
    assert!(!path.exists());
    let next = Container::new();
    let spec = v1::EndpointSpec { addresses: vec!["10.61.1.11".into()], ..Default::default() };
    next.attach(&lab, 0, "net", v1::EndpointSpec { name: "crate".into(), ..spec }).await;
    until("one of two is left", async || {
        let status = next.status(&lab, 0).await;
        (status["dns.resolvers"] == 1).then_some(())
    })
    .await;
    assert_eq!(next.dig("crate A").as_deref(), Some("10.61.1.11"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s05_an_endpoint_in_the_daemons_namespace_has_the_hosts_name_servers() {
    if skip() {
        return;
    }
    let lab = manager().await;
    network(&lab, plain("net", "10.61.1.0/24", true)).await;
    let own = v1::endpoint_port::Namespace::Pid(std::process::id());
    for (interface, namespace) in [("names-own0", None), ("names-own1", Some(own))] {
        let port = v1::EndpointPort { interface: interface.into(), namespace };
        let spec = v1::EndpointSpec { network: "net".into(), ..Default::default() };
        let request =
            v1::AttachEndpointRequest { spec: Some(spec), port: Some(port), ..Default::default() };
        let attached = lab.nodes[0].handle.attach(request).await.unwrap();
        assert_eq!(attached.resolv_conf, "");
    }
    let counters = lab.nodes[0].counters().await;
    assert_eq!((counters["dns.resolvers"], counters["dns.resolvers_failed"]), (0, 0));
}
