//! Nodes that die, return, or are left without managers.

use core::net::IpAddr;
use std::collections::BTreeSet;

use overlay_api::v1::{
    self, networks_client::NetworksClient, nodes_client::NodesClient,
    services_client::ServicesClient,
};
use overlay_service::{Answer, Question, Record, RecordKind};
use overlay_types::{NetworkId, NodeId, View};

use crate::lab::{Lab, until};

/// A network and a round-robin service on it with one task on each node.
async fn service(lab: &Lab) -> NetworkId {
    let channel = lab.nodes[0].channel().await;
    let spec = v1::NetworkSpec { name: "net".into(), ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    let network = NetworksClient::new(channel.clone()).create_network(request).await.unwrap();
    let networks = vec![v1::ServiceNetwork { network: "net".into(), aliases: vec![] }];
    let spec = v1::ServiceSpec {
        name: "web".into(),
        mode: v1::EndpointMode::Dnsrr.into(),
        networks,
        ..Default::default()
    };
    let request = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
    ServicesClient::new(channel).create_service(request).await.unwrap();
    for node in &lab.nodes {
        let spec =
            v1::EndpointSpec { network: "net".into(), service: "web".into(), ..Default::default() };
        let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
        node.handle.attach(request).await.unwrap();
    }
    network.into_inner().network.unwrap().id.parse().unwrap()
}

/// Addresses that `web` resolves to on a node.
fn resolved(lab: &Lab, place: usize, network: NetworkId) -> BTreeSet<IpAddr> {
    let question = Question { name: "web", kind: RecordKind::A };
    match lab.nodes[place].handle.resolve([network], question, 1).unwrap() {
        Answer::Records(records) => {
            let address = |record| match record {
                Record::A(address) => Some(IpAddr::V4(address)),
                _ => None,
            };
            records.into_iter().filter_map(address).collect()
        }
        _ => BTreeSet::new(),
    }
}

async fn until_resolved(lab: &Lab, place: usize, network: NetworkId, count: usize) {
    let what = format!("{count} addresses on node {place}");
    until(&what, || async { (resolved(lab, place, network).len() == count).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g04_a_dead_nodes_tasks_leave_names_and_return() {
    let mut lab = Lab::managers(3).await;
    let network = service(&lab).await;
    for place in 0..3 {
        until_resolved(&lab, place, network, 3).await;
    }
    let dead: NodeId = lab.nodes[2].handle.node().unwrap();
    lab.nodes[2].handle.halt().await;
    for place in 0..2 {
        until_resolved(&lab, place, network, 2).await;
        assert!(lab.nodes[place].handle.dead().unwrap().contains(&dead));
    }
    lab.nodes[2].restart().await;
    for place in 0..3 {
        until_resolved(&lab, place, network, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_worker_starts_and_resolves_without_managers() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let network = service(&lab).await;
    until_resolved(&lab, worker, network, 2).await;
    let before = resolved(&lab, worker, network);

    lab.nodes[0].stop().await;
    // The manager left, so its own task is masked; the worker's answers.
    until_resolved(&lab, worker, network, 1).await;
    lab.nodes[worker].restart().await;
    until("the worker answers from its last view", || async {
        let now = resolved(&lab, worker, network);
        (!now.is_empty() && now.is_subset(&before)).then_some(())
    })
    .await;
}

/// What a node lists, as its manager knows it right now.
async fn verdicts(lab: &Lab, place: usize) -> Vec<(String, v1::Liveness)> {
    let mut client = NodesClient::new(lab.nodes[place].channel().await);
    let consistency = Some(v1::Consistency { stale: true });
    let request = v1::ListNodesRequest { consistency, ..Default::default() };
    let nodes = client.list_nodes(request).await.unwrap().into_inner().nodes;
    let shown =
        |node: &v1::NodeStatus| (node.node.clone().unwrap_or_default().name, node.liveness());
    nodes.iter().map(shown).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_node_lists_show_the_verdict_of_gossip() {
    let lab = Lab::managers(3).await;
    lab.nodes[2].handle.halt().await;
    for place in 0..2 {
        until("the list shows who is dead", || async {
            let dead = ("node3".to_owned(), v1::Liveness::Dead);
            verdicts(&lab, place).await.contains(&dead).then_some(())
        })
        .await;
        until("the node itself masks it", || async {
            (lab.nodes[place].handle.dead().unwrap().len() == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_without_a_quorum_only_stale_reads_answer() {
    let lab = Lab::managers(3).await;
    lab.nodes[1].handle.halt().await;
    lab.nodes[2].handle.halt().await;
    let mut client = NodesClient::new(lab.nodes[0].channel().await);
    let refused = client.list_nodes(v1::ListNodesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("no manager leads"), "{refused}");
    assert_eq!(verdicts(&lab, 0).await.len(), 3);
    let mut networks = NetworksClient::new(lab.nodes[0].channel().await);
    let spec = v1::NetworkSpec { name: "late".into(), ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    let refused = networks.create_network(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_a_node_that_was_away_equals_the_state_again() {
    let mut lab = Lab::managers(2).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    let network = service(&lab).await;
    until_resolved(&lab, worker, network, 3).await;

    lab.nodes[worker].stop().await;
    let spec =
        v1::EndpointSpec { network: "net".into(), service: "web".into(), ..Default::default() };
    for _ in 0..5 {
        let request = v1::AttachEndpointRequest { spec: Some(spec.clone()), ..Default::default() };
        lab.nodes[1].handle.attach(request).await.unwrap();
    }
    lab.nodes[worker].restart().await;
    until_resolved(&lab, worker, network, 8).await;
    until("the view is that of the managers", || async {
        let on = |view: &View| view.endpoints_on(network).cloned().collect::<Vec<_>>();
        let (here, there) = (lab.nodes[worker].handle.view(on), lab.nodes[0].handle.view(on));
        (here.unwrap() == there.unwrap()).then_some(())
    })
    .await;
}
