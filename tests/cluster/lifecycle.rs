//! Nodes are promoted, demoted, drained, removed, and leave.

use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, endpoints_client::EndpointsClient, networks_client::NetworksClient,
        nodes_client::NodesClient,
    },
};
use overlay_types::View;

use crate::lab::{Lab, until};

async fn nodes(lab: &Lab, place: usize) -> NodesClient<tonic::transport::Channel> {
    NodesClient::new(lab.nodes[place].channel().await)
}

/// An update of a node that changes nothing, to change it.
async fn update_of(lab: &Lab, asked: usize, place: usize) -> v1::UpdateNodeRequest {
    let node = lab.nodes[place].handle.node().unwrap().to_string();
    let request = v1::GetNodeRequest { node: node.clone(), consistency: None };
    let known = nodes(lab, asked).await.get_node(request).await.unwrap().into_inner();
    let known = known.node.unwrap().node.unwrap();
    v1::UpdateNodeRequest {
        node,
        role: known.role,
        availability: known.availability,
        labels: known.labels,
        changed_at: known.meta.unwrap().changed_at,
        request_id: String::new(),
    }
}

async fn give_role(
    lab: &Lab,
    asked: usize,
    place: usize,
    role: v1::Role,
) -> Result<(), tonic::Status> {
    let request = v1::UpdateNodeRequest { role: role.into(), ..update_of(lab, asked, place).await };
    nodes(lab, asked).await.update_node(request).await.map(drop)
}

async fn worker(lab: &mut Lab) -> usize {
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let place = lab.start().await;
    lab.join(place, &token).await.unwrap();
    place
}

/// Waits until gossip says this of a node, asked at the first one.
async fn until_liveness(lab: &Lab, place: usize, liveness: v1::Liveness) {
    let node = lab.nodes[place].handle.node().unwrap().to_string();
    until_liveness_of(lab, &node, liveness).await;
}

async fn until_liveness_of(lab: &Lab, node: &str, liveness: v1::Liveness) {
    until("gossip says so", || async {
        let request = v1::GetNodeRequest { node: node.to_owned(), consistency: None };
        let answer = nodes(lab, 0).await.get_node(request).await.ok()?;
        (answer.into_inner().node?.liveness() == liveness).then_some(())
    })
    .await;
}

/// Waits until the manager at `asked` knows that all nodes are alive.
async fn until_all_alive(lab: &Lab, asked: usize) {
    until("all are alive", || async {
        let answer = nodes(lab, asked).await.list_nodes(v1::ListNodesRequest::default()).await;
        let nodes = answer.ok()?.into_inner().nodes;
        nodes.iter().all(|node| node.liveness() == v1::Liveness::Alive).then_some(())
    })
    .await;
}

async fn network(lab: &Lab) {
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let spec = v1::NetworkSpec { name: "net".into(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    client.create_network(request).await.unwrap();
}

fn on_net() -> v1::AttachEndpointRequest {
    let spec = v1::EndpointSpec { network: "net".into(), ..Default::default() };
    v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() }
}

/// Managers that vote, as this one knows.
fn voters(lab: &Lab, place: usize) -> Option<u64> {
    lab.nodes[place].handle.figures().ok().flatten().map(|figures| figures.voters)
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_a_worker_is_promoted_and_demoted_while_its_endpoints_stay() {
    let mut lab = Lab::managers(1).await;
    let place = worker(&mut lab).await;
    network(&lab).await;
    let endpoint = lab.nodes[place].handle.attach(on_net()).await.unwrap().endpoint.unwrap();
    let id = endpoint.id.parse().unwrap();
    let _port = lab.nodes[place].handle.take_memory_port(id).unwrap().unwrap();

    give_role(&lab, 0, place, v1::Role::Manager).await.unwrap();
    until("both vote", || async { (voters(&lab, place) == Some(2)).then_some(()) }).await;
    until("it gives out join tokens", || async { lab.nodes[place].handle.tokens().ok() }).await;
    assert!(lab.nodes[place].handle.is_plugged(id).unwrap());

    // It stays a manager when it starts again.
    lab.nodes[place].restart().await;
    until("both vote", || async { (voters(&lab, place) == Some(2)).then_some(()) }).await;

    until_liveness(&lab, place, v1::Liveness::Alive).await;
    give_role(&lab, place, place, v1::Role::Worker).await.unwrap();
    until("one votes", || async { (voters(&lab, 0) == Some(1)).then_some(()) }).await;
    until("it is a worker", || async { lab.nodes[place].handle.tokens().err() }).await;
    until("it erased the state", || async { (!lab.nodes[place].has("state")).then_some(()) }).await;
    let attached = |view: &View| view.endpoints().contains_key(&id);
    assert!(lab.nodes[place].handle.view(attached).unwrap());
    lab.nodes[place].restart().await;
    until_liveness(&lab, place, v1::Liveness::Alive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_the_leader_is_demoted_and_another_leads() {
    let lab = Lab::managers(3).await;
    for place in 0..3 {
        until_all_alive(&lab, place).await;
    }
    let leads = |place: usize| {
        lab.nodes[place].handle.figures().ok().flatten().is_some_and(|figures| figures.leads)
    };
    let leader = until("one leads", || async { (0..3).find(|place| leads(*place)) }).await;
    let other = (leader + 1) % 3;
    give_role(&lab, other, leader, v1::Role::Worker).await.unwrap();
    until("two vote and one of them leads", || async {
        let two = [other, (leader + 2) % 3];
        let voting = two.iter().all(|place| voters(&lab, *place) == Some(2));
        (voting && two.iter().filter(|place| leads(**place)).count() == 1).then_some(())
    })
    .await;
    network(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_refusals_say_what_to_do_instead() {
    let mut lab = Lab::managers(3).await;
    let dead = lab.nodes[2].handle.node().unwrap().to_string();
    until_liveness(&lab, 1, v1::Liveness::Alive).await;
    lab.nodes[2].handle.halt().await;
    until_liveness_of(&lab, &dead, v1::Liveness::Dead).await;
    // Of the two that would remain one is dead.
    let refused = give_role(&lab, 0, 1, v1::Role::Worker).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::Quorum));
    assert!(refused.message().contains("1 of 2") && refused.message().contains("node3"));
    drop(lab);

    lab = Lab::managers(1).await;
    let refused = give_role(&lab, 0, 0, v1::Role::Worker).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::LastManager));
    assert!(refused.message().contains("promote"), "{}", refused.message());
    let own = lab.nodes[0].handle.node().unwrap().to_string();
    let remove = v1::RemoveNodeRequest { node: own, force: true, ..Default::default() };
    let refused = nodes(&lab, 0).await.remove_node(remove).await.unwrap_err();
    assert!(refused.message().contains("demote"), "{}", refused.message());

    let place = worker(&mut lab).await;
    until_liveness(&lab, place, v1::Liveness::Alive).await;
    let node = lab.nodes[place].handle.node().unwrap().to_string();
    let remove = v1::RemoveNodeRequest { node, ..Default::default() };
    let refused = nodes(&lab, 0).await.remove_node(remove.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::NodeAlive));
    // A worker decides about itself only.
    let refused = give_role(&lab, place, 0, v1::Role::Worker).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    nodes(&lab, place).await.remove_node(remove).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_a_paused_node_takes_no_endpoints_and_a_drained_one_no_new_flows() {
    let mut lab = Lab::managers(1).await;
    let place = worker(&mut lab).await;
    network(&lab).await;
    for availability in [v1::Availability::Pause, v1::Availability::Drain] {
        let update = update_of(&lab, 0, place).await;
        let update = v1::UpdateNodeRequest { availability: availability.into(), ..update };
        nodes(&lab, 0).await.update_node(update).await.unwrap();
        let refused = lab.nodes[place].handle.attach(on_net()).await.unwrap_err();
        assert!(refused.to_string().contains("--availability active"), "{refused}");
    }
    let update = update_of(&lab, 0, place).await;
    let active = v1::Availability::Active.into();
    let update = v1::UpdateNodeRequest { availability: active, ..update };
    nodes(&lab, 0).await.update_node(update).await.unwrap();
    lab.nodes[place].handle.attach(on_net()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c07_a_node_that_leaves_gives_back_its_addresses_and_can_join_another_cluster() {
    let mut lab = Lab::managers(1).await;
    let place = worker(&mut lab).await;
    network(&lab).await;
    let endpoint = lab.nodes[place].handle.attach(on_net()).await.unwrap().endpoint.unwrap();
    let left = lab.nodes[place].handle.leave(v1::LeaveClusterRequest::default()).await.unwrap();
    assert_eq!(left.remains, "");
    for file in ["node", "view", "ports", "state", "incarnation", "data-key"] {
        assert!(!lab.nodes[place].has(file), "{file} is left behind");
    }
    let mut endpoints = EndpointsClient::new(lab.nodes[0].channel().await);
    let list = endpoints.list_endpoints(v1::ListEndpointsRequest::default()).await.unwrap();
    assert!(list.into_inner().endpoints.iter().all(|e| e.id != endpoint.id));
    let list = nodes(&lab, 0).await.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    assert_eq!(list.into_inner().nodes.len(), 1);
    // Its certificate is worth nothing any more, and it can begin anew.
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    lab.join(place, &token).await.unwrap();
    lab.nodes[place].handle.attach(on_net()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c07_a_manager_leaves_by_force_only() {
    let lab = Lab::managers(3).await;
    until_all_alive(&lab, 2).await;
    let refused = lab.nodes[2].handle.leave(v1::LeaveClusterRequest::default()).await.unwrap_err();
    assert!(refused.to_string().contains("node demote node3"), "{refused}");
    let left = lab.nodes[2].handle.leave(v1::LeaveClusterRequest { force: true }).await.unwrap();
    assert_eq!(left.remains, "");
    assert_eq!(voters(&lab, 0), Some(2));
    network(&lab).await;
    // The last one takes the cluster with it.
    let alone = Lab::managers(1).await;
    let left = alone.nodes[0].handle.leave(v1::LeaveClusterRequest { force: true }).await.unwrap();
    assert!(left.remains.contains("only manager"), "{}", left.remains);
    alone.nodes[0].handle.init(v1::InitClusterRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c06_a_dead_node_is_removed_and_talks_to_nobody() {
    let mut lab = Lab::managers(1).await;
    let place = worker(&mut lab).await;
    until_liveness(&lab, place, v1::Liveness::Alive).await;
    let node = lab.nodes[place].handle.node().unwrap().to_string();
    lab.nodes[place].handle.halt().await;
    until_liveness_of(&lab, &node, v1::Liveness::Dead).await;
    let remove = v1::RemoveNodeRequest { node: node.clone(), ..Default::default() };
    nodes(&lab, 0).await.remove_node(remove).await.unwrap();
    // It comes back and is not heard.
    lab.nodes[place].restart().await;
    let refused = until("it hears that it was removed", || async {
        lab.nodes[place].handle.renew().await.err().filter(|e| e.to_string().contains("removed"))
    })
    .await;
    drop(refused);
    let left =
        lab.nodes[place].handle.leave(v1::LeaveClusterRequest { force: true }).await.unwrap();
    assert!(!left.remains.is_empty());
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    lab.join(place, &token).await.unwrap();
}
