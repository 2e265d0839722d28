//! Lists with filters and pages, as any client asks for them.

use std::collections::BTreeSet;

use overlay_api::{
    client::lists,
    v1::{
        self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
        nodes_client::NodesClient, services_client::ServicesClient,
    },
};
use tonic::transport::Channel;

use crate::lab::{Lab, until};

async fn create(channel: &Channel, spec: v1::NetworkSpec) -> String {
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    let answer = NetworksClient::new(channel.clone()).create_network(request).await.unwrap();
    answer.into_inner().network.unwrap().id
}

fn named(name: &str) -> v1::NetworkSpec {
    v1::NetworkSpec { name: name.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_pages_miss_nothing_and_tell_nothing_twice_while_objects_come_and_go() {
    let lab = Lab::managers(1).await;
    let channel = lab.nodes[0].channel().await;
    let mut ids = BTreeSet::new();
    for number in 0..6 {
        ids.insert(create(&channel, named(&format!("net{number}"))).await);
    }
    let mut client = NetworksClient::new(channel.clone());
    let names = vec!["NET".to_owned()];
    let filter = Some(v1::NetworkFilter { names, ..Default::default() });
    let mut request = v1::ListNetworksRequest { filter, page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    for page in 0.. {
        let answer = client.list_networks(request.clone()).await.unwrap().into_inner();
        assert!(answer.networks.len() <= 2, "{answer:?}");
        let last = answer.networks.last().map(|network| network.id.clone());
        seen.extend(answer.networks.into_iter().map(|network| network.id));
        if answer.next_page_token.is_empty() {
            break;
        }
        // One more for each page, and the one that the next page would start after.
        create(&channel, named(&format!("later{page}"))).await;
        let network = last.unwrap();
        ids.remove(&network);
        let remove = v1::RemoveNetworkRequest { network, ..Default::default() };
        client.remove_network(remove).await.unwrap();
        request.page_token = answer.next_page_token;
    }
    let listed: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(listed.len(), seen.len(), "{seen:?}");
    assert!(seen.is_sorted() && ids.is_subset(&listed), "{ids:?} {seen:?}");

    // The client walks the pages.
    let filter =
        Some(v1::NetworkFilter { ids: vec![seen[0][..12].to_owned()], ..Default::default() });
    let request = v1::ListNetworksRequest { page_size: 1, filter, ..Default::default() };
    assert_eq!(lists::networks(channel.clone(), request).await.unwrap().len(), 1);
    let request = v1::ListNetworksRequest { page_size: 1, ..Default::default() };
    let all = lists::networks(channel.clone(), request).await.unwrap();
    let whole = lists::networks(channel, v1::ListNetworksRequest::default()).await.unwrap();
    assert_eq!(all, whole);
    assert!(all.len() > ids.len());
}

/// Two managers and a worker; networks, a service and endpoints with something to tell apart.
async fn stage() -> (Lab, Channel) {
    let mut lab = Lab::managers(2).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let labels = [("tier".to_owned(), "web".to_owned())];
    let channel = lab.nodes[1].channel().await;
    let front =
        v1::NetworkSpec { attachable: true, labels: labels.clone().into(), ..named("front") };
    let back = v1::NetworkSpec { attachable: true, encrypted: true, ..named("back") };
    create(&channel, front).await;
    create(&channel, back).await;
    create(&channel, v1::NetworkSpec { internal: true, ..named("backup") }).await;
    let spec = v1::ServiceSpec {
        name: "web".into(),
        networks: vec![v1::ServiceNetwork { network: "front".into(), ..Default::default() }],
        labels: labels.into(),
        ..Default::default()
    };
    let create = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
    ServicesClient::new(channel.clone()).create_service(create).await.unwrap();
    for (name, network, service, node) in
        [("one", "front", "web", 0), ("two", "front", "", 0), ("", "back", "", worker)]
    {
        let spec = v1::EndpointSpec {
            name: name.into(),
            network: network.into(),
            service: service.into(),
            ..Default::default()
        };
        let attach = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
        let mut client = EndpointsClient::new(lab.nodes[node].channel().await);
        client.attach_endpoint(attach).await.unwrap();
    }
    (lab, channel)
}

fn label(key: &str, value: Option<&str>) -> Vec<v1::LabelFilter> {
    vec![v1::LabelFilter { key: key.into(), value: value.map(Into::into) }]
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// Sorted names, in one text.
fn joined(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn o02_each_list_has_the_filters_of_dockers_command_line() {
    let (lab, channel) = stage().await;
    networks(&channel).await;
    services(&channel).await;
    endpoints(&channel).await;
    nodes(&lab, &channel).await;
}

async fn networks(channel: &Channel) {
    let all = v1::NetworkFilter::default;
    for (filter, expected) in [
        (all(), "back backup front ingress"),
        (v1::NetworkFilter { names: texts(&["ACK", "gress"]), ..all() }, "back backup ingress"),
        (v1::NetworkFilter { labels: label("tier", None), ..all() }, "front"),
        (v1::NetworkFilter { labels: label("tier", Some("db")), ..all() }, ""),
        (v1::NetworkFilter { ingress: Some(true), ..all() }, "ingress"),
        (v1::NetworkFilter { ingress: Some(false), ..all() }, "back backup front"),
        (v1::NetworkFilter { internal: Some(true), ..all() }, "backup"),
        (v1::NetworkFilter { encrypted: Some(true), ..all() }, "back"),
        (v1::NetworkFilter { attachable: Some(true), names: texts(&["back"]), ..all() }, "back"),
    ] {
        let request = v1::ListNetworksRequest { filter: Some(filter), ..Default::default() };
        let shown = format!("{request:?}");
        let found = lists::networks(channel.clone(), request).await.unwrap().into_iter();
        assert_eq!(joined(found.map(|network| network.spec.unwrap().name)), expected, "{shown}");
    }
}

async fn services(channel: &Channel) {
    let all = v1::ServiceFilter::default;
    let vip = vec![v1::EndpointMode::Vip.into()];
    let dnsrr = vec![v1::EndpointMode::Dnsrr.into()];
    for (filter, expected) in [
        (all(), "web"),
        (v1::ServiceFilter { names: texts(&["we"]), ..all() }, "web"),
        (v1::ServiceFilter { names: texts(&["eb"]), ..all() }, ""),
        (v1::ServiceFilter { labels: label("tier", Some("web")), ..all() }, "web"),
        (v1::ServiceFilter { modes: vip, ..all() }, "web"),
        (v1::ServiceFilter { modes: dnsrr, ..all() }, ""),
        (v1::ServiceFilter { networks: texts(&["front", "back"]), ..all() }, "web"),
        (v1::ServiceFilter { networks: texts(&["back"]), ..all() }, ""),
    ] {
        let request = v1::ListServicesRequest { filter: Some(filter), ..Default::default() };
        let shown = format!("{request:?}");
        let found = lists::services(channel.clone(), request).await.unwrap().into_iter();
        assert_eq!(joined(found.map(|service| service.spec.unwrap().name)), expected, "{shown}");
    }
}

async fn endpoints(channel: &Channel) {
    let all = v1::EndpointFilter::default;
    for (filter, expected) in [
        (all(), " one two"),
        (v1::EndpointFilter { names: texts(&["w", "n"]), ..all() }, "one two"),
        (v1::EndpointFilter { networks: texts(&["front"]), ..all() }, "one two"),
        (v1::EndpointFilter { networks: texts(&["front", "back"]), ..all() }, " one two"),
        (v1::EndpointFilter { networks: texts(&["backup"]), ..all() }, ""),
        (v1::EndpointFilter { services: texts(&["web"]), ..all() }, "one"),
        (v1::EndpointFilter { nodes: texts(&["node1"]), ..all() }, "one two"),
        (v1::EndpointFilter { nodes: texts(&["node2"]), ..all() }, ""),
        (v1::EndpointFilter { nodes: texts(&["node1"]), networks: texts(&["back"]), ..all() }, ""),
    ] {
        for page_size in [0, 1] {
            let filter = Some(filter.clone());
            let request = v1::ListEndpointsRequest { filter, page_size, ..Default::default() };
            let shown = format!("{request:?}");
            let found = lists::endpoints(channel.clone(), request).await.unwrap().into_iter();
            assert_eq!(joined(found.map(|endpoint| endpoint.name)), expected, "{shown}");
        }
    }
}

async fn nodes(lab: &Lab, channel: &Channel) {
    let mut client = NodesClient::new(channel.clone());
    let alive = vec![v1::Liveness::Alive.into()];
    let all = v1::NodeFilter::default;
    // The manager that is asked has heard of all of them.
    until("gossip has heard of all nodes", || async {
        let filter = Some(v1::NodeFilter { liveness: alive.clone(), ..all() });
        let request = v1::ListNodesRequest { filter, ..Default::default() };
        let found = lists::nodes(channel.clone(), request).await.ok()?;
        (found.len() == 3).then_some(())
    })
    .await;
    let drained = lab.nodes[2].handle.node().unwrap().to_string();
    let request = v1::GetNodeRequest { node: drained.clone(), consistency: None };
    let node = client.get_node(request).await.unwrap().into_inner().node.unwrap().node.unwrap();
    let request = v1::UpdateNodeRequest {
        node: drained.clone(),
        role: node.role,
        availability: v1::Availability::Drain.into(),
        labels: [("rack".to_owned(), "7".to_owned())].into(),
        changed_at: node.meta.unwrap().changed_at,
        request_id: String::new(),
    };
    client.update_node(request).await.unwrap();
    let (manager, worker) = (v1::Role::Manager.into(), v1::Role::Worker.into());
    let drain = vec![v1::Availability::Drain.into()];
    let dead = vec![v1::Liveness::Dead.into(), v1::Liveness::Left.into()];
    for (filter, expected) in [
        (all(), "node1 node2 node3"),
        (v1::NodeFilter { names: texts(&["NODE1", "ode"]), ..all() }, "node1"),
        (v1::NodeFilter { ids: vec![drained[..6].to_owned()], ..all() }, "node3"),
        (v1::NodeFilter { roles: vec![manager], ..all() }, "node1 node2"),
        (v1::NodeFilter { roles: vec![worker, manager], ..all() }, "node1 node2 node3"),
        (v1::NodeFilter { availabilities: drain, ..all() }, "node3"),
        (v1::NodeFilter { labels: label("rack", Some("7")), ..all() }, "node3"),
        (v1::NodeFilter { liveness: dead, ..all() }, ""),
        (v1::NodeFilter { networks: texts(&["front"]), ..all() }, "node1"),
        (v1::NodeFilter { networks: texts(&["front", "back"]), ..all() }, "node1 node3"),
    ] {
        let request =
            v1::ListNodesRequest { filter: Some(filter), page_size: 2, ..Default::default() };
        let shown = format!("{request:?}");
        let found = lists::nodes(channel.clone(), request).await.unwrap().into_iter();
        assert_eq!(joined(found.map(|status| status.node.unwrap().name)), expected, "{shown}");
    }
}
