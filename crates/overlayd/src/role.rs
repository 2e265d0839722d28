//! The node takes up the role that the cluster gives it.
//!
//! ```text
//!            promoted: make the state, get a manager's certificate, serve
//!         ┌───────────────────────────────────────────────────────────────┐
//!      worker                                                          manager
//!         └───────────────────────────────────────────────────────────────┘
//!            demoted: get a worker's certificate (a manager gives it once the
//!                     raft group is without the node), stop, erase the state
//! ```
//!
//! The state is made before the certificate is kept: a manager that starts without a state has lost
//! its log, and is refused.

use core::time::Duration;

use overlay_types::Role;

use crate::{NodeError, agent::Viewer, control_plane::ControlPlane, disk::Disk, renewal::Renewal};

/// Wait after a change of role that failed: a manager that is being demoted leaves the raft group
/// within a second or so.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What follows the role of a running node.
#[derive(Debug)]
pub(crate) struct RoleFollower {
    pub(crate) viewer: Viewer,
    pub(crate) renewal: Renewal,
    pub(crate) control_plane: ControlPlane,
    pub(crate) disk: Disk,
}

impl RoleFollower {
    /// Follows until the task is ended.
    pub(crate) async fn run(self) {
        let mut revision = self.viewer.revision();
        let mut told = String::new();
        loop {
            let wait = match self.follow().await {
                Ok(()) => Duration::MAX,
                Err(error) => {
                    // The same again and again would hide the rest of the log.
                    if told != error.to_string() {
                        tracing::warn!(%error, "the node has not taken up its new role yet");
                        told = error.to_string();
                    }
                    RETRY_PAUSE
                }
            };
            if let Ok(Err(_)) = tokio::time::timeout(wait, revision.changed()).await {
                return;
            }
        }
    }

    async fn follow(&self) -> Result<(), NodeError> {
        let identity = self.renewal.identity();
        let given = |view: &overlay_types::View| {
            view.nodes().get(&identity.node).map(|node| (node.role, node.role_since))
        };
        // A view from the disk may be older than the certificate.
        let Some((role, since)) = self.viewer.read_heard(given).flatten() else { return Ok(()) };
        if (identity.role, role) == (Role::Manager, Role::Manager) && self.renewal.as_of() < since {
            // It was demoted and promoted again, and missed that: managers that have heard of the
            // first alone refuse this certificate.
            self.renewal.renew().await?;
        }
        match (identity.role, role) {
            (Role::Worker, Role::Manager) => self.promote().await,
            (Role::Manager, Role::Worker) => self.demote().await,
            (Role::Manager, Role::Manager) if self.control_plane.control().is_none() => {
                // The last attempt got as far as the certificate.
                self.serve().await
            }
            _ => Ok(()),
        }
    }

    async fn promote(&self) -> Result<(), NodeError> {
        let opened = self.control_plane.open(true).await;
        // What a full disk left of a new state would be refused from then on; a worker has no other.
        let control = opened.or_else(|error| self.disk.erase_state().and(Err(error)))?;
        if let Err(error) = self.renewal.renew().await {
            control.stop().await;
            return Err(error);
        }
        tracing::info!("this node is a manager now");
        self.control_plane.serve(control)
    }

    async fn serve(&self) -> Result<(), NodeError> {
        let control = self.control_plane.open(false).await?;
        self.control_plane.serve(control)
    }

    async fn demote(&self) -> Result<(), NodeError> {
        self.renewal.renew().await?;
        self.control_plane.stop().await;
        self.disk.erase_state()?;
        self.disk.vault().leave_unlocked()?;
        tracing::info!("this node is a worker now");
        Ok(())
    }
}
