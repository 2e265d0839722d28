//! A quorum that is lost for good, backups, and what comes back from them.

use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, endpoints_client::EndpointsClient, local_node_client::LocalNodeClient,
        networks_client::NetworksClient, nodes_client::NodesClient,
    },
};
use overlayd::NodeError;
use tonic::Code;

use crate::lab::{Lab, LabNode, until};

const FORCE: v1::InitClusterRequest = v1::InitClusterRequest {
    default_pools: Vec::new(),
    vxlan_port: 0,
    rotation_period_ms: 0,
    autolock: false,
    force_new_cluster: true,
    esp_over_ip: false,
};

async fn create(node: &LabNode, name: &str) -> Result<u64, tonic::Status> {
    let spec = v1::NetworkSpec { name: name.to_owned(), attachable: true, ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    let created = NetworksClient::new(node.channel().await).create_network(request).await?;
    Ok(created.into_inner().network.unwrap().meta.unwrap().changed_at)
}

/// Names of networks that a node's manager knows.
async fn networks(node: &LabNode, consistency: Option<v1::Consistency>) -> Option<Vec<String>> {
    let mut client = NetworksClient::new(node.channel().await);
    let answer = client
        .list_networks(v1::ListNetworksRequest { consistency, ..Default::default() })
        .await
        .ok()?;
    let mut names: Vec<_> =
        answer.into_inner().networks.into_iter().map(|n| n.spec.unwrap().name).collect();
    names.sort();
    Some(names)
}

/// Names of nodes, with what gossip says of each.
async fn liveness(node: &LabNode) -> Option<Vec<(String, v1::Liveness)>> {
    let mut client = NodesClient::new(node.channel().await);
    let answer = client.list_nodes(v1::ListNodesRequest::default()).await.ok()?;
    let mut nodes: Vec<_> = answer
        .into_inner()
        .nodes
        .into_iter()
        .map(|status| (status.node.clone().unwrap().name, status.liveness()))
        .collect();
    nodes.sort();
    Some(nodes)
}

async fn until_alive(lab: &Lab, asked: usize, names: &[&str]) {
    let expected: Vec<_> =
        names.iter().map(|name| ((*name).to_owned(), v1::Liveness::Alive)).collect();
    until("just these nodes are alive", || async {
        (liveness(&lab.nodes[asked]).await.as_ref() == Some(&expected)).then_some(())
    })
    .await;
}

/// Managers and one worker, which has an endpoint on the network `net`. Returns the endpoint's id.
async fn with_worker(managers: usize) -> (Lab, String) {
    let mut lab = Lab::managers(managers).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let worker = lab.start().await;
    lab.join(worker, &token).await.unwrap();
    create(&lab.nodes[0], "net").await.unwrap();
    let spec = v1::EndpointSpec { network: "net".into(), ..Default::default() };
    let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
    let attached = lab.nodes[worker].handle.attach(request).await.unwrap();
    (lab, attached.endpoint.unwrap().id)
}

async fn endpoints(node: &LabNode) -> Vec<String> {
    let mut client = EndpointsClient::new(node.channel().await);
    let answer = client.list_endpoints(v1::ListEndpointsRequest::default()).await.unwrap();
    answer.into_inner().endpoints.into_iter().map(|endpoint| endpoint.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_survivor_goes_on_alone_and_keeps_what_was_acknowledged() {
    let (mut lab, endpoint) = with_worker(3).await;
    until_alive(&lab, 0, &["node1", "node2", "node3", "node4"]).await;
    for name in ["a", "b", "c"] {
        create(&lab.nodes[0], name).await.unwrap();
    }
    until("the survivor has it all", || async {
        let stale = Some(v1::Consistency { stale: true });
        let known = networks(&lab.nodes[2], stale).await?;
        (known == ["a", "b", "c", "ingress", "net"]).then_some(())
    })
    .await;
    for lost in [0, 1] {
        lab.nodes[lost].handle.halt().await;
        lab.nodes[lost].stop().await;
    }
    let refused = create(&lab.nodes[2], "lost").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");

    let made = lab.nodes[2].handle.init(FORCE).await.unwrap();
    assert!(made.worker_token.starts_with("OVTKN-1-"));
    create(&lab.nodes[2], "after").await.unwrap();
    let names = networks(&lab.nodes[2], None).await.unwrap();
    for name in ["a", "b", "c", "net", "ingress", "after"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    // The worker finds it by itself, endpoint and all.
    until_alive(&lab, 2, &["node3", "node4"]).await;
    assert_eq!(endpoints(&lab.nodes[2]).await, [endpoint]);
    until("the worker sees what is new", || async {
        let knows = |view: &overlay_types::View| view.cluster().unwrap().removed_nodes.len();
        (lab.nodes[3].handle.view(knows).ok() == Some(2)).then_some(())
    })
    .await;

    // It is the only manager after a restart, too.
    lab.nodes[2].restart().await;
    until("it leads", || async { create(&lab.nodes[2], "again").await.ok() }).await;

    // Who was lost is listened to by nobody, and joins again.
    lab.nodes[1].launch().await;
    let refused = create(&lab.nodes[1], "split").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    lab.nodes[1].handle.leave(v1::LeaveClusterRequest { force: true }).await.unwrap();
    let remotes = vec![lab.nodes[2].address.to_string()];
    let request = v1::JoinClusterRequest { token: made.manager_token, remotes };
    lab.nodes[1].handle.join(request).await.unwrap();
    create(&lab.nodes[1], "whole").await.unwrap();
    assert!(!networks(&lab.nodes[2], None).await.unwrap().contains(&"split".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_going_on_alone_is_refused_where_it_is_not_the_remedy() {
    let (mut lab, _) = with_worker(2).await;
    let blank = lab.start().await;
    for (place, expected) in
        [(0, Reason::Quorum), (2, Reason::NotManager), (blank, Reason::NoCluster)]
    {
        let refused = tonic::Status::from(lab.nodes[place].handle.init(FORCE).await.unwrap_err());
        assert_eq!(reason(&refused), Some(expected), "{refused}");
    }
    create(&lab.nodes[1], "still").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_cluster_comes_back_from_a_backup_with_its_workers() {
    let (mut lab, endpoint) = with_worker(1).await;
    create(&lab.nodes[0], "kept").await.unwrap();
    let file = lab.nodes[0].handle.back_up("correct horse".to_owned()).await.unwrap();
    // Written after the backup, and seen by the worker.
    let lost = create(&lab.nodes[0], "lost").await.unwrap();
    until("the worker has seen it", || async {
        let revision = lab.nodes[1].handle.view(|view| view.revision().get()).ok()?;
        (revision >= lost).then_some(())
    })
    .await;
    let cluster = lab.nodes[0].handle.view(|view| view.cluster().unwrap().id).unwrap();

    lab.nodes[0].replace().await;
    let first = &lab.nodes[0];
    for (file, passphrase) in
        [(file.clone(), "wrong"), (file[..file.len() - 1].to_vec(), "correct horse")]
    {
        let refused = first.handle.restore(file, passphrase.to_owned()).await.unwrap_err();
        assert!(matches!(refused, NodeError::Backup(_)), "{refused}");
        assert!(!first.has("state") && !first.has("data-key"));
    }
    let passphrase = "correct horse".to_owned();
    let restored = first.handle.restore(file.clone(), passphrase.clone()).await.unwrap();
    assert_eq!(restored.cluster, cluster.to_string());
    let again = first.handle.restore(file, passphrase).await.unwrap_err();
    assert!(matches!(again, NodeError::InCluster(_)), "{again}");

    assert_eq!(networks(first, None).await.unwrap(), ["ingress", "kept", "net"]);
    until_alive(&lab, 0, &["node1", "node2"]).await;
    assert_eq!(endpoints(&lab.nodes[0]).await, [endpoint]);
    // The worker forgets what was lost, and writes.
    until("the worker follows the restored state", || async {
        let view = lab.nodes[1].handle.view(Clone::clone).ok()?;
        (view.revision().get() > lost).then_some(())
    })
    .await;
    create(&lab.nodes[1], "after").await.unwrap();
    lab.nodes[0].restart().await;
    until("it leads", || async { create(&lab.nodes[0], "again").await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_backup_is_restored_elsewhere_without_the_managers_that_were() {
    let (mut lab, _) = with_worker(3).await;
    let file = lab.nodes[1].handle.back_up("x".to_owned()).await.unwrap();
    let refused = lab.nodes[3].handle.back_up("x".to_owned()).await.unwrap_err();
    assert_eq!(reason(&tonic::Status::from(refused)), Some(Reason::NotManager));
    for node in &mut lab.nodes {
        node.stop().await;
    }
    let place = lab.start().await;
    let restored = lab.nodes[place].handle.restore(file, "x".to_owned()).await.unwrap();
    let names: Vec<_> = liveness(&lab.nodes[place]).await.unwrap();
    let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["node4", "node5"]);

    // A manager that was joins as a new node.
    lab.nodes[0].restart().await;
    lab.nodes[0].handle.leave(v1::LeaveClusterRequest { force: true }).await.unwrap();
    let remotes = vec![lab.nodes[place].address.to_string()];
    let request = v1::JoinClusterRequest { token: restored.manager_token, remotes };
    lab.nodes[0].handle.join(request).await.unwrap();
    create(&lab.nodes[0], "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_backup_goes_through_the_socket_piece_by_piece() {
    let mut lab = Lab::managers(1).await;
    let mut local = LocalNodeClient::new(lab.nodes[0].channel().await);
    let request = v1::BackupClusterRequest { passphrase: "x".into() };
    let mut pieces = local.backup_cluster(request).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        file.extend(piece.data);
    }
    lab.nodes[0].replace().await;
    let first = v1::RestoreClusterRequest { passphrase: "x".into(), data: Vec::new() };
    let rest = file.chunks(500).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter();
    let rest = rest.map(|data| v1::RestoreClusterRequest { data, ..Default::default() });
    let messages = futures::stream::iter(core::iter::once(first).chain(rest));
    let mut local = LocalNodeClient::new(lab.nodes[0].channel().await);
    let restored = local.restore_cluster(messages).await.unwrap().into_inner();
    let token: overlay_cluster::ca::JoinToken = restored.worker_token.parse().unwrap();
    assert_eq!(lab.nodes[0].handle.tokens().unwrap().worker, token.to_text().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_locked_cluster_is_restored_locked() {
    let mut lab = Lab::new();
    lab.start().await;
    let request = v1::InitClusterRequest { autolock: true, ..Default::default() };
    let made = lab.nodes[0].handle.init(request).await.unwrap();
    let file = lab.nodes[0].handle.back_up("x".to_owned()).await.unwrap();
    lab.nodes[0].replace().await;
    lab.nodes[0].handle.restore(file, "x".to_owned()).await.unwrap();
    lab.nodes[0].launch().await;
    until("it is locked", || async { lab.nodes[0].handle.is_locked().then_some(()) }).await;
    lab.nodes[0].handle.unlock(&made.unlock_key).await.unwrap();
    create(&lab.nodes[0], "after").await.unwrap();
}
