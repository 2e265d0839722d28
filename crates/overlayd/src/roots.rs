//! The node follows the roots of the cluster's CA (C04).
//!
//! ```text
//!   another root signs now ──► new certificate, kept, in use ──► shown to a manager
//!   same root, others trusted ──► these are trusted, kept
//! ```
//!
//! Every look compares what the cluster says with what the node has, so it does not matter where the
//! last run of the node ended.

use core::time::Duration;

use overlay_types::{NodeId, Role, Root, RootId, View};

use crate::{agent::Viewer, renewal::Renewal};

/// The nodes of a cluster spread over this time each, so that 5 000 of them renew within ten seconds
/// and not at once.
const SPREAD_PER_NODE: Duration = Duration::from_millis(2);
/// Wait after a step that failed: a manager is elected in a second.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What follows the roots of a running node.
#[derive(Debug)]
pub(crate) struct RootFollower {
    viewer: Viewer,
    renewal: Renewal,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Get a certificate of the root that signs now.
    Renew,
    /// Trust just these roots.
    Trust(Vec<Root>),
    /// Show the certificate to a manager.
    Report,
}

/// What the node has.
struct Own<'a> {
    node: NodeId,
    issuer: RootId,
    trusts: &'a dyn Fn(&[Root]) -> bool,
}

impl Step {
    /// The next one for a node that has `own`, as `view` wants it.
    fn next(own: &Own<'_>, view: &View) -> Option<Self> {
        let roots = &view.cluster()?.roots;
        // A certificate can be newer than the view.
        if !roots.iter().any(|root| root.id == own.issuer) {
            return None;
        }
        if roots.last()?.id != own.issuer {
            return Some(Self::Renew);
        }
        if !(own.trusts)(roots) {
            return Some(Self::Trust(roots.clone()));
        }
        let noted = view.nodes().get(&own.node)?.root;
        (noted != own.issuer).then_some(Self::Report)
    }
}

impl RootFollower {
    pub(crate) fn new(viewer: Viewer, renewal: Renewal) -> Self {
        Self { viewer, renewal }
    }

    /// Follows until the task is ended.
    pub(crate) async fn run(self) {
        let (mut revision, mut replaced) = (self.viewer.revision(), self.renewal.replaced());
        loop {
            // What comes from here on is looked at again.
            revision.mark_unchanged();
            replaced.mark_unchanged();
            let Some(step) = self.next() else {
                tokio::select! {
                    changed = revision.changed() => if changed.is_err() { return },
                    changed = replaced.changed() => if changed.is_err() { return },
                }
                continue;
            };
            pause(self.spread(&step)).await;
            if let Some(step) = self.next() {
                self.take(step).await;
            }
        }
    }

    fn next(&self) -> Option<Step> {
        let own = Own {
            node: self.renewal.identity().node,
            issuer: self.renewal.issuer(),
            trusts: &|roots| self.renewal.trusts(roots),
        };
        // A view from the disk may be older than the certificate.
        self.viewer.read_heard(|view| Step::next(&own, view)).flatten()
    }

    async fn take(&self, step: Step) {
        let taken = match &step {
            Step::Renew => self.renewal.renew().await,
            Step::Trust(roots) => self.renewal.trust(roots).await,
            Step::Report => self.renewal.report().await,
        };
        match taken {
            // The view that says that it was noted is on its way.
            Ok(()) if step == Step::Report => pause(RETRY_PAUSE).await,
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the node does not follow the roots of its cluster yet");
                pause(RETRY_PAUSE).await;
            }
        }
    }

    /// How long this node waits with the step. Managers cease to trust at once: they let others in.
    fn spread(&self, step: &Step) -> Duration {
        match (step, self.renewal.identity().role) {
            (Step::Report, _) | (Step::Trust(_), Role::Manager) => return Duration::ZERO,
            _ => {}
        }
        let nodes = self.viewer.read(|view| view.nodes().len());
        let all = SPREAD_PER_NODE.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX));
        all.mul_f64(rand::random())
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that spreads renewals over time")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests;
