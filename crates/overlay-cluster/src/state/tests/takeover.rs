//! One manager goes on alone.

use overlay_types::Node;

use super::*;
use crate::state::{RotationPolicy, Takeover};

fn take_over(state: &mut State, keeper: Node) {
    let mut drawn = u128::from(state.revision().get());
    let takeover = Takeover {
        keeper,
        at: UnixMillis(2_000_000),
        rotation: RotationPolicy::default(),
        gossip_key: [7; 32],
    };
    let draw = || {
        drawn += 1;
        drawn
    };
    state.take_over(takeover, draw).unwrap();
}

fn worker(number: u128) -> Node {
    Node { role: Role::Worker, ..node(number) }
}

#[test]
fn c08_the_other_managers_are_removed_and_workers_stay() {
    let mut lab = Lab::new();
    lab.run(Action::JoinNode(node(3)));
    lab.run(Action::JoinNode(worker(4)));
    let before = lab.state.clone();
    let mut state = lab.state;
    take_over(&mut state, node(2));
    let view = state.view();
    let ids: Vec<_> = view.nodes().keys().map(|id| id.to_u128()).collect();
    assert_eq!(ids, [2, 4]);
    assert_eq!(view.nodes()[&node(2).id].role, Role::Manager);
    let removed: Vec<_> = view.cluster().unwrap().removed_nodes.keys().copied().collect();
    assert_eq!(removed, [node(1).id, node(3).id]);
    assert_eq!(view.networks(), before.view().networks());
    // Nobody has seen such a revision, and everybody's next question is answered with a snapshot.
    assert!(state.revision().get() > before.revision().get() + (1 << 31));
    let ring = view.gossip_keys().unwrap();
    assert!(ring.keys.iter().any(|key| key.key == [7; 32]));
    assert_eq!(State::decode(state.encode()).unwrap(), state);
}

#[test]
fn c08_a_new_node_takes_over_in_the_place_of_all_managers() {
    let mut lab = Lab::new();
    lab.run(Action::JoinNode(worker(4)));
    take_over(&mut lab.state, node(9));
    let ids: Vec<_> = lab.state.view().nodes().keys().map(|id| id.to_u128()).collect();
    assert_eq!(ids, [4, 9]);
    assert_eq!(lab.state.manager_at(node(9).control), Some(node(9).id));
    assert_eq!(lab.state.manager_at(node(4).control), None);
    // Twice is no error: the gossip key turns already.
    take_over(&mut lab.state, node(9));
}
