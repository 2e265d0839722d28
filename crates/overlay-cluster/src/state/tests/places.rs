//! Nodes that moved.

use std::collections::BTreeSet;

use overlay_types::{Node, NodeId};

use super::*;

fn known(lab: &Lab, id: u128) -> Node {
    lab.state.view().nodes()[&NodeId::from_u128(id)].clone()
}

/// Node `id` says that it is at the addresses of `to`.
fn moved(id: u128, to: &Node, vacated: &[u128]) -> Action {
    let vacated: BTreeSet<NodeId> = vacated.iter().copied().map(NodeId::from_u128).collect();
    let (control, gossip, data_path) = (to.control, to.gossip, to.data_path);
    Action::MoveNode(MoveNode { node: NodeId::from_u128(id), control, gossip, data_path, vacated })
}

/// Where `node` would be with these addresses.
fn at(node: &Node, control: &str, gossip: &str, data_path: &str) -> Node {
    Node {
        control: control.parse().unwrap(),
        gossip: gossip.parse().unwrap(),
        data_path: data_path.parse().unwrap(),
        ..node.clone()
    }
}

#[test]
fn c03_a_node_that_moved_is_known_at_its_new_addresses() {
    let mut lab = Lab::new();
    let before = known(&lab, 2);
    let new = at(&before, "192.0.2.9:2377", "192.0.2.9:7946", "192.0.2.10");
    lab.run(moved(2, &new, &[]));
    let after = known(&lab, 2);
    assert_eq!(after, Node { meta: after.meta, ..new.clone() });
    assert_eq!(after.meta.created_at, before.meta.created_at);
    assert!(after.meta.changed_at > before.meta.changed_at);
    // Said again it changes nothing.
    let revision = lab.state.revision();
    lab.run(moved(2, &new, &[]));
    assert_eq!(lab.state.revision(), revision);
    assert_eq!(lab.refuse(moved(9, &new, &[])).code(), "NOT_FOUND");
}

#[test]
fn c03_an_address_of_another_node_is_refused_unless_that_has_left_it() {
    let mut lab = Lab::new();
    let (one, two) = (known(&lab, 1), known(&lab, 2));
    let (control, gossip) = (one.control.to_string(), one.gossip.to_string());
    let cases = [
        ("control", control.clone(), at(&two, &control, "192.0.2.9:7946", "192.0.2.9")),
        ("gossip", gossip.clone(), at(&two, "192.0.2.9:2377", &gossip, "192.0.2.9")),
        (
            "data_path",
            one.data_path.to_string(),
            at(&two, "192.0.2.9:2377", "192.0.2.9:7946", &one.data_path.to_string()),
        ),
    ];
    for (field, value, to) in &cases {
        for vacated in [&[][..], &[2, 3]] {
            let refusal = lab.refuse(moved(2, to, vacated));
            assert_eq!((refusal.code(), refusal.field()), ("ADDRESS_IN_USE", Some(*field)));
            assert!(refusal.to_string().contains(value.as_str()), "{refusal}");
        }
    }
    // It has left two of its addresses for another node, which takes these.
    let to = at(&two, &control, &gossip, "192.0.2.9");
    lab.run(moved(2, &to, &[1]));
    let displaced = known(&lab, 1);
    assert!(displaced.control.ip().is_unspecified() && displaced.gossip.ip().is_unspecified());
    assert_eq!(displaced.data_path, one.data_path);
    assert_eq!(displaced.meta.changed_at, lab.state.revision());
    assert_eq!(known(&lab, 2).control, one.control);
    // Back, it says where it is.
    let back = at(&one, "192.0.2.11:2377", "192.0.2.11:7946", "192.0.2.11");
    lab.run(moved(1, &back, &[]));
    assert_eq!(known(&lab, 1).control, back.control);
}

#[test]
fn c03_two_nodes_can_change_places() {
    let mut lab = Lab::new();
    let (one, two) = (known(&lab, 1), known(&lab, 2));
    lab.run(moved(1, &two, &[2]));
    lab.run(moved(2, &one, &[1]));
    let places = |node: &Node| (node.control, node.gossip, node.data_path);
    assert_eq!(places(&known(&lab, 1)), places(&two));
    assert_eq!(places(&known(&lab, 2)), places(&one));
}

#[test]
fn c03_nobody_is_nowhere() {
    let mut lab = Lab::new();
    let two = known(&lab, 2);
    let good = ("192.0.2.9:2377", "192.0.2.9:7946", "192.0.2.9");
    let (control, gossip, data_path) = good;
    for (field, value, to) in [
        ("control", "0.0.0.0:2377", at(&two, "0.0.0.0:2377", gossip, data_path)),
        ("control", "[ff02::1]:2377", at(&two, "[ff02::1]:2377", gossip, data_path)),
        ("control", "192.0.2.9:0", at(&two, "192.0.2.9:0", gossip, data_path)),
        ("gossip", "[::]:7946", at(&two, control, "[::]:7946", data_path)),
        ("data_path", "224.0.0.1", at(&two, control, gossip, "224.0.0.1")),
    ] {
        for action in [moved(2, &to, &[1]), Action::JoinNode(to.clone())] {
            let refusal = lab.refuse(action);
            assert_eq!((refusal.code(), refusal.field()), ("INVALID_ARGUMENT", Some(field)));
            assert!(refusal.to_string().contains(value), "{refusal}");
        }
    }
}

#[test]
fn c12_a_node_that_is_removed_twice_by_one_request_is_removed_once() {
    let mut lab = Lab::new();
    let mut node = known(&lab, 2);
    let based_on = node.meta.changed_at;
    node.role = Role::Worker;
    lab.run(Action::UpdateNode { node, based_on });
    let action = Action::RemoveNode(NodeId::from_u128(2));
    let remove = Command { request: RequestId::from_u128(1), at: lab.now, action };
    assert!(!lab.state.apply(&remove).unwrap().changes.is_empty());
    assert!(lab.state.apply(&remove).unwrap().changes.is_empty());
}
