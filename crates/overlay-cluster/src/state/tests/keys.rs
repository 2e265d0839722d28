use std::collections::BTreeSet;

use overlay_types::{EpochState, KeyEpoch};

use super::*;
use crate::state::{Class, ClusterUpdate, OpaqueSecret, RotationPolicy};

const POLICY: RotationPolicy =
    RotationPolicy { grace: Duration::from_secs(30), drain: Duration::from_mins(1) };

fn live(nodes: &[u128]) -> BTreeSet<NodeId> {
    nodes.iter().map(|n| NodeId::from_u128(*n)).collect()
}

impl Lab {
    fn publish(&mut self, node: u128, epoch: u64) {
        let public = [u8::try_from(node).unwrap(); 32];
        let (node, epoch) = (NodeId::from_u128(node), Epoch::new(epoch));
        self.run(Action::PublishNodeKey { node, epoch, public });
    }

    fn report(&mut self, node: u128, epoch: u64) {
        let public = [u8::try_from(node).unwrap(); 32];
        let (node, epoch) = (NodeId::from_u128(node), Epoch::new(epoch));
        self.run(Action::ReportEpochReady { node, epoch, public });
    }

    /// Takes every step that is due; what they were.
    fn tick(&mut self, nodes: &[u128]) -> Vec<&'static str> {
        let mut steps = Vec::new();
        while let Some(action) = POLICY.next_step(&self.state, &live(nodes), self.now, [7; 32]) {
            steps.push(match &action {
                Action::StartRotation { .. } => "start",
                Action::AdvanceEpoch { to: EpochState::Ready, .. } => "ready",
                Action::AdvanceEpoch { .. } => "active",
                Action::RemoveEpoch(_) => "remove",
                Action::RotateGossipKey { .. } => "gossip next",
                Action::AdvanceGossipKey { .. } => "gossip current",
                other => panic!("{other:?}"),
            });
            self.run(action);
        }
        steps
    }

    fn later(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    fn epochs(&self) -> Vec<(u64, EpochState)> {
        self.state.view().key_epochs().values().map(|e| (e.epoch.get(), e.state)).collect()
    }

    fn ring(&self) -> (u64, Vec<u64>) {
        let ring = self.state.view().gossip_keys().unwrap();
        (ring.current.get(), ring.keys.iter().map(|k| k.epoch.get()).collect())
    }
}

#[test]
fn e03_a_rotation_goes_on_when_all_live_nodes_are_ready() {
    let mut lab = Lab::new();
    assert_eq!(lab.epochs(), [(1, EpochState::Active)]);
    lab.publish(1, 1);
    lab.publish(2, 1);
    assert_eq!(lab.tick(&[1, 2]), [""; 0]);
    let start = POLICY.start(&lab.state, lab.now);
    lab.run(start.clone());
    assert_eq!(lab.refuse(start).code(), "ROTATION_RUNNING");

    lab.publish(1, 2);
    assert_eq!(lab.tick(&[1, 2]), [""; 0]);
    lab.publish(2, 2);
    assert_eq!(lab.tick(&[1, 2]), ["ready"]);
    lab.report(1, 2);
    assert_eq!(lab.tick(&[1, 2]), [""; 0]);
    lab.report(2, 2);
    assert_eq!(lab.tick(&[1, 2]), ["active"]);
    assert_eq!(lab.epochs(), [(1, EpochState::Retired), (2, EpochState::Active)]);

    lab.later(Duration::from_secs(59));
    assert_eq!(lab.tick(&[1, 2]), [""; 0]);
    lab.later(Duration::from_secs(1));
    assert_eq!(lab.tick(&[1, 2]), ["remove"]);
    assert_eq!(lab.epochs(), [(2, EpochState::Active)]);
    assert!(lab.state.view().node_keys().keys().all(|(epoch, _)| epoch.get() == 2));
}

#[test]
fn e03_a_silent_node_does_not_block_a_rotation() {
    let mut lab = Lab::new();
    let start = POLICY.start(&lab.state, lab.now);
    lab.run(start);
    lab.publish(1, 2);
    // Node 2 counts as alive but never answers: each step waits for the grace period.
    lab.later(POLICY.grace);
    assert_eq!(lab.tick(&[1, 2]), ["ready"]);
    lab.report(1, 2);
    lab.later(POLICY.grace);
    assert_eq!(lab.tick(&[1, 2]), ["active"]);
    // It comes back and catches up through the same steps.
    lab.publish(2, 2);
    lab.report(2, 2);
    // Without node 2 nobody waits for it.
    let start = POLICY.start(&lab.state, lab.now);
    lab.run(start);
    lab.publish(1, 3);
    assert_eq!(lab.tick(&[1]), ["ready"]);
}

#[test]
fn c09_the_deadline_of_the_active_epoch_starts_the_next() {
    let mut lab = Lab::new();
    lab.later(Duration::from_hours(12) - Duration::from_millis(1));
    assert_eq!(lab.tick(&[1]), [""; 0]);
    lab.later(Duration::from_millis(1));
    assert_eq!(lab.tick(&[1]), ["start", "gossip next"]);
    let decoded = State::decode(lab.state.encode()).unwrap();
    assert_eq!(decoded.view().key_epochs(), lab.state.view().key_epochs());
}

#[test]
fn g02_the_gossip_ring_holds_next_current_previous() {
    let mut lab = Lab::new();
    assert_eq!(lab.ring(), (1, vec![1]));
    lab.later(Duration::from_hours(12));
    lab.tick(&[]);
    assert_eq!(lab.ring(), (1, vec![1, 2]));
    lab.later(POLICY.grace);
    lab.tick(&[]);
    assert_eq!(lab.ring(), (2, vec![1, 2]));
    let next = POLICY.start_gossip(&lab.state, lab.now, [8; 32]);
    lab.run(next.clone());
    assert_eq!(lab.ring(), (2, vec![1, 2, 3]));
    assert_eq!(lab.refuse(next).code(), "ROTATION_RUNNING");
    lab.later(POLICY.grace);
    lab.tick(&[]);
    assert_eq!(lab.ring(), (3, vec![2, 3]));
}

#[test]
fn steps_are_taken_in_order_and_once() {
    let mut lab = Lab::new();
    let advance = |epoch, to| Action::AdvanceEpoch {
        epoch: Epoch::new(epoch),
        to,
        deadline: UnixMillis(5),
        drained: UnixMillis(6),
    };
    let start = |epoch| Action::StartRotation { epoch: Epoch::new(epoch), deadline: UnixMillis(5) };
    assert_eq!(lab.refuse(start(5)).class(), Class::Conflict);
    lab.run(start(2));
    assert_eq!(lab.refuse(advance(2, EpochState::Active)).code(), "EPOCH_STEP");
    assert_eq!(lab.refuse(advance(2, EpochState::Retired)).code(), "EPOCH_STEP");
    assert_eq!(lab.refuse(advance(9, EpochState::Ready)).code(), "NOT_FOUND");
    assert_eq!(lab.refuse(Action::RemoveEpoch(Epoch::new(1))).code(), "EPOCH_STEP");
    lab.run(advance(2, EpochState::Ready));
    let before = lab.state.revision();
    lab.run(advance(2, EpochState::Ready));
    assert_eq!(lab.state.revision(), before);
    let (node, epoch) = (NodeId::from_u128(1), Epoch::new(2));
    let report = Action::ReportEpochReady { node, epoch, public: [1; 32] };
    assert_eq!(lab.refuse(report).code(), "NOT_READY");
    lab.run(advance(2, EpochState::Active));
    let retired = lab.state.view().key_epochs()[&Epoch::new(1)].clone();
    assert_eq!((retired.state, retired.deadline), (EpochState::Retired, UnixMillis(6)));
}

#[test]
fn a_node_that_restarts_publishes_again_and_is_not_ready() {
    let mut lab = Lab::new();
    lab.publish(1, 1);
    lab.report(1, 1);
    let (node, epoch) = (NodeId::from_u128(1), Epoch::new(1));
    assert!(lab.state.view().node_keys()[&(epoch, node)].ready);
    lab.publish(1, 1);
    assert!(lab.state.view().node_keys()[&(epoch, node)].ready, "the same key");
    lab.run(Action::PublishNodeKey { node, epoch, public: [42; 32] });
    assert!(!lab.state.view().node_keys()[&(epoch, node)].ready);
    let zero = Action::PublishNodeKey { node, epoch, public: [0; 32] };
    assert_eq!(lab.refuse(zero).field(), Some("public"));
}

#[test]
fn r07_deadlines_of_a_clock_that_was_days_ahead_hold_nothing_up() {
    let mut lab = Lab::new();
    let right = lab.now;
    lab.publish(1, 1);
    // The leader's clock jumps ahead: a rotation begins, and ends.
    lab.later(Duration::from_hours(72));
    assert_eq!(lab.tick(&[1]), ["start", "gossip next"]);
    lab.publish(1, 2);
    assert_eq!(lab.tick(&[1]), ["ready"]);
    lab.report(1, 2);
    assert_eq!(lab.tick(&[1]), ["active"]);
    // And is set back: what was to end in three days ends now, once.
    lab.now = right;
    assert_eq!(lab.tick(&[1]), ["remove", "start", "gossip current"]);
    lab.publish(1, 3);
    lab.tick(&[1]);
    lab.report(1, 3);
    assert_eq!(lab.tick(&[1]), ["active"]);
    assert_eq!(lab.epochs(), [(2, EpochState::Retired), (3, EpochState::Active)]);
    lab.later(POLICY.drain);
    assert_eq!(lab.tick(&[1]), ["remove"]);
    lab.later(Duration::from_hours(11));
    assert_eq!(lab.tick(&[1]), [""; 0]);
    lab.later(Duration::from_hours(1));
    assert_eq!(lab.tick(&[1]), ["start", "gossip next"]);
}

#[test]
fn c09_a_leader_whose_clock_is_a_little_behind_waits_as_long() {
    let mut lab = Lab::new();
    lab.now = UnixMillis(lab.now.0 - 60_000);
    assert_eq!(lab.tick(&[1]), [""; 0]);
}

#[test]
fn rotations_that_outrun_the_drain_are_refused() {
    let mut lab = Lab::new();
    for _ in 0..2 {
        let start = POLICY.start(&lab.state, lab.now);
        lab.run(start);
        assert_eq!(lab.tick(&[]), ["ready", "active"]);
    }
    assert_eq!(lab.epochs().len(), 3);
    let start = POLICY.start(&lab.state, lab.now);
    lab.run(start);
    lab.tick(&[]);
    let start = POLICY.start(&lab.state, lab.now);
    assert_eq!(lab.refuse(start).class(), Class::ResourceExhausted);
    let active: Vec<KeyEpoch> = lab.state.active_epoch().cloned().into_iter().collect();
    assert_eq!(active[0].epoch.get(), 4);
    lab.later(POLICY.drain);
    assert_eq!(lab.tick(&[]), ["remove", "remove", "remove"]);
}

/// A report that outlived its process does not make the key of the next one ready.
#[test]
fn e03_a_report_about_a_replaced_key_is_refused() {
    let mut lab = Lab::new();
    let (node, epoch) = (NodeId::from_u128(1), Epoch::new(1));
    let ready = |lab: &Lab| lab.state.view().node_keys()[&(epoch, node)].ready;
    let report = |public| Action::ReportEpochReady { node, epoch, public };
    lab.publish(1, 1);
    lab.run(Action::PublishNodeKey { node, epoch, public: [42; 32] });
    assert_eq!(lab.refuse(report([1; 32])).code(), "NOT_READY");
    assert!(!ready(&lab));
    lab.run(report([42; 32]));
    assert!(ready(&lab));
    assert_eq!(lab.refuse(report([1; 32])).code(), "NOT_READY");
    assert!(ready(&lab));
}

fn set_period(period: Duration) -> Action {
    let update = ClusterUpdate { rotation_period: Some(period), ..ClusterUpdate::default() };
    Action::UpdateCluster(update)
}

/// When the rotations of the data-plane keys and of the gossip key are due, from now.
fn due(lab: &Lab) -> [Duration; 2] {
    let view = lab.state.view();
    let epoch = view.key_epochs().values().next_back().unwrap().deadline;
    [epoch, view.gossip_keys().unwrap().deadline].map(|deadline| deadline.since(lab.now))
}

#[test]
fn c09_a_shorter_rotation_period_brings_what_is_due_closer_and_a_longer_one_does_not() {
    let mut lab = Lab::new();
    let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
    let before = due(&lab);
    assert!(before.iter().all(|due| *due > hour && *due < day), "{before:?}");
    lab.run(set_period(day));
    assert_eq!(due(&lab), before);
    lab.run(set_period(hour));
    assert_eq!(due(&lab), [hour; 2]);
    let revision = lab.state.revision();
    lab.run(set_period(hour));
    assert_eq!(lab.state.revision(), revision);
    // Nothing is due at once, and all of it when the hour is over.
    assert_eq!(lab.tick(&[1, 2]), Vec::<&str>::new());
    lab.now = lab.now.after(hour);
    assert_eq!(lab.tick(&[])[0], "start");
    assert_eq!(lab.state.view().cluster().unwrap().rotation_period, hour);
}

#[test]
fn c09_steps_of_a_rotation_that_runs_keep_their_deadlines() {
    let mut lab = Lab::new();
    lab.run(POLICY.start(&lab.state, lab.now));
    lab.run(POLICY.start_gossip(&lab.state, lab.now, [8; 32]));
    let before = due(&lab);
    lab.run(set_period(Duration::from_secs(1)));
    assert_eq!(due(&lab), before);
}

#[test]
fn c09_a_rotation_period_has_a_second_at_least_and_a_refusal_changes_nothing() {
    let mut lab = Lab::new();
    for period in [Duration::ZERO, Duration::from_millis(999)] {
        let update = ClusterUpdate {
            autolock: Some(Some(OpaqueSecret(vec![1; 32]))),
            rotation_period: Some(period),
        };
        assert_eq!(lab.refuse(Action::UpdateCluster(update)).field(), Some("rotation-period"));
    }
    let update = ClusterUpdate {
        autolock: Some(Some(OpaqueSecret(vec![1; 31]))),
        rotation_period: Some(Duration::from_hours(1)),
    };
    assert_eq!(lab.refuse(Action::UpdateCluster(update)).field(), Some("unlock_key"));
    let both = ClusterUpdate {
        autolock: Some(Some(OpaqueSecret(vec![1; 32]))),
        rotation_period: Some(Duration::from_hours(1)),
    };
    lab.run(Action::UpdateCluster(both));
    let cluster = lab.state.view().cluster().unwrap();
    assert!(cluster.autolock && cluster.rotation_period == Duration::from_hours(1));
}
