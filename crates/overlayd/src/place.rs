//! Where this node is, and where it hears the others.
//!
//! ```text
//!   own addresses ≠ the view's ──► ReportAddresses, until the view says the same
//!   gossip ──► whereabouts of the dialer
//! ```

use core::time::Duration;
use std::net::SocketAddr;

use overlay_api::v1::{self, reports_client::ReportsClient};
use overlay_cluster::ca::tls::Whereabouts;
use overlay_gossip::io::Addresses as Heard;
use overlay_types::{Node, NodeId, Revision, View};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::{agent::Viewer, config::Addresses, managers::Managers};

/// Wait before the addresses are reported again. A node that moved is cut off until then.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A node, and the addresses that it was started with.
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) addresses: Addresses,
    pub(crate) viewer: Viewer,
    pub(crate) managers: Managers,
}

/// Whether other nodes know a node elsewhere: they drop what comes from there.
fn moved(known: &Node, now: Addresses) -> bool {
    (known.control, known.gossip, known.data_path) != (now.control, now.gossip, now.data_path)
}

impl Place {
    /// Has the cluster know this node where it is. Runs until the task is ended: another node may
    /// take the addresses over.
    pub(crate) async fn report(self) {
        let mut revision = self.viewer.revision();
        let mut told = None;
        loop {
            let wait = if self.is_known() {
                told = None;
                Duration::MAX
            } else {
                match self.report_once().await {
                    Ok(()) => tracing::info!(addresses = ?self.addresses, "this node has moved"),
                    Err(status) if told.as_deref() == Some(status.message()) => {}
                    Err(status) => {
                        tracing::warn!(
                            reason = status.message(),
                            "the other nodes do not know yet where this one is"
                        );
                        told = Some(status.message().to_owned());
                    }
                }
                RETRY_PAUSE
            };
            if self.wait(&mut revision, wait).await.is_err() {
                return;
            }
        }
    }

    /// Whether the cluster knows the node where it is, as far as a manager has said since the start.
    fn is_known(&self) -> bool {
        let is_elsewhere = |view: &View| {
            view.nodes().get(&self.node).is_some_and(|known| moved(known, self.addresses))
        };
        self.viewer.read_heard(is_elsewhere) != Some(true)
    }

    /// Waits for news from the managers if all is well, else for a while: what keeps a manager from
    /// taking the report is seldom in the view.
    async fn wait(
        &self,
        revision: &mut watch::Receiver<Revision>,
        wait: Duration,
    ) -> Result<(), watch::error::RecvError> {
        tokio::time::timeout(wait, revision.changed()).await.unwrap_or(Ok(()))
    }

    async fn report_once(&self) -> Result<(), Status> {
        let request = v1::ReportAddressesRequest {
            control: self.addresses.control.to_string(),
            gossip: self.addresses.gossip.to_string(),
            data_path: self.addresses.data_path.to_string(),
        };
        let mut client = ReportsClient::new(self.managers.channel().await?);
        client.report_addresses(request).await.map(drop).inspect_err(|status| {
            if status.code() == Code::Unavailable {
                self.managers.failed();
            }
        })
    }
}

/// Tells the dialer where gossip hears the others.
pub(crate) async fn listen(mut heard: watch::Receiver<Heard>, whereabouts: Whereabouts) {
    loop {
        let ips = |(node, address): (&NodeId, &SocketAddr)| (*node, address.ip());
        whereabouts.set_heard(heard.borrow_and_update().iter().map(ips).collect());
        if heard.changed().await.is_err() {
            return;
        }
    }
}
