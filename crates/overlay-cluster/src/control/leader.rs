//! What falls to the leader: rotation of keys and of the root, and voters for managers that joined.

use core::time::Duration;
use std::collections::BTreeSet;

use openraft::{ChangeMembers, ServerState};
use overlay_types::{NodeId, RequestId};
use tokio::sync::watch;

use super::{
    Control,
    membership::{self, Group, Step},
};
use crate::raft::types::Raft;

/// Between two looks at what is due. Deadlines are hours; joins and rotations by hand should not
/// wait.
const TICK: Duration = Duration::from_millis(200);

pub(super) async fn run(control: &Control, alive: watch::Receiver<BTreeSet<NodeId>>) {
    let mut cores = control.0.core.subscribe();
    let mut stop = control.0.stop.subscribe();
    loop {
        let raft = cores.borrow_and_update().raft.clone();
        follow(control, &raft, &alive).await;
        // The core has ended, and there will be another one unless the manager stops.
        tokio::select! {
            changed = cores.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Does what is due while `raft` leads, until it ends.
async fn follow(control: &Control, raft: &Raft, alive: &watch::Receiver<BTreeSet<NodeId>>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut metrics = raft.server_metrics();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = metrics.changed() => if changed.is_err() { return },
        }
        if raft.metrics().borrow().running_state.is_err() {
            return;
        }
        if metrics.borrow_and_update().state != ServerState::Leader {
            continue;
        }
        step_membership(control).await;
        step_root(control).await;
        let alive = alive.borrow().clone();
        step_keys(control, &alive).await;
    }
}

async fn step_keys(control: &Control, alive: &BTreeSet<NodeId>) {
    if alive.is_empty() {
        // Gossip has not said a word yet: nobody could be waited for.
        return;
    }
    let policy = control.0.rotation;
    let next =
        |state: &crate::state::State| policy.next_step(state, alive, control.now(), rand::random());
    while let Some(action) = control.replica().read(next) {
        let request = RequestId::from_u128(rand::random());
        if let Err(status) = control.write(request, action).await {
            tracing::warn!(reason = status.message(), "key rotation waits");
            return;
        }
    }
}

/// Ends a root rotation that waits for nobody any more.
async fn step_root(control: &Control) {
    let next = |state: &crate::state::State| state.root_rotation()?.next_step();
    let Some(action) = control.replica().read(next) else { return };
    match control.write(RequestId::from_u128(rand::random()), action).await {
        Ok(_) => tracing::info!("root rotation ended"),
        Err(status) => tracing::warn!(reason = status.message(), "root rotation goes on"),
    }
}

async fn step_membership(control: &Control) {
    let group = group(control);
    // A leader that took itself out leads on for a moment, and must not change the group any more.
    if !group.members.contains_key(&control.node()) {
        return;
    }
    let next =
        |state: &crate::state::State| membership::next_step(state.view().nodes().values(), &group);
    let Some(step) = control.replica().read(next) else { return };
    tracing::info!(?step, "raft group changes");
    let raft = control.raft();
    let outcome = match step {
        // To the later voters, and nobody besides.
        Step::Settle => {
            raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await
        }
        Step::AddLearner(id, member) if group.voters.contains(&id) => {
            let change = ChangeMembers::SetNodes([(id, member)].into());
            raft.change_membership(change, false).await
        }
        Step::AddLearner(id, member) => raft.add_learner(id, member, false).await,
        Step::Promote(id) => {
            raft.change_membership(ChangeMembers::AddVoterIds([id].into()), false).await
        }
        Step::Remove(id) if group.voters.contains(&id) => {
            raft.change_membership(ChangeMembers::RemoveVoters([id].into()), false).await
        }
        Step::Remove(id) => {
            raft.change_membership(ChangeMembers::RemoveNodes([id].into()), false).await
        }
    };
    if let Err(error) = outcome {
        tracing::warn!(%error, "raft group not changed yet");
    }
}

fn group(control: &Control) -> Group {
    let metrics = control.raft().metrics().borrow().clone();
    let membership = metrics.membership_config.membership();
    let matched = metrics.replication.unwrap_or_default().into_iter();
    Group {
        voters: membership.voter_ids().collect(),
        joint: membership.get_joint_config().len() > 1,
        members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        last: metrics.last_log_index.unwrap_or(0),
        matched: matched.filter_map(|(id, log_id)| Some((id, log_id?.index))).collect(),
    }
}
