//! The root of the CA is replaced (C04), also repeatedly (case 17), and nobody notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use overlay_api::{
    status::{Reason, reason},
    v1::{
        self, ca_client::CaClient, networks_client::NetworksClient, nodes_client::NodesClient,
        watcher_client::WatcherClient,
    },
};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::{
    lab::{Lab, LabNode, until},
    metrics::{scrape, value},
};

async fn ca(node: &LabNode) -> CaClient<Channel> {
    CaClient::new(node.channel().await)
}

/// Begins a rotation. Returns the digest of the new root.
async fn rotate(node: &LabNode) -> String {
    let rotated = ca(node).await.rotate_ca(v1::RotateCaRequest::default()).await.unwrap();
    rotated.into_inner().root.unwrap().digest
}

async fn get(node: &LabNode) -> Option<v1::GetCaResponse> {
    Some(ca(node).await.get_ca(v1::GetCaRequest::default()).await.ok()?.into_inner())
}

/// Waits until the root with this digest is the only one, for every node that runs.
async fn until_ended(lab: &Lab, asked: usize, digest: &str) {
    until("the rotation ends", || async {
        let answer = get(&lab.nodes[asked]).await?;
        let root = answer.root.unwrap().digest;
        (answer.rotation.is_none() && root == digest).then_some(())
    })
    .await;
    until("no node trusts another root", || async {
        let alone = |node: &LabNode| roots(node) == 1;
        lab.nodes.iter().filter(|node| node.handle.node().is_ok()).all(alone).then_some(())
    })
    .await;
}

/// How many roots a node trusts.
fn roots(node: &LabNode) -> usize {
    node.handle.trusted_roots().unwrap().len()
}

/// Waits until the rotation waits for just these nodes.
async fn until_waiting(lab: &Lab, asked: usize, names: &[&str]) {
    until("the rotation waits for these", || async {
        let rotation = get(&lab.nodes[asked]).await?.rotation?;
        let waiting = rotation.waiting.into_iter().map(|status| status.node.unwrap().name);
        let mut waiting: Vec<String> = waiting.collect();
        waiting.sort();
        (waiting == names && rotation.waiting_count == names.len() as u64).then_some(())
    })
    .await;
}

async fn worker(lab: &mut Lab, token: &str) -> usize {
    let place = lab.start().await;
    lab.join(place, token).await.unwrap();
    place
}

/// Creates networks one after the other, until it is told to stop. Returns how many.
fn write(channel: Channel, prefix: &'static str, stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    tokio::spawn(async move {
        let mut made = 0;
        while !stop.load(Ordering::Relaxed) {
            let spec = v1::NetworkSpec { name: format!("{prefix}{made}"), ..Default::default() };
            let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
            NetworksClient::new(channel.clone()).create_network(request).await.unwrap();
            made += 1;
        }
        made
    })
}

async fn watch(channel: Channel) -> tonic::Streaming<v1::WatchResponse> {
    let watch = WatcherClient::new(channel).watch(v1::WatchRequest::default()).await;
    watch.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_the_root_is_replaced_under_watches_and_writes() {
    let mut lab = Lab::managers(3).await;
    let before = lab.nodes[0].handle.tokens().unwrap();
    let place = worker(&mut lab, &before.worker).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut watches = Vec::new();
    let mut writers = Vec::new();
    for (node, prefix) in [(&lab.nodes[1], "m"), (&lab.nodes[place], "w")] {
        watches.push(watch(node.channel().await).await);
        writers.push(write(node.channel().await, prefix, Arc::clone(&stop)));
    }
    for _ in 0..2 {
        let digest = rotate(&lab.nodes[2]).await;
        until_ended(&lab, 0, &digest).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    // The watches that began before are the ones that tell.
    let last = v1::NetworkSpec { name: "last".into(), ..Default::default() };
    let request = v1::CreateNetworkRequest { spec: Some(last), ..Default::default() };
    let mut client = NetworksClient::new(lab.nodes[0].channel().await);
    let last = client.create_network(request).await.unwrap().into_inner().network.unwrap();
    let revision = last.meta.unwrap().changed_at;
    for watch in &mut watches {
        let mut seen = 0;
        while seen < revision {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            assert!(message.revision >= seen, "a watch went back");
            seen = message.revision;
        }
    }
    // Tokens are of the new root, with the secrets that they had.
    let after = lab.nodes[1].handle.tokens().unwrap();
    assert_ne!(after.worker, before.worker);
    let joiner = lab.start().await;
    let refused = tonic::Status::from(lab.join(joiner, &before.worker).await.unwrap_err());
    assert!(refused.message().contains("rotated out"), "{refused}");
    assert_eq!(reason(&refused), Some(Reason::JoinRefused), "{refused}");
    lab.join(joiner, &after.worker).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_node_that_is_away_holds_a_rotation_up_and_gets_over_when_it_is_back() {
    let mut lab = Lab::managers(3).await;
    let before = lab.nodes[0].handle.tokens().unwrap();
    let away = worker(&mut lab, &before.worker).await;
    lab.nodes[away].stop().await;
    let digest = rotate(&lab.nodes[0]).await;
    until_waiting(&lab, 1, &["node4"]).await;
    assert!(!get(&lab.nodes[1]).await.unwrap().root.unwrap().digest.contains(&digest));
    until("it is in the figures", || async {
        let text = scrape(&lab.nodes[0]).await;
        let waits = value(&text, "overlay_root_rotation_waiting_nodes") == Some(1);
        (waits && value(&text, "overlay_root_rotation") == Some(1)).then_some(())
    })
    .await;
    // The token of the old root is good as long as it is trusted, and what it gives is of the new.
    let joined = worker(&mut lab, &before.worker).await;
    until_waiting(&lab, 0, &["node4"]).await;
    assert_eq!(roots(&lab.nodes[joined]), 2);
    // A worker's socket tells as well, and rotates nothing.
    assert!(get(&lab.nodes[joined]).await.unwrap().rotation.is_some());
    let request = v1::RotateCaRequest::default();
    let refused = ca(&lab.nodes[joined]).await.rotate_ca(request).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::NotManager));

    lab.nodes[away].restart().await;
    until_ended(&lab, 0, &digest).await;
    let after = lab.nodes[0].handle.tokens().unwrap();
    assert_ne!(after, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_node_that_will_not_come_back_is_removed_and_the_rotation_ends() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let gone = worker(&mut lab, &token).await;
    let node = lab.nodes[gone].handle.node().unwrap().to_string();
    lab.nodes[gone].stop().await;
    let digest = rotate(&lab.nodes[0]).await;
    until_waiting(&lab, 0, &["node2"]).await;
    let remove = v1::RemoveNodeRequest { node, force: true, ..Default::default() };
    NodesClient::new(lab.nodes[0].channel().await).remove_node(remove).await.unwrap();
    until("the rotation ends", || async {
        let answer = get(&lab.nodes[0]).await?;
        (answer.rotation.is_none() && answer.root?.digest == digest).then_some(())
    })
    .await;
}

/// Case 17: TestSwarmRepeatedRootRotation.
#[tokio::test(flavor = "multi_thread")]
async fn c04_a_rotation_is_begun_again_while_it_runs() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let away = worker(&mut lab, &token).await;
    let there = worker(&mut lab, &token).await;
    lab.nodes[away].stop().await;
    let mut digests = Vec::new();
    for asked in 0..3 {
        digests.push(rotate(&lab.nodes[asked]).await);
        until_waiting(&lab, 0, &["node4"]).await;
    }
    assert_eq!(roots(&lab.nodes[there]), 4);
    // It knows the first root only, and the managers present the fourth.
    lab.nodes[away].restart().await;
    until_ended(&lab, 0, &digests[2]).await;
    let token = lab.nodes[2].handle.tokens().unwrap().manager;
    worker(&mut lab, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_a_rotation_goes_on_without_the_leader_that_began_it() {
    let mut lab = Lab::managers(3).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let away = worker(&mut lab, &token).await;
    lab.nodes[away].stop().await;
    let leads = |node: &LabNode| node.handle.figures().ok().flatten().is_some_and(|f| f.leads);
    let leader = until("one leads", || async { (0..3).find(|at| leads(&lab.nodes[*at])) }).await;
    let [one, other] = [(leader + 1) % 3, (leader + 2) % 3];
    let digest = rotate(&lab.nodes[leader]).await;
    lab.nodes[leader].stop().await;
    // Whatever it has done by then, it goes on from there.
    lab.nodes[one].restart().await;
    lab.nodes[away].restart().await;
    let name = format!("node{}", leader + 1);
    until("the others are over", || async {
        let answer = get(&lab.nodes[other]).await?;
        let Some(rotation) = answer.rotation else {
            // The leader was faster than its end.
            return Some(());
        };
        let waiting = rotation.waiting.into_iter().map(|status| status.node.unwrap().name);
        (waiting.collect::<Vec<_>>() == [name.clone()]).then_some(())
    })
    .await;
    lab.nodes[leader].restart().await;
    until_ended(&lab, other, &digest).await;
    // And all of it is on the disks.
    for place in 0..lab.nodes.len() {
        lab.nodes[place].restart().await;
    }
    until_ended(&lab, one, &digest).await;
    rotate(&lab.nodes[one]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_what_a_former_root_signed_is_refused_on_connections_in_use() {
    let mut lab = Lab::managers(1).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    let place = worker(&mut lab, &token).await;
    let connected = lab.nodes[place].handle.managers().await.unwrap();
    let mut watcher = WatcherClient::new(connected.clone());
    let mut watch = watcher.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let digest = rotate(&lab.nodes[0]).await;
    until_ended(&lab, 0, &digest).await;

    let ended = loop {
        if let Err(status) = watch.message().await.map(|message| message.expect("a status")) {
            break status;
        }
    };
    assert_eq!(reason(&ended), Some(Reason::FormerRoot), "{ended}");
    let request = v1::ListNodesRequest::default();
    let refused = NodesClient::new(connected).list_nodes(request).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::FormerRoot), "{refused}");
}
