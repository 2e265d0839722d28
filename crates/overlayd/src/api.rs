//! The unix socket: what concerns this node is done here, the rest goes to a manager.
//!
//! ```text
//!   health, reflection ────────────────► this node
//!   LocalNode ─────────────────────────► this node
//!   Endpoints.Attach, .Detach ─────────► manager, then this node's dataplane
//!   Networks.Create, Writes ── host routes ──► manager
//!   Services.Create, .Update ── what all managers understand ──► manager
//!   Watcher ── over one connection after the other ──► manager
//!   Nodes, other Networks, Services, Keys, Ca ──► manager, byte for byte
//! ```

mod local_node;
mod writes;

use std::convert::Infallible;

use axum::{
    extract::Request as HttpRequest, http::request::Parts, response::Response as HttpResponse,
};
use overlay_api::{
    status::{Reason, with_reason},
    v1::{
        self, endpoints_client::EndpointsClient, endpoints_server::EndpointsServer,
        local_node_server::LocalNodeServer, watcher_server::WatcherServer,
    },
};
use overlay_cluster::{
    raft::transport::Channel,
    server::{
        deadline::DeadlineLayer,
        health::{self, Health},
        reflection,
    },
};
use prost::Message;
use tokio::net::UnixListener;
use tonic::{
    Code, Request, Response, Status,
    service::{Routes, RoutesBuilder},
};
use tonic_health::ServingStatus;
use tower::ServiceExt;

use self::writes::Writes;
use crate::{
    NodeError, NodeHandle, callers::refuse_the_unseated, level, listen::local_callers, relay,
    routes,
};

/// Services that managers answer for local callers.
const FORWARDED: [&str; 5] = [
    "/overlay.v1.Nodes/",
    "/overlay.v1.Networks/",
    "/overlay.v1.Services/",
    "/overlay.v1.Keys/",
    "/overlay.v1.Ca/",
];

/// Calls that say what this host routes, too.
const CREATE_NETWORK: &str = "/overlay.v1.Networks/CreateNetwork";
const UPDATE_NETWORK: &str = "/overlay.v1.Networks/UpdateNetwork";
/// Calls that a manager of a release before would read in part.
const CREATE_SERVICE: &str = "/overlay.v1.Services/CreateService";
const UPDATE_SERVICE: &str = "/overlay.v1.Services/UpdateService";
/// Longest request that is looked into: as much as tonic decodes.
const LONGEST_REQUEST: usize = 4 << 20;
/// A message on the wire has a flag for compression and a length before it.
const PREFIX: usize = 5;

/// Services of `overlay.v1` on the socket.
const SERVED: &[&str] = &[
    "overlay.v1.Ca",
    "overlay.v1.Endpoints",
    "overlay.v1.Keys",
    "overlay.v1.LocalNode",
    "overlay.v1.Networks",
    "overlay.v1.Nodes",
    "overlay.v1.Services",
    "overlay.v1.Watcher",
    "overlay.v1.Writes",
];

/// Serves local callers until `shutdown` resolves.
pub(crate) async fn serve(
    handle: NodeHandle,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), NodeError> {
    let mut routes = RoutesBuilder::default();
    let local = handle.clone();
    let look = move || {
        let handle = local.clone();
        async move { health(&handle).await }
    };
    routes
        .add_service(Health::server(SERVED, look))
        .add_service(reflection::server(SERVED))
        .add_service(LocalNodeServer::new(Local(handle.clone())))
        .add_service(EndpointsServer::new(Local(handle.clone())))
        .add_service(WatcherServer::new(Local(handle.clone())))
        .add_service(Writes(Local(handle.clone())));
    let forward = tower::service_fn(move |request| {
        let handle = handle.clone();
        async move { Ok::<_, Infallible>(forward(&handle, request).await) }
    });
    let router = routes.routes().into_axum_router().fallback_service(forward).layer(DeadlineLayer);
    let router = router.layer(axum::middleware::from_fn(refuse_the_unseated));
    tonic::transport::Server::builder()
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(local_callers(listener), shutdown)
        .await
        .map_err(|error| NodeError::Config(format!("the unix socket ended: {error}")))
}

/// A manager's health is that of its control plane. A worker serves from what it knows, and a node
/// in no cluster waits to be told of one. A manager that is locked does neither.
async fn health(handle: &NodeHandle) -> ServingStatus {
    match handle.member().ok().and_then(|member| member.control()) {
        Some(control) => health::of_manager(&control).await,
        None if handle.is_locked() => ServingStatus::NotServing,
        None => ServingStatus::Serving,
    }
}

/// Hands a call to a manager as it is, and its answer back.
async fn forward(handle: &NodeHandle, request: HttpRequest) -> HttpResponse {
    let path = request.uri().path().to_owned();
    if !FORWARDED.iter().any(|service| path.starts_with(service)) {
        return refusal(&no_such_call(&path));
    }
    let member = match handle.member() {
        Ok(member) => member,
        Err(error) => return refusal(&error.into()),
    };
    let channel = match member.managers.channel().await {
        Ok(channel) => channel,
        Err(status) => return refusal(&status),
    };
    let request = match path.as_str() {
        CREATE_NETWORK => followed_by(request, &routes::in_create_network()).await,
        UPDATE_NETWORK => followed_by(request, &routes::in_update_network()).await,
        CREATE_SERVICE | UPDATE_SERVICE => {
            understood(request, |spec| member.viewer.read(|view| level::check_service(view, spec)))
                .await
        }
        _ => Ok(request.map(tonic::body::Body::new)),
    };
    let request = match request {
        Ok(request) => request,
        Err(status) => return refusal(&status),
    };
    match channel.oneshot(request).await {
        Ok(answer) => answer.map(axum::body::Body::new),
        Err(error) => {
            member.managers.failed();
            let message = format!("the manager did not answer: {error}; repeat it");
            refusal(&with_reason(Reason::NoManager, message))
        }
    }
}

/// Adds what this host routes to a request about a network: fields that follow a message are of it.
async fn followed_by(
    request: HttpRequest,
    routes: &[u8],
) -> Result<axum::http::Request<tonic::body::Body>, Status> {
    let (mut parts, mut frame) = read(request).await?;
    if message(&frame).is_some() {
        frame.extend_from_slice(routes);
        let length = (frame.len() - PREFIX) as u32;
        frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    }
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    Ok(sent(parts, frame))
}

/// A request for a service whose spec passes.
async fn understood(
    request: HttpRequest,
    check: impl FnOnce(Option<&v1::ServiceSpec>) -> Result<(), Status>,
) -> Result<axum::http::Request<tonic::body::Body>, Status> {
    let update = request.uri().path() == UPDATE_SERVICE;
    let (parts, frame) = read(request).await?;
    let spec = message(&frame).and_then(|message| {
        if update {
            v1::UpdateServiceRequest::decode(message).ok()?.spec
        } else {
            v1::CreateServiceRequest::decode(message).ok()?.spec
        }
    });
    check(spec.as_ref())?;
    Ok(sent(parts, frame))
}

/// The whole body of a unary call.
async fn read(request: HttpRequest) -> Result<(Parts, Vec<u8>), Status> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LONGEST_REQUEST + PREFIX).await.map_err(|error| {
        Status::out_of_range(format!(
            "the request is longer than {LONGEST_REQUEST} octets: {error}"
        ))
    })?;
    Ok((parts, body.to_vec()))
}

/// The message of a body. What is compressed, or no message, the manager refuses.
fn message(frame: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = frame.split_first_chunk::<PREFIX>()?;
    let [0, length @ ..] = *prefix else { return None };
    (u32::from_be_bytes(length) as usize == message.len()).then_some(message)
}

fn sent(parts: Parts, frame: Vec<u8>) -> axum::http::Request<tonic::body::Body> {
    let body = axum::body::Body::from(frame);
    axum::http::Request::from_parts(parts, tonic::body::Body::new(body))
}

fn no_such_call(path: &str) -> Status {
    with_reason(Reason::NoSuchCall, format!("no service answers {path}"))
}

fn refusal(status: &Status) -> HttpResponse {
    status.clone().into_http::<tonic::body::Body>().map(axum::body::Body::new)
}

/// Carries on when the caller goes away: half an attach or join would leave something behind.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, NodeError>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(error) => Err(Status::internal(format!("the call ended early: {error}"))),
    }
}

/// This node, for local callers.
#[derive(Clone, Debug)]
struct Local(NodeHandle);

impl Local {
    /// Carries a call to a manager. A connection that failed is not used again.
    async fn at_manager<T, F>(&self, call: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let member = self.0.member()?;
        let answer = call(member.managers.channel().await?).await;
        answer.inspect_err(|status| {
            if status.code() == Code::Unavailable {
                member.managers.failed();
            }
        })
    }
}

#[tonic::async_trait]
impl v1::watcher_server::Watcher for Local {
    type WatchStream = relay::Messages;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let managers = self.0.member()?.managers.clone();
        Ok(Response::new(relay::watch(managers, request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl v1::endpoints_server::Endpoints for Local {
    async fn attach_endpoint(
        &self,
        request: Request<v1::AttachEndpointRequest>,
    ) -> Result<Response<v1::AttachEndpointResponse>, Status> {
        let handle = self.0.clone();
        let attach = async move { handle.attach(request.into_inner()).await };
        Ok(Response::new(to_the_end(attach).await?))
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let request = request.into_inner();
        let list = |channel| async { EndpointsClient::new(channel).list_endpoints(request).await };
        self.at_manager(list).await
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::GetEndpointResponse>, Status> {
        let request = request.into_inner();
        let get = |channel| async { EndpointsClient::new(channel).get_endpoint(request).await };
        self.at_manager(get).await
    }

    async fn set_readiness(
        &self,
        request: Request<v1::SetReadinessRequest>,
    ) -> Result<Response<v1::SetReadinessResponse>, Status> {
        Ok(Response::new(self.0.set_readiness(request.into_inner()).await?))
    }

    async fn detach_endpoint(
        &self,
        request: Request<v1::DetachEndpointRequest>,
    ) -> Result<Response<v1::DetachEndpointResponse>, Status> {
        self.0.detach_as(request.into_inner()).await?;
        Ok(Response::new(v1::DetachEndpointResponse {}))
    }
}
