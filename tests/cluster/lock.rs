//! Autolock: managers that need a key to start (case 14 of Docker's suites).

use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, local_node_client::LocalNodeClient, networks_client::NetworksClient,
        nodes_client::NodesClient,
    },
};
use overlay_cluster::ca::{JoinToken, unlock_key};
use overlayd::NodeError;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::lab::{Lab, LabNode, until};

/// A cluster whose managers are locked, and its unlock key.
async fn locked(managers: usize) -> (Lab, String) {
    let mut lab = Lab::new();
    let first = lab.start().await;
    let request = v1::InitClusterRequest { autolock: true, ..Default::default() };
    let made = lab.nodes[first].handle.init(request).await.unwrap();
    for _ in 1..managers {
        let place = lab.start().await;
        lab.join(place, &made.manager_token).await.unwrap();
    }
    (lab, made.unlock_key)
}

async fn local(node: &LabNode) -> LocalNodeClient<Channel> {
    LocalNodeClient::new(node.channel().await)
}

async fn unlock(node: &LabNode, key: &str) -> Result<(), tonic::Status> {
    let request = v1::UnlockClusterRequest { unlock_key: key.to_owned() };
    local(node).await.unlock_cluster(request).await.map(drop)
}

/// Writes something, through the node's socket.
async fn write(node: &LabNode, name: &str) -> Result<(), tonic::Status> {
    let spec = v1::NetworkSpec { name: name.to_owned(), ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    NetworksClient::new(node.channel().await).create_network(request).await.map(drop)
}

/// Starts a node that waits for the unlock key.
async fn start_locked(node: &mut LabNode) {
    node.launch().await;
    until("the node knows that it is locked", || async { node.handle.is_locked().then_some(()) })
        .await;
}

/// Waits until the data key of a node is kept in another way than before.
async fn until_kept_anew(node: &LabNode, before: &[u8]) {
    until("the data key is kept anew", || async {
        (node.file("data-key") != before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_a_locked_manager_waits_for_the_unlock_key() {
    let (mut lab, key) = locked(1).await;
    write(&lab.nodes[0], "before").await.unwrap();
    let node = &mut lab.nodes[0];
    start_locked(node).await;

    let status = local(node).await.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    assert!(status.locked && status.cluster.is_empty());
    let mut health = HealthClient::new(node.channel().await);
    let asked = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(asked.status(), tonic_health::pb::health_check_response::ServingStatus::NotServing);
    for refused in [
        write(node, "locked").await.unwrap_err(),
        node.handle.init(v1::InitClusterRequest::default()).await.unwrap_err().into(),
        node.handle.tokens().unwrap_err().into(),
        NodesClient::new(node.channel().await)
            .list_nodes(v1::ListNodesRequest::default())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, Some(Reason::Locked))
        );
        assert!(refused.message().contains("overlayctl unlock"), "{refused}");
    }
    let other = unlock_key::to_text(&unlock_key::generate().unwrap());
    for wrong in [other.as_str(), &key[..key.len() - 1], ""] {
        let refused = unlock(node, wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(node.handle.is_locked());
    }

    unlock(node, &key).await.unwrap();
    write(node, "after").await.unwrap();
    assert!(write(node, "before").await.unwrap_err().message().contains("exists already"));
    let again = unlock(node, &key).await.unwrap_err();
    assert_eq!(reason(&again), Some(Reason::NotLocked));
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_nothing_secret_is_in_clear_on_the_disk_of_a_locked_manager() {
    let (mut lab, key) = locked(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let secret = token.parse::<JoinToken>().unwrap().secret().expose().to_vec();
    let gossip = lab.nodes[0].handle.view(|view| view.gossip_keys().unwrap().keys[0].key).unwrap();
    let unlock = unlock_key::parse(&key).unwrap();
    // The view is kept when the node stops.
    lab.nodes[0].stop().await;
    let files = lab.nodes[0].files();
    assert!(files.len() >= 4);
    for clear in [&secret[..], &gossip, unlock.as_bytes(), b"PRIVATE KEY", token.as_bytes()] {
        assert!(!files.iter().any(|file| file.windows(clear.len()).any(|part| part == clear)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_a_rotated_unlock_key_replaces_the_one_before_on_every_manager() {
    let (mut lab, first) = locked(3).await;
    let before: Vec<_> = lab.nodes.iter().map(|node| node.file("data-key")).collect();
    let request = v1::RotateUnlockKeyRequest::default();
    let second = lab.nodes[1].handle.rotate_unlock_key(request).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(lab.nodes[0].handle.unlock_key().await.unwrap(), second);
    for (node, before) in lab.nodes.iter().zip(&before) {
        until_kept_anew(node, before).await;
    }
    for node in &mut lab.nodes {
        start_locked(node).await;
        let refused = unlock(node, &first).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        unlock(node, &second).await.unwrap();
    }
    write(&lab.nodes[0], "after").await.unwrap();
}

/// A manager that was down knows the key that it was locked with, and takes the new one then.
#[tokio::test(flavor = "multi_thread")]
async fn c05_a_manager_that_was_down_opens_with_the_key_before() {
    let (mut lab, first) = locked(3).await;
    lab.nodes[2].stop().await;
    let before = lab.nodes[2].file("data-key");
    let request = v1::RotateUnlockKeyRequest::default();
    let second = lab.nodes[0].handle.rotate_unlock_key(request).await.unwrap();
    let node = &mut lab.nodes[2];
    start_locked(node).await;
    unlock(node, &second).await.unwrap_err();
    unlock(node, &first).await.unwrap();
    until_kept_anew(node, &before).await;
    start_locked(node).await;
    unlock(node, &first).await.unwrap_err();
    unlock(node, &second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_autolock_is_switched_on_and_off() {
    let mut lab = Lab::managers(1).await;
    let node = &mut lab.nodes[0];
    assert_eq!(node.handle.unlock_key().await.unwrap(), "");
    let refused = node.handle.rotate_unlock_key(v1::RotateUnlockKeyRequest::default()).await;
    assert!(
        matches!(refused, Err(NodeError::Refused(status)) if reason(&status) == Some(Reason::NotLocked))
    );

    let autolock = |on| v1::UpdateClusterRequest { autolock: Some(on), ..Default::default() };
    let update =
        async |node: &LabNode, request| node.handle.update(request).await.unwrap().unlock_key;
    let key = update(node, autolock(true)).await;
    assert_eq!(update(node, autolock(true)).await, key);
    assert_eq!(update(node, v1::UpdateClusterRequest::default()).await, key);
    start_locked(node).await;
    unlock(node, &key).await.unwrap();
    assert_eq!(update(node, autolock(false)).await, "");
    node.restart().await;
    write(node, "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c05_workers_start_without_a_key_and_demoted_managers_too() {
    let (mut lab, _) = locked(1).await;
    let tokens = lab.nodes[0].handle.tokens().unwrap();
    for token in [tokens.worker, tokens.manager] {
        let place = lab.start().await;
        lab.join(place, &token).await.unwrap();
    }
    lab.nodes[1].restart().await;
    let node = lab.nodes[2].handle.node().unwrap().to_string();
    let demoted = until("gossip knows all managers", || async {
        let mut nodes = NodesClient::new(lab.nodes[0].channel().await);
        let request = v1::GetNodeRequest { node: node.clone(), consistency: None };
        let known = nodes.get_node(request).await.ok()?.into_inner().node?.node?;
        let request = v1::UpdateNodeRequest {
            node: node.clone(),
            role: v1::Role::Worker.into(),
            availability: known.availability,
            changed_at: known.meta?.changed_at,
            ..Default::default()
        };
        nodes.update_node(request).await.ok()
    });
    demoted.await;
    until("it is a worker", || async { (!lab.nodes[2].has("state")).then_some(()) }).await;
    until("it can be opened", || async { lab.nodes[2].handle.tokens().err() }).await;
    lab.nodes[2].restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c07_a_locked_manager_leaves_with_force_only() {
    let (mut lab, _) = locked(1).await;
    let node = &mut lab.nodes[0];
    start_locked(node).await;
    let refused = node.handle.leave(v1::LeaveClusterRequest { force: false }).await.unwrap_err();
    assert!(matches!(refused, NodeError::Locked), "{refused}");
    node.handle.leave(v1::LeaveClusterRequest { force: true }).await.unwrap();
    for file in ["node", "view", "state", "data-key"] {
        assert!(!node.has(file), "{file}");
    }
    node.handle.init(v1::InitClusterRequest::default()).await.unwrap();
}
