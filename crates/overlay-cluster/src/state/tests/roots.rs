//! Root rotation.

use std::collections::BTreeSet;

use overlay_types::Revision;
use proptest::prelude::*;

use super::*;
use crate::state::{MAX_PENDING_ROOTS, Successor};

fn id(number: u128) -> RootId {
    RootId::from_u128(number)
}

fn rotate(replaces: RootId, next: RootId) -> Action {
    let successor = Successor {
        root_certificate: format!("certificate of {next}"),
        private_key: format!("key of {next}"),
    };
    Action::RotateRoot { replaces, root: root(next, Some(vec![1])), successor }
}

fn note(node: u128, root: RootId) -> Action {
    Action::NoteCertificate { node: NodeId::from_u128(node), root }
}

fn roots(state: &State) -> Vec<RootId> {
    state.roots().iter().map(|root| root.id).collect()
}

/// What the leader does until nothing is due.
fn lead(lab: &mut Lab) {
    while let Some(action) = lab.state.root_rotation().and_then(|rotation| rotation.next_step()) {
        lab.run(action);
    }
}

fn waiting(state: &State) -> Vec<u128> {
    let rotation = state.root_rotation().expect("it runs");
    rotation.waiting.iter().map(|node| node.id.to_u128()).collect()
}

#[test]
fn c04_a_root_is_replaced_when_every_node_has_a_certificate_of_the_new_one() {
    let mut lab = Lab::new();
    assert!(lab.state.root_rotation().is_none());
    lab.run(rotate(FIRST_ROOT, id(1)));
    assert_eq!(roots(&lab.state), [FIRST_ROOT, id(1)]);
    assert_eq!(waiting(&lab.state), [1, 2]);
    // The key of the old one stays: another rotation needs it.
    let trust = lab.state.trust().unwrap();
    assert_eq!(trust.private_key, "key");
    assert_eq!(trust.successor.as_ref().unwrap().private_key, format!("key of {}", id(1)));

    lab.run(note(1, id(1)));
    assert_eq!(waiting(&lab.state), [2]);
    lead(&mut lab);
    assert_eq!(lab.refuse(Action::FinishRootRotation(id(1))).code(), "ROOT_IN_USE");
    assert_eq!(lab.refuse(Action::FinishRootRotation(FIRST_ROOT)).code(), "ROOT_CHANGED");
    lab.run(note(2, id(1)));
    lead(&mut lab);

    assert_eq!(roots(&lab.state), [id(1)]);
    assert_eq!(lab.state.roots()[0].cross, None);
    let trust = lab.state.trust().unwrap();
    assert_eq!(trust.root_certificate, format!("certificate of {}", id(1)));
    assert_eq!(trust.private_key, format!("key of {}", id(1)));
    assert_eq!((trust.successor.as_ref(), &*trust.former_roots), (None, &[FIRST_ROOT][..]));
    assert_eq!(lab.refuse(Action::FinishRootRotation(id(1))).code(), "ROOT_CHANGED");
}

/// Case 17: TestSwarmRepeatedRootRotation.
#[test]
fn c04_a_rotation_that_runs_is_begun_again() {
    let mut lab = Lab::new();
    lab.run(rotate(FIRST_ROOT, id(1)));
    lab.run(note(1, id(1)));
    lab.run(note(2, id(1)));
    // The leader was slower than the one who rotates again.
    lab.run(rotate(FIRST_ROOT, id(2)));
    assert_eq!(waiting(&lab.state), [1, 2]);
    assert_eq!(lab.refuse(Action::FinishRootRotation(id(1))).code(), "ROOT_CHANGED");
    lab.run(note(2, id(2)));
    lab.run(note(1, id(2)));
    lead(&mut lab);
    assert_eq!(roots(&lab.state), [id(2)]);
    assert_eq!(lab.state.trust().unwrap().former_roots, [FIRST_ROOT, id(1)]);

    // What was begun with the root that is gone now is not certified by the present one.
    assert_eq!(lab.refuse(rotate(FIRST_ROOT, id(3))).code(), "ROOT_CHANGED");
    assert_eq!(lab.refuse(rotate(id(2), FIRST_ROOT)).field(), Some("root"));
    lab.run(rotate(id(2), id(3)));
}

#[test]
fn c04_a_node_that_is_away_holds_a_rotation_up_until_it_is_removed() {
    let mut lab = Lab::new();
    lab.run(Action::JoinNode(Node { role: Role::Worker, ..node(3) }));
    lab.run(rotate(FIRST_ROOT, id(1)));
    lab.run(note(1, id(1)));
    lab.run(note(2, id(1)));
    lead(&mut lab);
    assert_eq!(waiting(&lab.state), [3]);
    // One that joins meanwhile, signed for just before the rotation began, is waited for, too.
    lab.run(Action::JoinNode(node(4)));
    assert_eq!(waiting(&lab.state), [3, 4]);
    lab.run(note(4, id(1)));
    lab.run(Action::RemoveNode(NodeId::from_u128(3)));
    lead(&mut lab);
    assert_eq!(roots(&lab.state), [id(1)]);
    // Nor does it come in with what was signed before the rotation.
    assert_eq!(lab.refuse(Action::JoinNode(node(5))).code(), "ROOT_CHANGED");
    assert_eq!(lab.refuse(note(1, FIRST_ROOT)).code(), "ROOT_CHANGED");
    lab.run(Action::JoinNode(Node { root: id(1), ..node(5) }));
}

#[test]
fn c04_rotations_under_way_are_bounded_and_the_refusal_says_what_to_do() {
    let mut lab = Lab::new();
    for number in 1..=MAX_PENDING_ROOTS as u128 {
        lab.run(rotate(FIRST_ROOT, id(number)));
    }
    let refused = lab.refuse(rotate(FIRST_ROOT, id(99)));
    assert_eq!(refused.code(), "TOO_MANY");
    let text = refused.to_string();
    assert!(text.contains("node1, node2") && text.contains("overlayctl node rm"), "{text}");
}

#[test]
fn c04_what_no_rotation_can_begin_with_is_refused() {
    let mut lab = Lab::new();
    let Action::RotateRoot { replaces, root: mut made, successor } = rotate(FIRST_ROOT, id(1))
    else {
        unreachable!()
    };
    made.cross = None;
    let bare = Action::RotateRoot { replaces, root: made, successor };
    assert_eq!(lab.refuse(bare).field(), Some("root"));
    assert_eq!(lab.refuse(rotate(FIRST_ROOT, FIRST_ROOT)).field(), Some("root"));
    assert_eq!(lab.refuse(rotate(id(7), id(8))).code(), "ROOT_CHANGED");
    assert_eq!(lab.refuse(note(9, FIRST_ROOT)).code(), "NOT_FOUND");
    let text = format!("{:?}", rotate(FIRST_ROOT, id(1)));
    assert!(!text.contains("key of"), "{text}");

    let mut lab = Lab::blank();
    for roots in [vec![], vec![root(id(3), None)], vec![root(FIRST_ROOT, None); 2]] {
        let init = init(Cluster { roots, ..cluster() });
        let refused = lab.refuse(Action::InitCluster(Box::new(init)));
        assert_eq!(refused.field(), Some("roots"));
    }
}

/// A node as it is, whatever the managers know: the root of the certificate on its disk.
#[derive(Clone, Copy, Debug)]
struct Real {
    node: u128,
    issuer: RootId,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Rotate,
    /// Signs for a joiner, and writes that it joined when this many steps were made more.
    Join(usize),
    /// A node renews, but has not told.
    Renew(usize),
    Report(usize),
    /// A report that was long under way.
    LateReport(usize),
    Remove(usize),
    ChangeRole(usize),
    Lead,
    /// Every manager starts again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Rotate),
        2 => (0..6_usize).prop_map(Step::Join),
        8 => (0..9_usize).prop_map(Step::Renew),
        8 => (0..9_usize).prop_map(Step::Report),
        2 => (0..9_usize).prop_map(Step::LateReport),
        1 => (0..9_usize).prop_map(Step::Remove),
        2 => (0..9_usize).prop_map(Step::ChangeRole),
        6 => Just(Step::Lead),
        1 => Just(Step::Restart),
    ]
}

/// The state, the nodes, and what is under way between them.
struct World {
    lab: Lab,
    nodes: Vec<Real>,
    /// Joins whose certificate is signed, and the step at which they are written.
    joins: Vec<(usize, Real)>,
    late: Vec<(u128, RootId)>,
    drawn: u128,
}

impl World {
    fn new() -> Self {
        let nodes = [1, 2].map(|node| Real { node, issuer: FIRST_ROOT }).into();
        Self { lab: Lab::new(), nodes, joins: Vec::new(), late: Vec::new(), drawn: 0 }
    }

    fn signing(&self) -> RootId {
        self.lab.state.roots().last().unwrap().id
    }

    /// Applies it, refused or not. Says whether it was accepted.
    fn try_to(&mut self, action: Action) -> bool {
        let before = self.lab.state.encode();
        let accepted = self.lab.apply(action).is_ok();
        assert!(accepted || self.lab.state.encode() == before);
        accepted
    }

    fn draw(&mut self) -> u128 {
        self.drawn += 1;
        self.drawn + 200
    }

    fn take(&mut self, at: usize, step: Step) {
        let place = |index: usize, nodes: &[Real]| index % nodes.len();
        match step {
            Step::Rotate => {
                let (replaces, next) = (roots(&self.lab.state)[0], id(self.draw()));
                self.try_to(rotate(replaces, next));
            }
            Step::Join(later) => {
                let (node, issuer) = (self.draw(), self.signing());
                self.joins.push((at + later, Real { node, issuer }));
            }
            Step::Renew(index) => {
                let place = place(index, &self.nodes);
                let Real { node, issuer } = self.nodes[place];
                self.late.push((node, issuer));
                self.nodes[place].issuer = self.signing();
            }
            Step::Report(index) => {
                let Real { node, issuer } = self.nodes[place(index, &self.nodes)];
                assert!(self.try_to(note(node, issuer)), "a node's certificate is good");
            }
            Step::LateReport(index) => {
                if let Some((node, issuer)) = self.late.get(index).copied() {
                    self.try_to(note(node, issuer));
                }
            }
            Step::Remove(index) if self.nodes.len() > 2 => {
                let place = place(index, &self.nodes);
                if self.try_to(Action::RemoveNode(NodeId::from_u128(self.nodes[place].node))) {
                    self.nodes.remove(place);
                }
            }
            Step::Remove(_) => {}
            Step::ChangeRole(index) => {
                let node = NodeId::from_u128(self.nodes[place(index, &self.nodes)].node);
                let old = self.lab.state.node(node).unwrap().clone();
                let role = if old.role == Role::Manager { Role::Worker } else { Role::Manager };
                let based_on = old.meta.changed_at;
                self.try_to(Action::UpdateNode { node: Node { role, ..old }, based_on });
            }
            Step::Lead => lead(&mut self.lab),
            Step::Restart => {
                self.lab.state = State::decode(self.lab.state.encode()).unwrap();
            }
        }
        let (due, later) = self.joins.iter().partition(|(due, _)| *due <= at);
        self.joins = later;
        for (_, real) in due {
            self.join(real);
        }
    }

    fn join(&mut self, real: Real) {
        let mut joined = node(1);
        (joined.id, joined.root) = (NodeId::from_u128(real.node), real.issuer);
        joined.name = format!("node{}", real.node).parse().unwrap();
        if self.try_to(Action::JoinNode(joined)) {
            self.nodes.push(real);
        }
    }

    fn check(&self) {
        let state = &self.lab.state;
        let trusted: BTreeSet<RootId> = roots(state).into_iter().collect();
        let trust = state.trust().unwrap();
        assert_eq!(trust.successor.is_some(), trusted.len() > 1);
        assert!(trusted.len() <= MAX_PENDING_ROOTS + 1);
        assert!(trust.former_roots.iter().all(|root| !trusted.contains(root)));
        // Nobody is locked out: what a node has on its disk is trusted, and so is what it joins with.
        for real in &self.nodes {
            assert!(trusted.contains(&real.issuer), "{real:?} is locked out");
        }
        for node in state.view().nodes().values() {
            assert!(trusted.contains(&node.root));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn c04_no_order_of_rotations_reports_joins_and_removals_locks_a_node_out(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for (at, step) in steps.into_iter().enumerate() {
            world.take(at, step);
            world.check();
        }
        // Once all nodes are there, a rotation ends.
        for place in 0..world.nodes.len() {
            world.take(usize::MAX, Step::Renew(place));
            world.take(usize::MAX, Step::Report(place));
        }
        world.late.clear();
        for place in 0..world.nodes.len() {
            world.take(usize::MAX, Step::Renew(place));
            world.take(usize::MAX, Step::Report(place));
        }
        world.take(usize::MAX, Step::Lead);
        world.check();
        prop_assert_eq!(roots(&world.lab.state).len(), 1);
        prop_assert!(world.lab.state.revision() > Revision::ZERO);
    }
}
