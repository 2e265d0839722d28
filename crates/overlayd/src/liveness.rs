//! Which nodes of the view are dead: what gossip says, and what it never said.
//!
//! ```text
//!   in the view, alive in gossip ────────────────────────────► alive
//!   in the view, dead or left in gossip ─────────────────────► dead, left
//!   in the view, unknown to gossip ──for less than the grace─► unknown, treated as alive
//!                                  └─longer──────────────────► dead
//! ```
//!
//! The last line is for a node that died before this one started: no gossip is about it.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_api::v1;
use overlay_cluster::server::Verdicts;
use overlay_gossip::{MemberState, io::Members};
use overlay_types::NodeId;

/// How long a node may be unknown to gossip. A node that lives is heard of within seconds of its
/// start or ours; at 10 % loss the last of 100 nodes takes less than twenty.
const GRACE: Duration = Duration::from_secs(20);

/// Judges the nodes of the view.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    unknown_since: BTreeMap<NodeId, Instant>,
}

impl Judge {
    /// The verdict on each of `nodes`, and when the next one may change by itself.
    pub(crate) fn judge(
        &mut self,
        nodes: &BTreeSet<NodeId>,
        members: &Members,
        now: Instant,
    ) -> (Verdicts, Option<Instant>) {
        let unknown = |node: &NodeId| nodes.contains(node) && !members.contains_key(node);
        self.unknown_since.retain(|node, _| unknown(node));
        let mut verdicts = Verdicts::new();
        let mut wake = None;
        for node in nodes {
            let verdict = match members.get(node) {
                Some(MemberState::Alive | MemberState::Suspect) => v1::Liveness::Alive,
                Some(MemberState::Dead) => v1::Liveness::Dead,
                Some(MemberState::Left) => v1::Liveness::Left,
                None => {
                    let until = *self.unknown_since.entry(*node).or_insert(now) + GRACE;
                    if now < until {
                        wake = Some(wake.map_or(until, |at: Instant| at.min(until)));
                        v1::Liveness::Unknown
                    } else {
                        v1::Liveness::Dead
                    }
                }
            };
            verdicts.insert(*node, verdict);
        }
        (verdicts, wake)
    }
}

/// The nodes that are dead or have left.
pub(crate) fn dead(verdicts: &Verdicts) -> BTreeSet<NodeId> {
    let gone = |verdict: &v1::Liveness| matches!(verdict, v1::Liveness::Dead | v1::Liveness::Left);
    verdicts.iter().filter(|(_, verdict)| gone(verdict)).map(|(node, _)| *node).collect()
}

/// The nodes that a key rotation waits for: those that are not dead.
pub(crate) fn alive(verdicts: &Verdicts) -> BTreeSet<NodeId> {
    let dead = dead(verdicts);
    verdicts.keys().filter(|node| !dead.contains(node)).copied().collect()
}

/// The nodes that gossip has heard, and that are not dead.
pub(crate) fn running(verdicts: &Verdicts) -> BTreeSet<NodeId> {
    let heard = verdicts.iter().filter(|(_, verdict)| **verdict == v1::Liveness::Alive);
    heard.map(|(node, _)| *node).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]

    use super::*;

    #[test]
    fn g04_a_node_that_gossip_never_heard_of_is_dead_after_the_grace() {
        let (own, other) = (NodeId::from_u128(1), NodeId::from_u128(2));
        let nodes = BTreeSet::from([own, other]);
        let mut members = Members::from([(own, MemberState::Alive)]);
        let start = Instant::now();
        let mut judge = Judge::default();
        let (verdicts, wake) = judge.judge(&nodes, &members, start);
        assert_eq!(verdicts[&other], v1::Liveness::Unknown);
        assert_eq!((dead(&verdicts), wake), (BTreeSet::new(), Some(start + GRACE)));
        assert_eq!((alive(&verdicts), running(&verdicts)), (nodes.clone(), [own].into()));

        let (verdicts, wake) = judge.judge(&nodes, &members, start + GRACE);
        assert_eq!((dead(&verdicts), wake), (BTreeSet::from([other]), None));

        members.insert(other, MemberState::Alive);
        let (verdicts, _) = judge.judge(&nodes, &members, start + 2 * GRACE);
        assert_eq!(alive(&verdicts), nodes);

        // Forgotten by gossip: a new grace begins.
        members.remove(&other);
        let (verdicts, _) = judge.judge(&nodes, &members, start + 3 * GRACE);
        assert_eq!(verdicts[&other], v1::Liveness::Unknown);
    }

    #[test]
    fn g04_a_suspect_is_alive_and_who_left_is_not() {
        let ids = [1, 2, 3].map(NodeId::from_u128);
        let states = [MemberState::Suspect, MemberState::Left, MemberState::Dead];
        let members: Members = ids.into_iter().zip(states).collect();
        let now = Instant::now();
        let (verdicts, wake) = Judge::default().judge(&ids.into(), &members, now);
        assert_eq!(alive(&verdicts), BTreeSet::from([ids[0]]));
        assert_eq!(dead(&verdicts), BTreeSet::from([ids[1], ids[2]]));
        assert_eq!(wake, None);
    }
}
