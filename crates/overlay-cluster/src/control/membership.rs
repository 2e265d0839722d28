//! Which change of the raft group comes next. Pure.
//!
//! ```text
//!   node with role manager ──► learner ── caught up ──► voter
//!   member that is no manager any more ───────────────► removed
//! ```
//!
//! A change of the voters has two steps, and between them a quorum of those before and one of those after it
//! are needed (Raft, §6). What a leader has left between them is ended first: another change from there would
//! forget those before, and the leader may be one of them, who is in the group no more then.

use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{Node, NodeId, Role};

use crate::raft::types::Member;

/// Entries that a learner may lack when it becomes a voter. A voter that lags further could cost
/// the group its quorum until it has caught up.
const CAUGHT_UP: u64 = 64;

/// What the leader knows of the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) voters: BTreeSet<NodeId>,
    /// A change of the voters is between its two steps.
    pub(super) joint: bool,
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Last log index, and how far each other member has the log.
    pub(super) last: u64,
    pub(super) matched: BTreeMap<NodeId, u64>,
}

/// One change of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// End the change of the voters that is under way.
    Settle,
    /// Add it, or note its new address.
    AddLearner(NodeId, Member),
    /// It has the log: let it vote.
    Promote(NodeId),
    /// It is no manager: it neither votes nor gets the log.
    Remove(NodeId),
}

/// The next step from `group` to the managers among `nodes`; `None` when there is nothing to do
/// or something has to be waited for.
pub(super) fn next_step<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    group: &Group,
) -> Option<Step> {
    if group.joint {
        return Some(Step::Settle);
    }
    let managers: BTreeMap<NodeId, &Node> = nodes
        .into_iter()
        .filter(|node| node.role == Role::Manager)
        .map(|node| (node.id, node))
        .collect();
    // Before the cluster is made there is a member and no node.
    let former = || group.members.keys().find(|id| !managers.contains_key(id)).copied();
    let former = if managers.is_empty() { None } else { former() };
    let added = managers.values().find_map(|node| {
        let member = member(node);
        let caught_up =
            group.matched.get(&node.id).is_some_and(|index| index + CAUGHT_UP >= group.last);
        if group.members.get(&node.id) != Some(&member) {
            Some(Step::AddLearner(node.id, member))
        } else if !group.voters.contains(&node.id) && caught_up {
            Some(Step::Promote(node.id))
        } else {
            None
        }
    });
    added.or(former.map(Step::Remove))
}

/// A node as a member of the group.
pub(super) fn member(node: &Node) -> Member {
    // Unspecified: another node has its address, and it has not said where it is.
    let control = Some(node.control).filter(|control| !control.ip().is_unspecified());
    Member { name: Some(node.name.clone()), control }
}

#[cfg(test)]
mod tests {
    use overlay_testkit::objects;

    use super::*;

    fn node(id: u128, role: Role) -> Node {
        Node { role, ..objects::node(id) }
    }

    #[test]
    fn a_manager_becomes_learner_then_voter() {
        let nodes = [node(1, Role::Manager), node(2, Role::Worker), node(3, Role::Manager)];
        let [first, _, third] = nodes.each_ref().map(|n| n.id);
        let mut group = Group {
            voters: [first].into(),
            joint: false,
            members: [(first, member(&nodes[0]))].into(),
            last: 1000,
            matched: [(first, 1000)].into(),
        };
        assert_eq!(next_step(&nodes, &group), Some(Step::AddLearner(third, member(&nodes[2]))));

        group.members.insert(third, member(&nodes[2]));
        assert_eq!(next_step(&nodes, &group), None);
        group.matched.insert(third, 900);
        assert_eq!(next_step(&nodes, &group), None);
        group.matched.insert(third, 990);
        assert_eq!(next_step(&nodes, &group), Some(Step::Promote(third)));
        group.joint = true;
        assert_eq!(next_step(&nodes, &group), Some(Step::Settle));
        group.joint = false;
        group.voters.insert(third);
        assert_eq!(next_step(&nodes, &group), None);
    }

    #[test]
    fn c06_who_is_no_manager_any_more_is_removed_after_others_are_added() {
        let nodes = [node(1, Role::Manager), node(2, Role::Worker), node(3, Role::Manager)];
        let [first, demoted, third] = nodes.each_ref().map(|n| n.id);
        let gone = NodeId::from_u128(9);
        let mut group = Group { last: 10, ..Group::default() };
        for (id, member) in [(first, member(&nodes[0])), (demoted, member(&nodes[1]))] {
            group.members.insert(id, member);
            group.voters.insert(id);
        }
        group.members.insert(gone, member(&nodes[1]));
        assert_eq!(next_step(&nodes, &group), Some(Step::AddLearner(third, member(&nodes[2]))));
        group.members.insert(third, member(&nodes[2]));
        assert_eq!(next_step(&nodes, &group), Some(Step::Remove(demoted)));
        group.members.remove(&demoted);
        assert_eq!(next_step(&nodes, &group), Some(Step::Remove(gone)));
        // A group that was just formed has no nodes yet.
        assert_eq!(next_step([], &group), None);
    }

    #[test]
    fn a_member_that_moved_is_noted_at_its_new_address() {
        let mut moved = node(3, Role::Manager);
        let mut group = Group::default();
        group.members.insert(moved.id, member(&moved));
        group.voters.insert(moved.id);
        moved.control = "127.0.0.9:2377".parse().unwrap();
        let step = Step::AddLearner(moved.id, member(&moved));
        assert_eq!(next_step([&moved], &group), Some(step));
    }
}
