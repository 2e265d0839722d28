//! This node's place in the routing mesh: an endpoint on the ingress network, which the node attaches by
//! itself, and again on an ingress network that takes the place of another.
//!
//! ```text
//!   ingress network in the view, no place there ──► AttachEndpoint (role mesh), until the view has it
//!        ▲                                             │ refused
//!        └── PAUSE, then twice as long each time, ◄────┘
//!            to LONGEST; the network changed: at once, and from PAUSE on
//! ```
//!
//! It has no part in what users do with endpoints: it is listed on request only, is never asked about,
//! and goes with the network or the node.

use core::time::Duration;

use overlay_api::{
    status::{Reason, reason},
    v1::{self, endpoints_client::EndpointsClient},
};
use overlay_types::{Endpoint, FeatureLevel, Network, NetworkId, NodeId, Revision, View};
use tonic::{Code, Status};

use crate::{agent::Viewer, managers::Managers};

/// Wait after an attempt: the view shows an endpoint within milliseconds.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest wait after refusals: on a network that is full thousands of nodes ask in vain, and each is heard
/// by a manager. A place that a removed node leaves is taken within this time.
const LONGEST: Duration = Duration::from_mins(10);

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
    /// There is an ingress network without it, as of this change.
    Missing(NetworkId, Revision),
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
    let missing = |network: &Network| Standing::Missing(network.id, network.meta.changed_at);
    view.ingress().map_or(Standing::Unknown, missing)
}

/// What managers refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Refusals {
    /// In a row, as long as nothing changed.
    count: u32,
    standing: Option<Standing>,
}

impl Refusals {
    /// How long to wait after one; `draw` is between 0 and 1. Half of the time to all of it, so that nodes
    /// that came together do not ask together.
    fn one_more(&mut self, standing: Standing, draw: f64) -> Duration {
        let before = if self.standing == Some(standing) { self.count } else { 0 };
        *self = Self { count: before.saturating_add(1), standing: Some(standing) };
        let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
        PAUSE.saturating_mul(factor).min(LONGEST).mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The node has its place, or there is no network to have one on.
    Known,
    /// No manager could be asked, or none can write.
    Unheard,
    Refused,
}

impl MeshEndpoint {
    /// Runs until the task is ended.
    pub(crate) async fn keep(self) {
        let mut revision = self.viewer.revision();
        let mut asked = false;
        let mut told = None;
        let mut refusals = Refusals::default();
        loop {
            let before = self.standing();
            let due = before.filter(|standing| match standing {
                Standing::Settled => false,
                Standing::Missing(..) => true,
                Standing::Unknown => !asked,
            });
            let wait = match due {
                None => Duration::MAX,
                Some(standing) => {
                    let outcome = self.attempt(&mut told).await;
                    asked = outcome == Outcome::Known;
                    match outcome {
                        Outcome::Refused => refusals.one_more(standing, rand::random()),
                        Outcome::Known | Outcome::Unheard => PAUSE,
                    }
                }
            };
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

    /// Asks a manager. What it refuses is told once.
    async fn attempt(&self, told: &mut Option<String>) -> Outcome {
        match self.attach().await {
            Ok(endpoint) => {
                tracing::info!(
                    endpoint = endpoint.id,
                    "this node has its place in the routing mesh"
                );
                *told = None;
                Outcome::Known
            }
            Err(status) => {
                let why = reason(&status);
                if matches!(why, Some(Reason::NotFound | Reason::MeshEndpoint)) {
                    return Outcome::Known;
                }
                // What is left on a full network differs from time to time.
                let topic = why.map_or_else(|| status.message(), |why| why.text());
                if told.as_deref() != Some(topic) {
                    tracing::warn!(
                        reason = status.message(),
                        "this node has no place in the routing mesh yet: it does not answer on \
                         published ports of services"
                    );
                    *told = Some(topic.to_owned());
                }
                if status.code() == Code::Unavailable { Outcome::Unheard } else { Outcome::Refused }
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

#[cfg(test)]
mod tests {
    use overlay_testkit::objects;
    use overlay_types::{Change, Meta, NetworkDraft, Object, Vni};

    use super::*;

    fn missing(changed_at: u64) -> Standing {
        Standing::Missing(NetworkId::from_u128(1), Revision::new(changed_at))
    }

    #[test]
    fn s10_a_node_that_is_refused_asks_ever_more_seldom_until_the_network_changes() {
        let mut refusals = Refusals::default();
        let mut waits = |standing, draw, count: usize| -> Vec<u128> {
            (0..count).map(|_| refusals.one_more(standing, draw).as_millis()).collect()
        };
        let doubling = [5, 10, 20, 40, 80, 160, 320, 600, 600].map(|seconds| seconds * 1000);
        assert_eq!(waits(missing(1), 1.0, 9), doubling);
        assert_eq!(waits(missing(1), 1.0, 50)[49], 600_000);
        assert_eq!(waits(missing(1), 0.0, 1), [300_000]);
        // It has a subnet more.
        assert_eq!(waits(missing(2), 0.0, 3), [2500, 5000, 10_000]);
        assert_eq!(waits(missing(2), f64::INFINITY, 1), [40_000]);
    }

    #[test]
    fn s10_a_node_looks_again_when_the_network_changes() {
        let node = objects::node(1);
        let spec = NetworkDraft { ingress: true, ..NetworkDraft::new("own".parse().unwrap()) };
        let ingress = Network {
            id: NetworkId::from_u128(1),
            meta: Meta::default(),
            spec: spec.try_into().unwrap(),
            vni: Vni::for_overlay(4096).unwrap(),
            subnets: Vec::new(),
        };
        let known = [Object::Cluster(objects::cluster()), Object::Node(node.clone())];
        let mut view = View::from_snapshot(Revision::new(1), known);
        assert_eq!(standing(&view, node.id), Standing::Unknown);
        let mut changed = |at: u64| {
            let meta = Meta { changed_at: Revision::new(at), ..Meta::default() };
            let network = Network { meta, ..ingress.clone() };
            view.apply(Revision::new(at), [Change::Put(Object::Network(network))]);
            standing(&view, node.id)
        };
        assert_eq!([changed(2), changed(3)], [missing(2), missing(3)]);
    }
}
