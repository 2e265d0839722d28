//! **membership**: after faults heal, those vote that are managers, and nobody else is in the raft
//! group; and what the operator was told of roles is so.

use core::time::Duration;
use std::collections::BTreeSet;

use overlay_cluster::state::State;
use overlay_types::{NodeId, Role, View};
use tokio::time::{self, Instant};

use super::Violation;
use crate::{
    cluster::Cluster,
    history::{Ask, Call, Told},
    nodes,
};

/// How long managers may take to begin, to catch up and to end.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the raft group is what the state says, as long as that may take.
pub(crate) async fn check(cluster: &mut Cluster, violations: &mut Vec<Violation>) {
    let healed = Instant::now();
    while let Err(difference) = difference(cluster) {
        if healed.elapsed() >= LIMIT {
            violations.push(Violation::new("membership", difference));
            return;
        }
        time::sleep(LOOK).await;
        cluster.follow_roles().await;
    }
}

fn difference(cluster: &Cluster) -> Result<(), String> {
    let controls = cluster.controls();
    let leader = controls.iter().find(|control| control.figures().leads);
    let leader = leader.ok_or("nobody leads")?;
    let wanted: BTreeSet<NodeId> = leader.replica().read(|state: &State| {
        let managers = state.view().nodes().values().filter(|node| node.role == Role::Manager);
        managers.map(|node| node.id).collect()
    });
    let voters = leader.figures().voters;
    if voters != wanted.len() as u64 {
        return Err(format!("{voters} nodes vote, and {} are managers", wanted.len()));
    }
    for id in cluster.everyone() {
        if leader.is_member(id) != wanted.contains(&id) {
            return Err(format!("{}: a manager and no member, or a member", nodes::short(id)));
        }
    }
    for machine in &cluster.machines {
        let (who, runs) = (nodes::short(machine.id), machine.voter.control().is_some());
        let known = cluster.knows(machine.id);
        if known && runs != wanted.contains(&machine.id) {
            return Err(format!("{who} runs as a manager: {runs}"));
        }
    }
    Ok(())
}

/// The last role that was acknowledged is the node's, unless another one was asked for since.
pub(crate) fn check_roles(calls: &[Call], last: &View) -> Vec<Violation> {
    let set = |call: &Call| match (&call.ask, &call.told) {
        (Ask::SetRole { node, role }, told) => Some((*node, *role, *told == Told::Done)),
        _ => None,
    };
    let mut violations = Vec::new();
    for call in calls {
        let Some((node, role, true)) = set(call) else { continue };
        let rivals = calls.iter().filter(|other| other.number != call.number);
        let mut rivals = rivals.filter(|other| other.end > call.begin);
        if rivals.any(|other| set(other).is_some_and(|(id, ..)| id == node)) {
            continue;
        }
        let Some(known) = last.nodes().get(&node).filter(|known| known.role != role) else {
            continue;
        };
        let who = nodes::short(node);
        let text = format!("call {} made {who} a {role}, and it is a {}", call.number, known.role);
        violations.push(Violation::new("membership", text));
    }
    violations
}
