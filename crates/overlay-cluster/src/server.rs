//! What a manager answers on TCP 2377: the public API, joins, watches, and other managers.
//!
//! Every call passes the gate (`gate.rs`), which says who may make it; the services see calls of
//! nodes only (but for `Membership.Join`), and check what is about one node. Around the gate a layer
//! keeps to the callers' deadlines (`deadline.rs`); both may end an answer early (`ending.rs`). `list.rs`
//! has filters and pages.

mod ca;
pub mod deadline;
mod ending;
mod endpoints;
mod gate;
pub mod health;
mod keys;
mod list;
mod membership;
mod networks;
mod nodes;
pub mod reflection;
mod reports;
mod services;
mod watcher;
mod writes;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::TryFutureExt;
use overlay_api::v1;
use overlay_types::{NodeId, RequestId};
use tokio::sync::watch;
use tonic::{
    Status,
    body::Body,
    codegen::http,
    service::{Routes, RoutesBuilder},
};
use tower::ServiceExt;

pub(crate) use self::gate::Guard;
use self::{deadline::DeadlineLayer, gate::Gate, health::Health};
use crate::{
    ca::{
        ConnectionInfo, NodeTls, TlsIncoming,
        join::limit::{JoinCounts, JoinLimiter, JoinLimits},
    },
    control::{Control, rejection_status},
    raft::transport::{Channel, RaftService},
    state::{Rejection, State},
};

/// Verdict of gossip on each node that it knows.
pub type Verdicts = BTreeMap<NodeId, v1::Liveness>;

/// Services of `overlay.v1` that managers serve to nodes.
const SERVED: &[&str] = &[
    "overlay.v1.Ca",
    "overlay.v1.Endpoints",
    "overlay.v1.Keys",
    "overlay.v1.Membership",
    "overlay.v1.Networks",
    "overlay.v1.Nodes",
    "overlay.v1.Reports",
    "overlay.v1.Services",
    "overlay.v1.Watcher",
    "overlay.v1.Writes",
];

/// What every service needs.
#[derive(Clone, Debug)]
pub struct Api {
    control: Control,
    verdicts: watch::Receiver<Verdicts>,
    joins: Arc<Mutex<JoinLimiter>>,
}

impl Api {
    /// Services of this manager. `verdicts` are shown in node lists.
    pub fn new(control: Control, verdicts: watch::Receiver<Verdicts>) -> Self {
        let joins = JoinLimiter::new(JoinLimits::default());
        Self { control, verdicts, joins: Arc::new(Mutex::new(joins)) }
    }

    fn joins(&self) -> MutexGuard<'_, JoinLimiter> {
        self.joins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many joins were looked at and turned away.
    pub fn join_counts(&self) -> JoinCounts {
        self.joins().counts()
    }

    /// All services, behind the gate: calls come with a [`ConnectionInfo`].
    pub fn routes(&self) -> Routes {
        let api = Arc::new(self.clone());
        let control = self.control.clone();
        let health = move || {
            let control = control.clone();
            async move { health::of_manager(&control).await }
        };
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(v1::nodes_server::NodesServer::from_arc(Arc::clone(&api)))
            .add_service(v1::networks_server::NetworksServer::from_arc(Arc::clone(&api)))
            .add_service(v1::services_server::ServicesServer::from_arc(Arc::clone(&api)))
            .add_service(v1::endpoints_server::EndpointsServer::from_arc(Arc::clone(&api)))
            .add_service(v1::keys_server::KeysServer::from_arc(Arc::clone(&api)))
            .add_service(v1::ca_server::CaServer::from_arc(Arc::clone(&api)))
            .add_service(v1::watcher_server::WatcherServer::from_arc(Arc::clone(&api)))
            .add_service(v1::writes_server::WritesServer::from_arc(Arc::clone(&api)))
            .add_service(v1::reports_server::ReportsServer::from_arc(Arc::clone(&api)))
            .add_service(v1::membership_server::MembershipServer::from_arc(api))
            .add_service(RaftService::server(self.control.clone()))
            .add_service(Health::server(SERVED, health))
            .add_service(reflection::server(SERVED));
        let gate = Gate(self.control.clone());
        Routes::from(routes.routes().into_axum_router().layer(gate).layer(DeadlineLayer))
    }

    /// A channel for the node that runs this manager: to the gate and the services as every other
    /// node reaches them, but for the connection. `tls` says who calls, `address` from where.
    pub fn own_channel(&self, tls: Arc<NodeTls>, address: SocketAddr) -> Channel {
        let routes = self.routes();
        let call = move |mut request: http::Request<Body>| {
            let peer = Some(tls.peer());
            let connection = ConnectionInfo { local: address, remote: address, peer };
            request.extensions_mut().insert(connection);
            routes.clone().oneshot(request).map_err(|never| match never {})
        };
        Channel::new(tower::service_fn(call))
    }

    /// Serves nodes and joiners until `shutdown` resolves.
    pub async fn serve(
        &self,
        incoming: TlsIncoming,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), tonic::transport::Error> {
        tonic::transport::Server::builder()
            .add_routes(self.routes())
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await
    }

    /// Looks at the state, as fresh as the caller wants it.
    async fn read<T>(
        &self,
        consistency: Option<v1::Consistency>,
        look: impl FnOnce(&State) -> Result<T, Rejection>,
    ) -> Result<T, Status> {
        if !consistency.unwrap_or_default().stale {
            self.control.linearize().await?;
        }
        self.control.replica().read(look).map_err(|rejection| rejection_status(&rejection))
    }

    /// What `request` is to remove; `None` if it did so before and is repeated (C12).
    async fn find_to_remove<T>(
        &self,
        request: RequestId,
        find: impl FnOnce(&State) -> Result<T, Rejection>,
    ) -> Result<Option<T>, Status> {
        let find = |state: &State| match find(state) {
            Err(_) if state.was_removed_by(request) => Ok(None),
            found => found.map(Some),
        };
        self.read(None, find).await
    }
}

fn invalid(error: overlay_types::SpecError) -> Status {
    overlay_api::status::invalid(&error)
}

/// The caller's request id, or a new one.
pub fn request_id(text: &str) -> Result<RequestId, Status> {
    if text.is_empty() {
        return Ok(RequestId::from_u128(rand::random()));
    }
    overlay_api::convert::parse("request_id", text).map_err(invalid)
}

fn needed<T>(field: &'static str, message: Option<T>) -> Result<T, Status> {
    message.ok_or_else(|| invalid(overlay_types::SpecError::new(field, "", "the field is needed")))
}

/// The answer does not belong to the call: a bug.
fn unexpected(response: &crate::state::Response) -> Status {
    Status::internal(format!("unexpected answer to the command: {response:?}"))
}
