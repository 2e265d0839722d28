//! Renewal of the node's certificate, well before it ends.

use core::{ops::Range, time::Duration};
use std::sync::Arc;

use overlay_api::v1::{self, membership_client::MembershipClient};
use overlay_cluster::{
    ca::{NodeCredentials, NodeTls, PeerIdentity, PendingJoin, TrustedRoots, root::BACKDATE},
    control::now,
};
use overlay_types::{Revision, Root, RootId, UnixMillis};
use tokio::sync::watch;
use tonic::Status;

use crate::{NodeError, disk::Disk, managers::Managers};

/// Wait after a renewal that failed. Months are left; the managers need not be pressed.
const RETRY_PAUSE: Duration = Duration::from_mins(1);
/// Longest sleep, so that a clock that was set or a host that was suspended is noticed.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// Renews the certificate of a running node. Clones renew the same one.
#[derive(Clone, Debug)]
pub(crate) struct Renewal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tls: Arc<NodeTls>,
    disk: Disk,
    managers: Managers,
    /// Held from the request until what was got is kept: the last certificate on the disk is the
    /// one in use.
    turn: tokio::sync::Mutex<()>,
}

/// When to renew a certificate: at 50-80 % of its life, as `draw` between 0 and 1 says, so that
/// nodes that joined together do not renew together.
fn due(validity: &Range<UnixMillis>, draw: f64) -> UnixMillis {
    let issued = validity.start.after(BACKDATE);
    let life = validity.end.since(issued);
    issued.after(life.mul_f64(0.5 + 0.3 * draw.clamp(0.0, 1.0)))
}

impl Renewal {
    pub(crate) fn new(tls: Arc<NodeTls>, disk: Disk, managers: Managers) -> Self {
        Self(Arc::new(Inner { tls, disk, managers, turn: tokio::sync::Mutex::default() }))
    }

    /// Who the certificate says the node is.
    pub(crate) fn identity(&self) -> PeerIdentity {
        self.0.tls.identity()
    }

    /// The state that gave the node the role in its certificate.
    pub(crate) fn as_of(&self) -> Revision {
        self.0.tls.peer().as_of
    }

    /// Renews whenever it is time. Runs until the task is ended.
    pub(crate) async fn run(self) {
        let mut validity = self.0.tls.validity();
        let mut due = due(&validity, rand::random());
        loop {
            let wait = if now() < due {
                due.since(now()).min(LONGEST_SLEEP)
            } else if let Err(error) = self.renew().await {
                tracing::warn!(%error, "certificate not renewed yet");
                RETRY_PAUSE
            } else {
                Duration::ZERO
            };
            pause(wait).await;
            // It may have been renewed for another reason.
            let newest = self.0.tls.validity();
            if newest != validity {
                due = self::due(&newest, rand::random());
                validity = newest;
            }
        }
    }

    /// Renews now. Connections in use go on; new ones are made with the new certificate.
    pub(crate) async fn renew(&self) -> Result<(), NodeError> {
        let Inner { managers, turn, .. } = &*self.0;
        let _turn = turn.lock().await;
        let pending = PendingJoin::new()?;
        let request = v1::RenewRequest { certificate_request: pending.request().to_vec() };
        let mut client = MembershipClient::new(managers.channel().await?);
        let answer = client.renew(request).await.inspect_err(|status| {
            if status.code() == tonic::Code::Unavailable {
                managers.failed();
            }
        })?;
        let answer = answer.into_inner();
        let roots = answer.roots.into_iter().map(Root::try_from).collect::<Result<Vec<_>, _>>();
        let roots = roots.map_err(|error| Status::internal(error.to_string()))?;
        // They come from a manager that proved to be one.
        let roots = TrustedRoots::from_published(&roots)?;
        let credentials = pending.complete(&answer.certificate, roots, now())?;
        self.take(&credentials)?;
        tracing::info!(identity = %credentials.identity(), "certificate renewed");
        Ok(())
    }

    /// Trusts these roots from now on, with the same certificate.
    pub(crate) async fn trust(&self, published: &[Root]) -> Result<(), NodeError> {
        let _turn = self.0.turn.lock().await;
        let credentials = self.0.disk.credentials(now())?.ok_or(NodeError::NoCluster)?;
        self.take(&credentials.with_roots(published, now())?)
    }

    fn take(&self, credentials: &NodeCredentials) -> Result<(), NodeError> {
        // On disk first: a node that starts again must not have two.
        self.0.disk.keep_credentials(credentials)?;
        Ok(self.0.tls.replace(credentials)?)
    }

    /// The root that signed the certificate in use.
    pub(crate) fn issuer(&self) -> RootId {
        self.0.tls.issuer()
    }

    /// Follows whether newer credentials were taken.
    pub(crate) fn replaced(&self) -> watch::Receiver<()> {
        self.0.tls.replaced()
    }

    /// Whether the node trusts just these roots.
    pub(crate) fn trusts(&self, published: &[Root]) -> bool {
        self.0.tls.roots().are(published)
    }

    /// Shows a manager the certificate in use, by connecting with it.
    pub(crate) async fn report(&self) -> Result<(), NodeError> {
        let mut client = MembershipClient::new(self.0.managers.channel().await?);
        client.report_certificate(v1::ReportCertificateRequest {}).await?;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that waits for the time of renewal")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
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
