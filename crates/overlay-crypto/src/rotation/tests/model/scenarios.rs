//! Orders of events that matter, one by one.

use super::*;

/// Without absence and force, nobody ever has an excuse: two rotations, one packet per step.
#[test]
fn e03_zero_packets_lost() {
    let mut world = World::new();
    world.calm();
    for _ in 0..2 {
        assert_eq!(world.connected.len(), NODES * (NODES - 1));
        world.settle();
    }
}

impl World {
    /// Delivers the requests of one node, and only those.
    fn requests_of(&mut self, who: usize) {
        let id = self.nodes[who].id;
        while let Some(at) = self.requests.iter().position(|request| request.node() == id) {
            self.run(Op::Request(at, false));
        }
    }

    fn epoch_to(&self, from: usize, to: usize) -> u64 {
        self.nodes[from].sending[&self.nodes[to].id].0.epoch.get()
    }

    /// Connected nodes that have read that epoch 2 is preparing.
    fn preparing() -> Self {
        let mut world = Self::new();
        world.calm();
        world.run(Op::StartRotation);
        (0..NODES).for_each(|who| world.run(Op::Read(who, usize::MAX)));
        world
    }
}

/// A key that is published late: its owner stays with the old epoch towards a peer that is ready,
/// but was so before it, until it hears that peer.
#[test]
fn e03_a_late_key_loses_nothing() {
    let mut world = World::preparing();
    (1..NODES).for_each(|who| world.requests_of(who));
    world.run(Op::Advance(true));
    for who in 1..NODES {
        world.run(Op::Read(who, usize::MAX));
        world.requests_of(who);
    }
    world.run(Op::Read(0, usize::MAX));
    for _ in 0..2 {
        world.requests_of(0);
        world.run(Op::Read(0, usize::MAX));
    }
    world.run(Op::Advance(false));
    world.run(Op::Read(0, usize::MAX));
    assert_eq!(world.newest().state, EpochState::Active);
    assert_eq!(world.epoch_to(0, 1), 1);
    world.run(Op::Read(1, usize::MAX));
    assert_eq!((world.epoch_to(1, 0), world.epoch_to(0, 1)), (2, 1));
    world.run(Op::Talk(1, 0));
    assert_eq!((world.epoch_to(1, 0), world.epoch_to(0, 1)), (2, 2));
}

/// The grace period ends before a peer is ready: it is sent to with the old epoch until it is.
#[test]
fn e03_a_peer_that_is_not_ready_loses_nothing() {
    let mut world = World::preparing();
    (0..NODES).for_each(|who| world.requests_of(who));
    world.run(Op::Advance(false));
    world.run(Op::Advance(true));
    world.run(Op::Read(0, usize::MAX));
    world.run(Op::Read(2, usize::MAX));
    assert_eq!(world.newest().state, EpochState::Active);
    assert_eq!(world.epoch_to(0, 1), 1);
    world.run(Op::Read(1, usize::MAX));
    world.requests_of(1);
    world.run(Op::Read(0, usize::MAX));
    assert_eq!(world.epoch_to(0, 1), 2);
}

/// A node that was away comes back after the epoch is active: the others greet it, so it follows at
/// once, although they send it nothing.
#[test]
fn e03_a_node_that_was_away_is_greeted() {
    let mut world = World::preparing();
    world.run(Op::Away(0));
    world.requests.retain(|request| request.node() != node(1));
    (1..NODES).for_each(|who| world.requests_of(who));
    for force in [true, true] {
        world.run(Op::Advance(force));
        for who in 1..NODES {
            world.run(Op::Read(who, usize::MAX));
            world.requests_of(who);
        }
    }
    assert_eq!((world.epoch_to(1, 0), world.epoch_to(1, 2)), (1, 2));
    world.run(Op::Back(0));
    world.run(Op::Tick(5));
    for _ in 0..2 {
        world.requests_of(0);
        (0..NODES).for_each(|who| world.run(Op::Read(who, usize::MAX)));
    }
    assert_eq!((world.epoch_to(1, 0), world.epoch_to(0, 1)), (2, 2));
}

/// A report that outlived its process: the node came back with the view that it had on disk, without
/// the others' keys, so nobody may take it for ready.
#[test]
fn e03_a_report_of_a_dead_process_is_not_that_of_the_next() {
    let mut world = World::new();
    world.calm();
    world.run(Op::StartRotation);
    let on_disk = world.log.len();
    (0..NODES).for_each(|who| world.run(Op::Read(who, usize::MAX)));
    (0..NODES).for_each(|who| world.requests_of(who));
    world.run(Op::Advance(false));
    (0..NODES).for_each(|who| world.run(Op::Read(who, usize::MAX)));
    let id = world.nodes[0].id;
    let late = world.requests.iter().position(|request| request.node() == id);
    let late = world.requests.swap_remove(late.expect("a report is on its way"));

    world.restart(0, on_disk);
    world.pump_all();
    world.requests_of(0);
    world.requests.push(late);
    (0..NODES).for_each(|who| world.requests_of(who));
    world.run(Op::Advance(true));
    world.run(Op::Read(1, usize::MAX));
    assert_eq!(world.newest().state, EpochState::Active);
    assert_eq!(world.epoch_to(1, 0), 1);
    assert!(world.is_installed(1, 0, world.nodes[1].sending[&id].0));
    world.calm();
    assert_eq!(world.epoch_to(1, 0), 2);
}
