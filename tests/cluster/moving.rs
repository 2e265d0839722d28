//! Nodes that come back at other addresses.

mod wire;

use core::net::IpAddr;

use overlay_api::v1::{self, networks_client::NetworksClient, nodes_client::NodesClient};
use overlay_types::{NodeId, View};

use self::wire::Wires;
use crate::lab::{Lab, until};

/// Networks that traffic is tried on.
const NETWORKS: [&str; 2] = ["plain", "sealed"];

async fn create_network(lab: &Lab, asked: usize, name: &str) -> Result<(), tonic::Status> {
    let spec = v1::NetworkSpec {
        name: name.to_owned(),
        attachable: true,
        encrypted: name == "sealed",
        ..Default::default()
    };
    let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
    NetworksClient::new(lab.nodes[asked].channel().await).create_network(request).await.map(drop)
}

/// Managers, then workers, with an endpoint of each on a plain and on an encrypted network.
async fn stage(managers: usize, workers: usize) -> (Lab, Wires) {
    let mut lab = Lab::managers(managers).await;
    let token = lab.nodes[0].handle.tokens().unwrap().worker;
    for _ in 0..workers {
        let place = lab.start().await;
        lab.join(place, &token).await.unwrap();
    }
    for network in NETWORKS {
        create_network(&lab, 0, network).await.unwrap();
    }
    let mut wires = Wires::attach(&lab, &NETWORKS).await;
    wires.carry_all().await;
    (lab, wires)
}

/// Waits until every node knows every node where it is.
async fn until_known(lab: &Lab) {
    let places: Vec<(NodeId, IpAddr)> =
        lab.nodes.iter().map(|node| (node.handle.node().unwrap(), node.address)).collect();
    let known = |view: &View| {
        places.iter().all(|(id, address)| {
            let node = view.nodes().get(id);
            node.is_some_and(|node| {
                [node.control.ip(), node.gossip.ip(), node.data_path] == [*address; 3]
            })
        })
    };
    for node in &lab.nodes {
        let what = format!("the node at {} knows where all are", node.address);
        until(&what, || async { node.handle.view(known).ok()?.then_some(()) }).await;
    }
}

/// These nodes stop, start at other addresses, and are found there, with what is plugged into them.
async fn move_at_once(lab: &mut Lab, wires: &mut Wires, moves: &[(usize, IpAddr)]) {
    for (place, _) in moves {
        lab.nodes[*place].stop().await;
    }
    for (place, address) in moves {
        lab.nodes[*place].move_to(*address);
    }
    for (place, _) in moves {
        lab.nodes[*place].restart().await;
    }
    until_known(lab).await;
    for (place, _) in moves {
        wires.replug(lab, *place).await;
    }
    wires.carry_all().await;
}

/// Writes through a node until that works.
async fn until_written(lab: &Lab, asked: usize, name: &str) {
    until("a write goes through", || async { create_network(lab, asked, name).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_worker_that_moved_carries_traffic_again() {
    let (mut lab, mut wires) = stage(1, 2).await;
    let before = lab.nodes[2].handle.node().unwrap();
    let address = lab.spare_address(0);
    lab.nodes[2].move_to(address);
    lab.nodes[2].restart().await;
    until_known(&lab).await;
    assert_eq!(lab.nodes[2].handle.node().unwrap(), before);
    wires.replug(&lab, 2).await;
    wires.carry_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_the_only_manager_moves() {
    let (mut lab, mut wires) = stage(1, 1).await;
    let address = lab.spare_address(0);
    lab.nodes[0].move_to(address);
    lab.nodes[0].restart().await;
    until_known(&lab).await;
    for asked in 0..2 {
        until_written(&lab, asked, &format!("later{asked}")).await;
    }
    wires.replug(&lab, 0).await;
    wires.carry_all().await;
}

async fn leader(lab: &Lab) -> usize {
    until("a manager leads", || async {
        let mut client = NodesClient::new(lab.nodes[0].channel().await);
        let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.ok()?.into_inner();
        let leader = nodes.nodes.into_iter().find(|status| status.leader)?.node?;
        let is_it = |node: &crate::lab::LabNode| {
            node.handle.node().is_ok_and(|id| id.to_string() == leader.id)
        };
        lab.nodes.iter().position(is_it)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_the_leader_moves_and_counts_as_a_manager_again() {
    let (mut lab, mut wires) = stage(3, 0).await;
    let moved = leader(&lab).await;
    // It says no word to the others.
    lab.nodes[moved].handle.halt().await;
    let address = lab.spare_address(0);
    lab.nodes[moved].move_to(address);
    lab.nodes[moved].restart().await;
    until_known(&lab).await;
    wires.replug(&lab, moved).await;
    wires.carry_all().await;
    // Without one of the others it is needed.
    let stopped = (moved + 1) % 3;
    lab.nodes[stopped].stop().await;
    until_written(&lab, moved, "later").await;
    lab.nodes[stopped].restart().await;
    until_written(&lab, stopped, "latest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_a_majority_of_managers_moves_at_once() {
    let (mut lab, mut wires) = stage(3, 0).await;
    let moves = [0, 1].map(|place| (place, lab.spare_address(place as u8)));
    move_at_once(&mut lab, &mut wires, &moves).await;
    // The two that moved are a majority.
    lab.nodes[2].stop().await;
    until_written(&lab, 0, "later").await;
}

/// All managers move; only a worker is left where it was.
#[tokio::test(flavor = "multi_thread")]
async fn r04_all_managers_move_and_find_each_other_through_a_worker() {
    let (mut lab, mut wires) = stage(3, 1).await;
    let moves = [0, 1, 2].map(|place| (place, lab.spare_address(place as u8)));
    move_at_once(&mut lab, &mut wires, &moves).await;
    until_written(&lab, 3, "later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_a_worker_that_moved_without_managers_is_known_when_they_are_back() {
    let (mut lab, mut wires) = stage(1, 1).await;
    lab.nodes[0].stop().await;
    let address = lab.spare_address(0);
    lab.nodes[1].move_to(address);
    lab.nodes[1].restart().await;
    lab.nodes[0].restart().await;
    until_known(&lab).await;
    for place in 0..2 {
        wires.replug(&lab, place).await;
    }
    wires.carry_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_a_node_takes_over_the_address_of_one_that_moved() {
    let (mut lab, mut wires) = stage(1, 2).await;
    let (first, second) = (lab.nodes[1].address, lab.nodes[2].address);
    lab.nodes[1].stop().await;
    lab.nodes[2].move_to(first);
    lab.nodes[2].restart().await;
    let (displaced, manager) = (wires.node(1), &lab.nodes[0].handle);
    until("the one that is away has lost its address", || async {
        let nowhere = |view: &View| view.nodes()[&displaced].data_path.is_unspecified();
        manager.view(nowhere).ok()?.then_some(())
    })
    .await;
    // What is for the one does not reach the other, and the others go on.
    wires.replug(&lab, 2).await;
    wires.carry(&[0, 2]).await;
    lab.nodes[1].move_to(second);
    lab.nodes[1].restart().await;
    until_known(&lab).await;
    wires.replug(&lab, 1).await;
    wires.carry_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_two_managers_change_places() {
    let (mut lab, mut wires) = stage(3, 0).await;
    let (first, second) = (lab.nodes[0].address, lab.nodes[1].address);
    move_at_once(&mut lab, &mut wires, &[(0, second), (1, first)]).await;
    for asked in 0..3 {
        until_written(&lab, asked, &format!("later{asked}")).await;
    }
}
