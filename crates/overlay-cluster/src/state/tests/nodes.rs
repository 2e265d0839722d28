//! Nodes: joining, changing, removing.

use overlay_types::{Availability, Node, NodeId, Revision, Role};

use super::*;

fn update(lab: &Lab, id: u128, change: impl FnOnce(&mut Node)) -> Action {
    let mut node = lab.state.view().nodes()[&NodeId::from_u128(id)].clone();
    let based_on = node.meta.changed_at;
    change(&mut node);
    Action::UpdateNode { node, based_on }
}

/// Node 1 is a manager, node 2 a worker.
fn with_a_worker() -> Lab {
    let mut lab = Lab::new();
    let demote = update(&lab, 2, |node| node.role = Role::Worker);
    lab.run(demote);
    lab
}

#[test]
fn c06_the_last_manager_stays_one() {
    let mut lab = with_a_worker();
    let demote = update(&lab, 1, |node| node.role = Role::Worker);
    let refusal = lab.refuse(demote);
    assert_eq!((refusal.code(), refusal.field()), ("LAST_MANAGER", Some("role")));
    let promote = update(&lab, 2, |node| node.role = Role::Manager);
    lab.run(promote);
    let demote = update(&lab, 1, |node| node.role = Role::Worker);
    lab.run(demote);
    let demote = update(&lab, 2, |node| node.role = Role::Worker);
    assert_eq!(lab.refuse(demote).code(), "LAST_MANAGER");
}

#[test]
fn c06_a_node_says_since_when_it_has_its_role() {
    let mut lab = Lab::new();
    let since = |lab: &Lab, id: u128| lab.state.view().nodes()[&NodeId::from_u128(id)].role_since;
    assert_eq!(since(&lab, 1), Revision::new(1));
    let (_, joined) = (lab.run(Action::JoinNode(node(7))), lab.state.revision());
    assert_eq!(since(&lab, 7), joined);
    // Nobody can say otherwise, and other changes leave it.
    let claim = update(&lab, 7, |node| {
        node.role_since = Revision::new(u64::MAX);
        node.availability = Availability::Pause;
    });
    lab.run(claim);
    lab.run(Action::JoinNode(Node { name: "other".parse().unwrap(), ..node(7) }));
    assert_eq!(since(&lab, 7), joined);
    for role in [Role::Worker, Role::Manager] {
        let change = update(&lab, 7, |node| node.role = role);
        lab.run(change);
        assert_eq!(since(&lab, 7), lab.state.revision());
    }
}

#[test]
fn c06_a_node_goes_with_all_that_is_on_it() {
    let mut lab = with_a_worker();
    let network = lab.network(net("a"));
    let (stays, goes) =
        (lab.endpoint(standalone(&network, 1)), lab.endpoint(standalone(&network, 2)));
    let epoch = *lab.state.view().key_epochs().keys().next().unwrap();
    for node in [1, 2].map(NodeId::from_u128) {
        lab.run(Action::PublishNodeKey { node, epoch, public: [node.to_u128() as u8; 32] });
    }
    let free = |lab: &Lab| lab.state.usage(network.id).unwrap()[0].used;
    assert_eq!(free(&lab), 2);

    let removed = NodeId::from_u128(2);
    lab.run(Action::RemoveNode(removed));
    let view = lab.state.view();
    assert!(!view.nodes().contains_key(&removed));
    assert!(view.endpoints().contains_key(&stays.id) && !view.endpoints().contains_key(&goes.id));
    assert!(view.node_keys().keys().all(|(_, node)| *node != removed));
    assert!(view.cluster().unwrap().removed_nodes.contains_key(&removed));
    assert_eq!(free(&lab), 1);
    // It cannot come back as who it was.
    let refusal = lab.refuse(Action::JoinNode(node(2)));
    assert_eq!((refusal.code(), refusal.field()), ("INVALID_ARGUMENT", Some("node")));
    assert_eq!(lab.refuse(Action::RemoveNode(removed)).code(), "NOT_FOUND");
    assert_eq!(lab.refuse(Action::RemoveNode(NodeId::from_u128(1))).code(), "NODE_IS_MANAGER");
}

#[test]
fn c06_a_node_that_is_not_active_takes_no_endpoints() {
    let mut lab = Lab::new();
    let network = lab.network(net("a"));
    let there = lab.endpoint(standalone(&network, 2));
    for availability in [Availability::Pause, Availability::Drain] {
        let change = update(&lab, 2, |node| node.availability = availability);
        lab.run(change);
        let action = lab.attach(standalone(&network, 2));
        let refusal = lab.refuse(action);
        assert_eq!((refusal.code(), refusal.field()), ("NODE_NOT_ACTIVE", Some("node")));
    }
    assert!(lab.state.view().endpoints().contains_key(&there.id));
    let change = update(&lab, 2, |node| node.availability = Availability::Active);
    lab.run(change);
    lab.endpoint(standalone(&network, 2));
}

#[test]
fn labels_are_notes_and_not_files() {
    let mut lab = Lab::new();
    let cases = [
        vec![(String::new(), "x".to_owned())],
        vec![("k".to_owned(), "v".repeat(257))],
        (0..65).map(|n| (format!("k{n}"), String::new())).collect(),
    ];
    for labels in cases {
        let change = update(&lab, 2, |node| node.labels = labels.into_iter().collect());
        assert_eq!(lab.refuse(change).field(), Some("label"));
    }
    let change = update(&lab, 2, |node| node.labels = [("rack".into(), "7".into())].into());
    lab.run(change);
    let stale = Action::UpdateNode { node: node(2), based_on: Revision::new(1) };
    assert_eq!(lab.refuse(stale).code(), "STALE");
}
