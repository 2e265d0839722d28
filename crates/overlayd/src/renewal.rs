//! Renewal of the node's certificate: well before it ends, and at once when the cluster gives the
//! node another role.

use core::{ops::Range, time::Duration};
use std::sync::Arc;

use overlay_api::v1::{self, membership_client::MembershipClient};
use overlay_cluster::{
    ca::{NodeTls, PendingJoin, root::BACKDATE},
    control::now,
};
use overlay_types::{Role, UnixMillis};

use crate::{NodeError, agent::Viewer, disk::Disk, managers::Managers};

/// Wait after a renewal that failed. Months are left; the managers need not be pressed.
const RETRY_PAUSE: Duration = Duration::from_mins(1);
/// As above, while the node still has the role that it was relieved of.
const ROLE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep, so that a clock that was set or a host that was suspended is noticed.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// What renews the certificate of a running node.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) tls: Arc<NodeTls>,
    pub(crate) disk: Disk,
    pub(crate) managers: Managers,
    pub(crate) viewer: Viewer,
}

/// When to renew a certificate: at 50-80 % of its life, as `draw` between 0 and 1 says, so that
/// nodes that joined together do not renew together.
fn due(validity: &Range<UnixMillis>, draw: f64) -> UnixMillis {
    let issued = validity.start.after(BACKDATE);
    let life = validity.end.since(issued);
    issued.after(life.mul_f64(0.5 + 0.3 * draw.clamp(0.0, 1.0)))
}

impl Renewal {
    /// Renews whenever it is time. Runs until the task is ended.
    pub(crate) async fn run(self) {
        let mut revision = self.viewer.revision();
        let mut due = due(&self.tls.validity(), rand::random());
        loop {
            let wrong_role = self.role().is_some_and(|role| role != self.tls.identity().role);
            let wait = if wrong_role || now() >= due {
                match self.renew().await {
                    Ok(()) => {
                        due = self::due(&self.tls.validity(), rand::random());
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "certificate not renewed yet"),
                }
                if wrong_role { ROLE_RETRY_PAUSE } else { RETRY_PAUSE }
            } else {
                due.since(now()).min(LONGEST_SLEEP)
            };
            let news = tokio::time::timeout(wait, revision.changed());
            if let Ok(Err(_)) = news.await {
                return;
            }
        }
    }

    /// The role that the cluster gives this node now.
    fn role(&self) -> Option<Role> {
        let own = self.tls.identity().node;
        self.viewer.read_heard(|view| view.nodes().get(&own).map(|node| node.role)).flatten()
    }

    /// Renews now. Connections in use go on; new ones are made with the new certificate.
    pub(crate) async fn renew(&self) -> Result<(), NodeError> {
        let pending = PendingJoin::new()?;
        let request = v1::RenewRequest { certificate_request: pending.request().to_vec() };
        let mut client = MembershipClient::new(self.managers.channel().await?);
        let answer = client.renew(request).await.inspect_err(|status| {
            if status.code() == tonic::Code::Unavailable {
                self.managers.failed();
            }
        })?;
        let root = self.tls.root();
        let certificate = answer.into_inner().certificate;
        let credentials = pending.complete(&certificate, root.der(), root.digest(), now())?;
        // On disk first: a node that starts again must not have two.
        self.disk.keep_credentials(&credentials)?;
        self.tls.replace(&credentials)?;
        tracing::info!(identity = %credentials.identity(), "certificate renewed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c04_a_certificate_is_renewed_at_half_to_four_fifths_of_its_life() {
        let issued = UnixMillis(1_000_000_000_000);
        let life = Duration::from_hours(100);
        let start = UnixMillis(issued.0 - BACKDATE.as_millis() as u64);
        let validity = start..issued.after(life);
        let hours = |draw| due(&validity, draw).since(issued).as_secs_f64() / 3600.0;
        for (draw, expected) in [(0.0, 50.0), (0.5, 65.0), (1.0, 80.0), (7.0, 80.0)] {
            assert!((hours(draw) - expected).abs() < 0.01, "{draw}: {}", hours(draw));
        }
    }
}
