//! This node's place in the routing mesh: an endpoint on the ingress network, which the node attaches by
//! itself, and again on an ingress network that takes the place of another.
//!
//! ```text
//!   ingress network in the view, no place there ──► AttachEndpoint (role mesh), until the view has it
//! ```
//!
//! It has no part in what users do with endpoints: it is listed on request only, is never asked about,
//! and goes with the network or the node.

use core::time::Duration;

use overlay_api::{
    status::{Reason, reason},
    v1::{self, endpoints_client::EndpointsClient},
};
use overlay_types::{Endpoint, FeatureLevel, NodeId, View};
use tonic::Status;

use crate::{agent::Viewer, managers::Managers};

/// Wait after an attempt: the view shows an endpoint within milliseconds, and what keeps managers from
/// giving one, like a network without free addresses, is there for longer.
const PAUSE: Duration = Duration::from_secs(5);

/// Has the node have its place in the mesh.
pub(crate) struct MeshEndpoint {
    pub(crate) node: NodeId,
    pub(crate) viewer: Viewer,
    pub(crate) managers: Managers,
}

/// What a view says of a node's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It has one, or there can be none.
    Settled,
    /// There is an ingress network without it.
    Missing,
    /// No ingress network is known. A view from before places were made does not show one.
    Unknown,
}

/// A node's place in the mesh.
pub(crate) fn of(view: &View, node: NodeId) -> Option<&Endpoint> {
    let ingress = view.ingress()?.id;
    view.endpoints_at(node).find(|endpoint| endpoint.is_mesh() && endpoint.network == ingress)
}

fn standing(view: &View, node: NodeId) -> Standing {
    let level = view.cluster().map_or(FeatureLevel::NONE, |cluster| cluster.level);
    if level < FeatureLevel::SECOND || of(view, node).is_some() {
        return Standing::Settled;
    }
    view.ingress().map_or(Standing::Unknown, |_| Standing::Missing)
}

impl MeshEndpoint {
    /// Runs until the task is ended.
    pub(crate) async fn keep(self) {
        let mut revision = self.viewer.revision();
        let mut asked = false;
        let mut told = None;
        loop {
            let before = self.standing();
            let wait = match before {
                Some(Standing::Missing) => PAUSE,
                Some(Standing::Unknown) if !asked => PAUSE,
                _ => Duration::MAX,
            };
            if wait == PAUSE {
                asked = self.attempt(&mut told).await;
            }
            let changed = revision.wait_for(|_| self.standing() != before);
            if let Ok(Err(_)) = tokio::time::timeout(wait, changed).await {
                return;
            }
        }
    }

    /// `None` until a manager was heard.
    fn standing(&self) -> Option<Standing> {
        self.viewer.read_heard(|view| standing(view, self.node))
    }

    /// Whether a manager knew what to do. What it refuses is told once.
    async fn attempt(&self, told: &mut Option<String>) -> bool {
        match self.attach().await {
            Ok(endpoint) => {
                tracing::info!(
                    endpoint = endpoint.id,
                    "this node has its place in the routing mesh"
                );
                *told = None;
                true
            }
            Err(status) => {
                let known =
                    matches!(reason(&status), Some(Reason::NotFound | Reason::MeshEndpoint));
                if !known && told.as_deref() != Some(status.message()) {
                    tracing::warn!(
                        reason = status.message(),
                        "this node has no place in the routing mesh yet: it does not answer on \
                         published ports of services"
                    );
                    *told = Some(status.message().to_owned());
                }
                known
            }
        }
    }

    async fn attach(&self) -> Result<v1::Endpoint, Status> {
        let mut client = EndpointsClient::new(self.managers.channel().await?);
        let spec = v1::EndpointSpec {
            node: self.node.to_string(),
            role: v1::EndpointRole::Mesh.into(),
            ..Default::default()
        };
        let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
        let answer = client.attach_endpoint(request).await?.into_inner();
        answer.endpoint.ok_or_else(|| Status::internal("the manager's answer has no endpoint"))
    }
}
