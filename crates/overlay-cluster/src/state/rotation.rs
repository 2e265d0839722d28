//! The next step of a key rotation, for the leader to propose.
//!
//! ```text
//!                 all live nodes            all live nodes           a newer epoch
//!   StartRotation  have published            are ready               is active       drained
//!  ─────────────► preparing ───────► ready ───────────────► active ──────► retired ──────► gone
//!                     └── or the grace period is over ──┘     │
//!        ▲                                                    │ deadline
//!        └────────────────────────────────────────────────────┘
//!
//!   gossip ring:   current ── period over ──► current, next ── grace over ──► next is current
//! ```
//!
//! Deadlines are replicated, so another leader goes on where the last one stopped (C09). A step that
//! two leaders propose is taken once: it names the epoch and the state that it leads to. A deadline
//! that lies too far ahead is one of a clock that was wrong, and has come (R07).

use core::time::Duration;
use std::collections::BTreeSet;

use overlay_types::{EpochState, GossipKey, KeyEpoch, NodeId, UnixMillis};

use super::{Action, State, key};

/// How far the clocks of two leaders may differ: more than where any of them is kept right.
const LARGEST_SKEW: Duration = Duration::from_mins(10);

/// How long a rotation waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RotationPolicy {
    /// Longest wait for keys, and then for readiness, of nodes that count as alive; and how long a
    /// gossip key is handed out before it is used. Default 30 s: a watch that lives delivers within
    /// one, and a node that does not answer for 30 catches up when it is back.
    pub grace: Duration,
    /// How long nodes still open what was sealed with the epoch before. Default 60 s: longer than
    /// any packet is under way, and than a live node takes to hear that a new epoch is active.
    pub drain: Duration,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), drain: Duration::from_mins(1) }
    }
}

impl RotationPolicy {
    /// Starts a rotation of the data-plane keys now.
    pub fn start(&self, state: &State, now: UnixMillis) -> Action {
        Action::StartRotation { epoch: state.next_epoch(), deadline: now.after(self.grace) }
    }

    /// Starts a rotation of the gossip key now. `fresh` is drawn at random.
    pub fn start_gossip(&self, state: &State, now: UnixMillis, fresh: [u8; 32]) -> Action {
        let key = GossipKey { epoch: state.next_gossip_epoch(), key: fresh };
        Action::RotateGossipKey { key, deadline: now.after(self.grace) }
    }

    /// What is due at `now`, if anything; ask again after it was applied.
    ///
    /// `live` are the nodes that gossip says are alive: the others neither block a rotation nor
    /// are left out, they catch up. `fresh` becomes a gossip key if one is due.
    pub fn next_step(
        &self,
        state: &State,
        live: &BTreeSet<NodeId>,
        now: UnixMillis,
        fresh: [u8; 32],
    ) -> Option<Action> {
        let period = state.view().cluster()?.rotation_period;
        let mut epochs = state.view().key_epochs().values();
        let step = epochs.find_map(|epoch| self.epoch_step(state, epoch, live, now, period));
        step.or_else(|| self.gossip_step(state, now, period, fresh))
    }

    fn epoch_step(
        &self,
        state: &State,
        epoch: &KeyEpoch,
        live: &BTreeSet<NodeId>,
        now: UnixMillis,
        period: Duration,
    ) -> Option<Action> {
        let within = match epoch.state {
            EpochState::Preparing | EpochState::Ready => self.grace,
            EpochState::Active => period,
            EpochState::Retired => self.drain,
        };
        let due = has_come(epoch.deadline, now, within);
        let keys = state.view().node_keys();
        let mut members = live.iter().filter(|node| state.view().nodes().contains_key(node));
        let key = |node: &NodeId| keys.get(&(epoch.epoch, *node));
        let advance = |to, deadline| {
            let drained = now.after(self.drain);
            Some(Action::AdvanceEpoch { epoch: epoch.epoch, to, deadline, drained })
        };
        match epoch.state {
            EpochState::Preparing if due || members.all(|node| key(node).is_some()) => {
                advance(EpochState::Ready, now.after(self.grace))
            }
            EpochState::Ready if due || members.all(|node| key(node).is_some_and(|k| k.ready)) => {
                advance(EpochState::Active, now.after(period))
            }
            EpochState::Active if due && is_last(state, epoch) => Some(self.start(state, now)),
            EpochState::Retired if due => Some(Action::RemoveEpoch(epoch.epoch)),
            _ => None,
        }
    }

    fn gossip_step(
        &self,
        state: &State,
        now: UnixMillis,
        period: Duration,
        fresh: [u8; 32],
    ) -> Option<Action> {
        let ring = state.view().gossip_keys()?;
        let next = key::next_key(ring);
        let within = if next.is_some() { self.grace } else { period };
        if !has_come(ring.deadline, now, within) {
            return None;
        }
        Some(match next {
            Some(next) => Action::AdvanceGossipKey { to: next.epoch, deadline: now.after(period) },
            None => self.start_gossip(state, now, fresh),
        })
    }
}

/// Whether it is past `deadline`, which was set for `within` from then; or so far from it that it
/// must have been set by a clock that was ahead, or is read by one that was set back.
fn has_come(deadline: UnixMillis, now: UnixMillis, within: Duration) -> bool {
    now >= deadline || deadline > now.after(within).after(LARGEST_SKEW)
}

/// Whether no rotation is under way, and there is room for one.
fn is_last(state: &State, epoch: &KeyEpoch) -> bool {
    let epochs = state.view().key_epochs();
    epochs.len() < key::MAX_EPOCHS && epochs.keys().next_back() == Some(&epoch.epoch)
}
