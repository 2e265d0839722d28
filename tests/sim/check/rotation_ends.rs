//! **rotation-ends**: after faults heal and clocks are right, a rotation that is under way ends, and
//! every node that lives has its key of the active epoch in place.

use core::time::Duration;

use overlay_cluster::{control::Control, state::State};
use overlay_types::EpochState;
use tokio::time::{self, Instant};

use super::Violation;
use crate::{cluster::Cluster, nodes};

/// How long the rest of a rotation may take: two waits for nodes, and two for the gossip key.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the next gossip key may wait: nobody reports that it is there, so it waits for its time,
/// which a clock may have set that was ten minutes ahead.
const LONGEST_WAIT: Duration = Duration::from_mins(11);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until nothing is under way.
pub(crate) async fn check(cluster: &mut Cluster, violations: &mut Vec<Violation>) {
    let began = Instant::now();
    loop {
        let leader = cluster.controls().into_iter().find(|control| control.figures().leads);
        let Err(what) = leader.ok_or("nobody leads".to_owned()).and_then(difference) else {
            return;
        };
        if began.elapsed() >= LIMIT {
            violations.push(Violation::new("rotation-ends", what));
            return;
        }
        time::sleep(LOOK).await;
        // A role that was asked for before the faults healed may be given only now.
        cluster.follow_roles().await;
    }
}

fn difference(leader: &Control) -> Result<(), String> {
    leader.replica().read(|state: &State| {
        let view = state.view();
        let mut active = None;
        for epoch in view.key_epochs().values() {
            match epoch.state {
                EpochState::Preparing | EpochState::Ready => {
                    return Err(format!("epoch {} is {:?}", epoch.epoch, epoch.state));
                }
                EpochState::Active => active = Some(epoch.epoch),
                EpochState::Retired => {}
            }
        }
        let active = active.ok_or("no epoch is active")?;
        for node in view.nodes().keys() {
            if !view.node_keys().get(&(active, *node)).is_some_and(|key| key.ready) {
                return Err(format!("{} is not ready for epoch {active}", nodes::short(*node)));
            }
        }
        let ring = view.gossip_keys().ok_or("there is no gossip key")?;
        let next = ring.keys.iter().find(|key| key.epoch > ring.current);
        match next.filter(|_| ring.deadline > leader.now().after(LONGEST_WAIT)) {
            Some(next) => Err(format!("gossip key {} is not in use for long", next.epoch)),
            None => Ok(()),
        }
    })
}
