//! Init, join, restart.

use overlay_api::v1::{
    self, networks_client::NetworksClient, nodes_client::NodesClient, watcher_client::WatcherClient,
};

use crate::{
    lab::{Lab, until},
    metrics::{scrape, value},
};

/// `None` when the manager that was asked is just restarting.
async fn nodes(lab: &Lab, place: usize) -> Option<Vec<v1::NodeStatus>> {
    let mut client = NodesClient::new(lab.nodes[place].channel().await);
    let answer = client.list_nodes(v1::ListNodesRequest::default()).await;
    Some(answer.ok()?.into_inner().nodes)
}

/// Every node lists all others as alive, and all agree on one leader.
async fn all_alive(lab: &Lab) {
    for place in 0..lab.nodes.len() {
        until("all nodes are alive", || async {
            let nodes = nodes(lab, place).await?;
            let alive = nodes.iter().all(|n| n.liveness() == v1::Liveness::Alive);
            let leaders = nodes.iter().filter(|n| n.leader).count();
            (nodes.len() == lab.nodes.len() && alive && leaders == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_nodes_join_by_token() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let place = lab.start().await;
    let joined = lab.join(place, &token).await.unwrap();
    assert_eq!(joined.role(), v1::Role::Worker);
    all_alive(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_wrong_token_says_what_is_wrong() {
    let mut lab = Lab::managers(1).await;
    let good = lab.nodes[0].handle.tokens().unwrap().worker;
    let place = lab.start().await;
    let mut mistyped = good.clone().into_bytes();
    let last = mistyped.len() - 1;
    mistyped[last] = if mistyped[last] == b'0' { b'1' } else { b'0' };
    let error = lab.join(place, &String::from_utf8(mistyped).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("mistyped"), "{error}");

    let other = Lab::managers(1).await.nodes[0].handle.tokens().unwrap().worker;
    let error = lab.join(place, &other).await.unwrap_err();
    assert!(error.to_string().contains("root"), "{error}");
    // Nothing was left behind: the right token still works.
    lab.join(place, &good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_rotated_token_admits_and_the_one_before_does_not_whoever_leads() {
    let mut lab = Lab::managers(3).await;
    let before = lab.nodes[0].handle.tokens().unwrap();
    let mut request = v1::RotateJoinTokenRequest::default();
    request.set_role(v1::Role::Worker);
    let rotated = lab.nodes[2].handle.rotate_token(request.clone()).await.unwrap().token;
    assert_ne!(rotated, before.worker);

    // Whichever manager led, a third of them is gone now.
    lab.nodes[0].stop().await;
    let worker = lab.start().await;
    let join = |token: String| {
        let remotes = lab.nodes[1..3].iter().map(|node| node.address.to_string()).collect();
        lab.nodes[worker].handle.join(v1::JoinClusterRequest { token, remotes })
    };
    let refused = until("the managers have a leader", || async {
        let error = join(before.worker.clone()).await.unwrap_err().to_string();
        (!error.contains("no manager leads")).then_some(error)
    });
    let refused = refused.await;
    assert!(refused.contains("its secret was rotated out"), "{refused}");
    assert_eq!(join(rotated).await.unwrap().role(), v1::Role::Worker);
    let tokens = lab.nodes[1].handle.tokens().unwrap();
    assert_eq!(tokens.manager, before.manager);
    // Only managers rotate.
    let error = lab.nodes[worker].handle.rotate_token(request).await.unwrap_err();
    assert!(error.to_string().contains("ask a manager"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_node_is_in_one_cluster() {
    let lab = Lab::managers(1).await;
    let again = lab.nodes[0].handle.init(v1::InitClusterRequest::default()).await;
    assert!(again.unwrap_err().to_string().contains("already"));
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_managers_restart_with_their_state() {
    let mut lab = Lab::managers(3).await;
    all_alive(&lab).await;
    for place in 0..3 {
        lab.nodes[place].restart().await;
        all_alive(&lab).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_a_manager_makes_a_damaged_view_anew_from_its_state() {
    let mut lab = Lab::managers(2).await;
    lab.nodes[1].stop().await;
    lab.nodes[1].damage("view");
    lab.nodes[1].restart().await;
    all_alive(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_certificate_is_renewed_while_its_connections_are_in_use() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    all_alive(&lab).await;

    let mut watcher = WatcherClient::new(lab.nodes[worker].handle.managers().await.unwrap());
    let mut changes = watcher.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    for node in &lab.nodes {
        let before = node.file("node");
        node.handle.renew().await.unwrap();
        assert_ne!(node.file("node"), before);
    }
    let mut client = NetworksClient::new(lab.nodes[worker].channel().await);
    let spec = v1::NetworkSpec { name: "after".to_owned(), ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    let created = client.create_network(request).await.unwrap().into_inner().network.unwrap();
    // The watch that began before is the one that tells.
    let revision = created.meta.unwrap().changed_at;
    while changes.message().await.unwrap().expect("the watch goes on").revision < revision {}

    for place in 0..lab.nodes.len() {
        lab.nodes[place].restart().await;
    }
    all_alive(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_leader_sends_its_log_with_its_new_certificate() {
    let lab = Lab::managers(2).await;
    all_alive(&lab).await;
    let leads = |place: &usize| {
        lab.nodes[*place].handle.figures().ok().flatten().is_some_and(|figures| figures.leads)
    };
    let leader = until("one leads", || async { (0..2).find(leads) }).await;
    // A manager watches itself: nothing but raft connects from one to the other.
    let handshakes = async || {
        let name = "overlay_control_handshakes_total{outcome=\"completed\"}";
        value(&scrape(&lab.nodes[1 - leader]).await, name).unwrap()
    };
    let made = handshakes().await;
    lab.nodes[leader].handle.renew().await.unwrap();
    until("the leader connects again", || async { (handshakes().await > made).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_node_watches_with_its_new_certificate_before_the_old_one_ends() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    all_alive(&lab).await;
    let figure = async |name: &str| value(&scrape(&lab.nodes[0]).await, name).unwrap();
    let handshakes = "overlay_control_handshakes_total{outcome=\"completed\"}";
    let (made, watches) = (figure(handshakes).await, figure("overlay_watches").await);
    lab.nodes[worker].handle.renew().await.unwrap();
    until("the node watches over a new connection", || async {
        let again = figure("overlay_watches").await == watches;
        (again && figure(handshakes).await > made).then_some(())
    })
    .await;
}
