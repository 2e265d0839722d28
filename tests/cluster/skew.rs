//! Nodes of releases one minor version apart.

use overlay_api::{
    internal::v1::{self as internal, raft_client::RaftClient},
    status::{Reason, reason},
    v1::{self, nodes_client::NodesClient, reports_client::ReportsClient},
};
use overlay_types::{FeatureLevel, RequestId};
use prost::Message;
use tonic::Code;

use crate::lab::{Lab, LabNode};

async fn node_of(node: &LabNode) -> v1::Node {
    let mut client = NodesClient::new(node.channel().await);
    let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    nodes.nodes[0].node.clone().unwrap()
}

/// Field 999 of a newer release, a string, in the spec of a network.
fn newer_command() -> Vec<u8> {
    let spec = v1::NetworkSpec { name: "newer".into(), attachable: true, ..Default::default() };
    let spec = [spec.encode_to_vec(), vec![0xba, 0x3e, 1, b'x']].concat();
    assert!(v1::NetworkSpec::decode(spec.as_slice()).is_ok(), "an old decoder drops the field");
    let message = |number: u8, content: &[u8]| {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let id = overlay_types::NetworkId::from_u128(7).to_string();
    let create = [message(1, id.as_bytes()), message(2, &spec)].concat();
    let request = RequestId::from_u128(9).to_string();
    [message(1, request.as_bytes()), vec![2 << 3, 5], message(6, &create)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_a_command_that_the_leader_does_not_know_all_of_is_refused() {
    let lab = Lab::managers(1).await;
    let node = &lab.nodes[0];
    let mut client = RaftClient::new(node.handle.managers().await.unwrap());
    let command = newer_command();
    let known = internal::Command::decode(command.as_slice()).unwrap();
    let request = internal::ProposeRequest { command };
    let refused = client.propose(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("newer release"), "{refused}");
    let names = node.handle.view(|view| view.networks().len()).unwrap();
    assert_eq!(names, 1, "only ingress");
    // It was only the field.
    let request = internal::ProposeRequest { command: known.encode_to_vec() };
    client.propose(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_a_node_that_knows_less_than_the_cluster_is_refused_and_one_that_knows_more_is_not() {
    let lab = Lab::managers(1).await;
    let node = &lab.nodes[0];
    let known = node_of(node).await;
    assert_eq!(known.capabilities.unwrap().level, FeatureLevel::OURS.get());
    let mut client = ReportsClient::new(node.handle.managers().await.unwrap());
    let mut announce = async |level: u32| {
        let request = v1::AnnounceLevelRequest { node: known.id.clone(), level };
        client.announce_level(request).await
    };
    let refused = announce(FeatureLevel::OURS.get() - 1).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, Some(Reason::FeatureLevel))
    );
    announce(FeatureLevel::OURS.get() + 1).await.unwrap();
    let newer = node_of(node).await.capabilities.unwrap().level;
    assert_eq!(newer, FeatureLevel::OURS.get() + 1);
}
