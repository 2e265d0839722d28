//! One attempt at finding who leads, and how long there are others.

use core::time::Duration;

use overlay_api::status::{Reason, reason, with_reason};
use overlay_types::NodeId;
use tokio::time::Instant;
use tonic::Status;

use crate::raft::types::{Member, Raft};

/// How long a write or read looks for a leader. Elections end within two seconds; a caller that
/// waited five hears that there is no quorum.
pub(super) const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Wait before the same leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why this node did not answer by itself.
pub(super) enum Attempt {
    Refused(Status),
    Elsewhere((NodeId, Member)),
    NoLeader,
}

impl Attempt {
    pub(super) fn forward(leader: Option<NodeId>, member: Option<Member>) -> Self {
        leader.zip(member).map_or(Self::NoLeader, Self::Elsewhere)
    }
}

/// The leader lets this node in no more.
pub(super) fn is_barred(status: &Status) -> bool {
    let barred =
        [Reason::NodeRemoved, Reason::NotManager, Reason::CertificateExpired, Reason::FormerRoot];
    reason(status).is_some_and(|reason| barred.contains(&reason))
}

/// It is no fault of who asked this node: another manager answers.
pub(super) fn no_manager(status: &Status) -> Status {
    let message = format!("this node is no manager any more ({})", status.message());
    with_reason(Reason::ManagerOut, message)
}

pub(super) fn not_leader() -> Status {
    with_reason(Reason::NoLeader, "this manager does not lead (any more)")
}

/// Waits until this manager takes `leader` for the leader no more: one that lost power answers nothing
/// that was asked of it, and another one is elected long before a call gives up.
pub(super) async fn deposed(raft: Raft, leader: NodeId) {
    let mut metrics = raft.server_metrics();
    // An error: the raft core ended, and knows nobody.
    let _ = metrics.wait_for(|metrics| metrics.current_leader != Some(leader)).await;
}

/// When a call stops looking for a leader.
pub(super) struct Patience(pub(super) Instant);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Instant::now() + LEADER_PATIENCE)
    }

    /// Waits for news of the raft core, or a little.
    pub(super) async fn pause(&self, raft: &Raft) -> Result<(), Status> {
        let mut metrics = raft.server_metrics();
        metrics.mark_unchanged();
        let _ = tokio::time::timeout(RETRY_PAUSE, metrics.changed()).await;
        if Instant::now() < self.0 {
            return Ok(());
        }
        Err(with_reason(
            Reason::NoLeader,
            "no manager leads: too few of them can be reached; bring one back. A write may still be \
             applied: repeat it with the same request id",
        ))
    }
}
