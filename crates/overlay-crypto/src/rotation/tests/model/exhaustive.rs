//! Every order of what can happen in a rotation, within bounds, instead of some that are drawn.
//!
//! A state is told from others by all that decides what can follow: times count from now on.

use core::hash::{Hash, Hasher};
use std::hash::DefaultHasher;

use super::*;

/// Of how many states one is led to its end: that everybody is connected again afterwards.
const SETTLED_OF: usize = 500;

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Budget {
    rotations: u8,
    /// Steps that the managers take although somebody is missing.
    forces: u8,
    /// Requests that are lost.
    losses: u8,
    restarts: u8,
    absences: u8,
    /// Times that pass: six seconds, after which requests are repeated, or a minute.
    ticks: u8,
}

/// A way to a state, told when something is wrong there.
struct Trail(Vec<Op>);

impl Drop for Trail {
    #[expect(clippy::print_stderr, reason = "how to get there is what a failure has to say")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this leads there: {:?}", self.0);
        }
    }
}

impl Budget {
    /// What can happen next, and what may happen after that.
    fn steps(self, world: &World) -> Vec<(Op, Self)> {
        let nodes = 0..world.nodes.len();
        let mut steps = vec![(Op::Advance(false), self)];
        let mut spend = |left: u8, op: Op, after: fn(&mut Self)| {
            if left > 0 {
                let mut budget = self;
                after(&mut budget);
                steps.push((op, budget));
            }
        };
        for who in nodes.clone() {
            if world.nodes[who].read < world.log.len() {
                spend(1, Op::Read(who, 1), |_| {});
            }
            if world.nodes[who].away {
                spend(1, Op::Back(who), |_| {});
            } else {
                spend(self.absences, Op::Away(who), |b| b.absences -= 1);
            }
            spend(self.restarts, Op::Restart(who), |b| b.restarts -= 1);
            for to in nodes.clone().filter(|to| *to != who) {
                spend(1, Op::Talk(who, to), |_| {});
            }
        }
        for at in 0..world.requests.len() {
            spend(1, Op::Request(at, false), |_| {});
            spend(self.losses, Op::Request(at, true), |b| b.losses -= 1);
        }
        spend(self.forces, Op::Advance(true), |b| b.forces -= 1);
        spend(self.rotations, Op::StartRotation, |b| b.rotations -= 1);
        for seconds in [6, 60] {
            spend(self.ticks, Op::Tick(seconds), |b| b.ticks -= 1);
        }
        steps
    }

    /// Looks at every state that can be reached. Returns how many there are.
    fn search(self, nodes: usize) -> usize {
        let mut first = World::of(nodes);
        first.calm();
        assert_eq!(first.connected.len(), nodes * (nodes - 1));
        let mut seen = BTreeSet::from([first.fingerprint(self)]);
        let mut open = vec![(first, self, Vec::new())];
        while let Some((world, budget, way)) = open.pop() {
            for (op, budget) in budget.steps(&world) {
                let mut next = world.clone();
                let trail = Trail(way.iter().copied().chain([op]).collect());
                next.run(op);
                if !seen.insert(next.fingerprint(budget)) {
                    continue;
                }
                if seen.len().is_multiple_of(SETTLED_OF) {
                    next.clone().settle();
                }
                open.push((next, budget, trail.0.clone()));
            }
        }
        seen.len()
    }
}

impl World {
    /// A number that states differ in unless they have the same future.
    fn fingerprint(&self, budget: Budget) -> u64 {
        let mut hash = DefaultHasher::new();
        budget.hash(&mut hash);
        let from_now = |at: Option<Instant>| {
            at.map(|at| (at.saturating_duration_since(self.now), at > self.now))
        };
        // Each is read within a time; what all have read has no more to say.
        let read = self.nodes.iter().map(|node| node.read).min().unwrap_or_default();
        self.log.len().hash(&mut hash);
        for (written, _) in &self.log[read..] {
            self.now.duration_since(*written).min(MAX_LAG).hash(&mut hash);
        }
        for status in self.epochs.values() {
            (status.epoch, status.state, from_now(status.drained)).hash(&mut hash);
        }
        for (place, key) in &self.keys {
            (place, key.public, key.ready).hash(&mut hash);
        }
        let mut requests: Vec<_> = self
            .requests
            .iter()
            .map(|request| {
                let (Request::Publish(key) | Request::Ready(key)) = request;
                (key.node, key.epoch, key.public, key.ready)
            })
            .collect();
        requests.sort_unstable();
        requests.hash(&mut hash);
        self.connected.hash(&mut hash);
        for node in &self.nodes {
            (node.read, node.away, &node.lost).hash(&mut hash);
            let Rotation { generations, floor, sending, .. } = &node.rotation;
            (floor, sending).hash(&mut hash);
            for (epoch, generation) in generations {
                epoch.hash(&mut hash);
                generation.hash_from(from_now, &mut hash);
            }
        }
        hash.finish()
    }
}

/// Nothing goes wrong: no packet is lost, in any order, through two rotations that follow one another.
#[test]
fn e03_lossless_rotation_in_every_order_of_two_nodes() {
    let states = Budget { rotations: 2, ..Budget::default() }.search(2);
    assert!(states > 1_000, "{states} states");
}

#[test]
fn e03_lossless_rotation_in_every_order_with_managers_that_do_not_wait() {
    let states = Budget { rotations: 1, forces: 1, losses: 1, ..Budget::default() };
    assert!(states.search(2) > 1_000);
}

#[test]
fn e03_lossless_rotation_in_every_order_with_a_restart() {
    let states = Budget { rotations: 1, restarts: 1, ..Budget::default() };
    assert!(states.search(2) > 1_000);
}

#[test]
fn e03_lossless_rotation_in_every_order_with_an_absence() {
    let states = Budget { rotations: 1, absences: 1, forces: 2, ..Budget::default() };
    assert!(states.search(2) > 1_000);
}
