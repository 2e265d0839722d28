//! Releases that differ.

use overlay_types::{FeatureLevel, Node};

use super::*;

fn at(number: u128, level: FeatureLevel) -> Node {
    let mut node = node(number);
    node.capabilities.level = level;
    node
}

/// Two nodes of a release from before the first level.
fn old() -> Lab {
    let mut lab = Lab::blank();
    let first = at(1, FeatureLevel::NONE);
    lab.run(Action::InitCluster(Box::new(InitCluster { node: first, ..init(cluster()) })));
    lab.run(Action::JoinNode(Node { role: Role::Worker, ..at(2, FeatureLevel::NONE) }));
    lab
}

fn announce(number: u128) -> Action {
    Action::AnnounceLevel { node: NodeId::from_u128(number), level: FeatureLevel::OURS }
}

fn level(lab: &Lab) -> FeatureLevel {
    lab.state.view().cluster().unwrap().level
}

#[test]
fn r08_what_some_node_would_not_understand_waits_for_it() {
    let mut lab = old();
    let create = lab.create_network(net("a"));
    let refusal = lab.refuse(create.clone());
    assert_eq!(refusal.code(), "FEATURE_LEVEL");
    assert!(refusal.to_string().contains("node1, node2"), "{refusal}");

    lab.run(announce(1));
    assert_eq!(level(&lab), FeatureLevel::NONE);
    let refusal = lab.refuse(create.clone()).to_string();
    assert!(refusal.contains("because of node2;"), "{refusal}");

    lab.run(announce(2));
    assert_eq!(level(&lab), FeatureLevel::OURS);
    lab.run(create);
    // It says so again after each start.
    assert_eq!(lab.apply(announce(2)).unwrap().changes, []);
}

#[test]
fn r08_a_node_that_is_gone_holds_nothing_up() {
    let mut lab = old();
    lab.run(announce(1));
    lab.run(Action::RemoveNode(NodeId::from_u128(2)));
    assert_eq!(level(&lab), FeatureLevel::OURS);
}

#[test]
fn r08_a_node_of_an_older_release_is_not_let_in() {
    let mut lab = Lab::new();
    let refusal = lab.refuse(Action::JoinNode(at(3, FeatureLevel::NONE)));
    assert_eq!((refusal.code(), refusal.field()), ("FEATURE_LEVEL", Some("level")));
    assert!(refusal.to_string().contains("node3"), "{refusal}");
    // Nor one that was let in, and comes back with an older one.
    let node = NodeId::from_u128(2);
    let refusal = lab.refuse(Action::AnnounceLevel { node, level: FeatureLevel::NONE });
    assert_eq!(refusal.code(), "FEATURE_LEVEL");
    // One of a newer release is, and changes nothing for the others.
    lab.run(Action::JoinNode(at(3, FeatureLevel::new(7))));
    assert_eq!(level(&lab), FeatureLevel::OURS);
}

#[test]
fn c12_a_removal_that_is_repeated_is_answered_again() {
    let mut lab = old();
    let action = Action::RemoveNode(NodeId::from_u128(2));
    let command = Command { request: RequestId::from_u128(5), at: lab.now, action };
    let first = lab.state.apply(&command).unwrap();
    let again = lab.state.apply(&command).unwrap();
    assert_eq!((again.response, again.changes), (first.response, vec![]));
}
