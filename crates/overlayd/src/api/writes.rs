//! `overlay.v1.Writes` for local callers: goes to a manager message by message, without being taken apart.
//!
//! ```text
//!   caller ── number, bytes of a write ──► host routes, level ──► manager
//!      ▲                                     └ refused                │
//!      └────────── number, bytes of an answer ◄──┴────────────────────┘
//! ```

use core::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::http;
use bytes::{Bytes, BytesMut};
use futures::{
    future::BoxFuture,
    stream::{BoxStream, Stream},
};
use overlay_api::{codec::MessageCodec, v1};
use overlay_cluster::raft::transport::Channel;
use overlay_types::FeatureLevel;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client,
    codegen::http::uri::PathAndQuery,
    server::{self, NamedService, StreamingService},
};
use tower::Service;

use super::{Local, no_such_call};
use crate::{agent::Viewer, level, routes};

const WRITE: &str = "/overlay.v1.Writes/Write";
/// Writes that are refused here and wait to be told.
const REFUSED: usize = 16;

/// A `WriteRequest` whose write is left as it is.
#[derive(Clone, PartialEq, Eq, Message)]
struct Passed {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(oneof = "Write", tags = "2, 3, 4, 5, 6, 7")]
    write: Option<Write>,
}

/// `WriteRequest.write`
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Write {
    #[prost(bytes = "bytes", tag = "2")]
    CreateNetwork(Bytes),
    #[prost(bytes = "bytes", tag = "3")]
    UpdateNetwork(Bytes),
    #[prost(bytes = "bytes", tag = "4")]
    RemoveNetwork(Bytes),
    #[prost(bytes = "bytes", tag = "5")]
    CreateService(Bytes),
    #[prost(bytes = "bytes", tag = "6")]
    UpdateService(Bytes),
    #[prost(bytes = "bytes", tag = "7")]
    RemoveService(Bytes),
}

/// A `WriteResponse` whose answer is left as it is.
#[derive(Clone, PartialEq, Eq, Message)]
struct Answered {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(oneof = "Answer", tags = "2, 3, 4, 5, 6, 7, 8")]
    answer: Option<Answer>,
}

/// `WriteResponse.answer`
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Answer {
    #[prost(bytes = "bytes", tag = "2")]
    Refusal(Bytes),
    #[prost(bytes = "bytes", tag = "3")]
    CreateNetwork(Bytes),
    #[prost(bytes = "bytes", tag = "4")]
    UpdateNetwork(Bytes),
    #[prost(bytes = "bytes", tag = "5")]
    RemoveNetwork(Bytes),
    #[prost(bytes = "bytes", tag = "6")]
    CreateService(Bytes),
    #[prost(bytes = "bytes", tag = "7")]
    UpdateService(Bytes),
    #[prost(bytes = "bytes", tag = "8")]
    RemoveService(Bytes),
}

type Answers = BoxStream<'static, Result<Answered, Status>>;

/// Serves local callers.
#[derive(Clone, Debug)]
pub(super) struct Writes(pub(super) Local);

impl NamedService for Writes {
    const NAME: &'static str = v1::writes_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for Writes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let writes = self.clone();
        Box::pin(async move {
            if request.uri().path() != WRITE {
                return Ok(no_such_call(request.uri().path()).into_http());
            }
            Ok(server::Grpc::new(MessageCodec::default()).streaming(writes, request).await)
        })
    }
}

impl StreamingService<Passed> for Writes {
    type Response = Answered;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Passed>>) -> Self::Future {
        let local = self.0.clone();
        Box::pin(async move {
            let viewer = local.0.member()?.viewer.clone();
            let (refused, refusals) = mpsc::channel(REFUSED);
            let (broken, error) = oneshot::channel();
            let requests = Request::new(passed(request.into_inner(), viewer, refused, broken));
            let write = |channel: Channel| async {
                let mut manager = client::Grpc::new(channel);
                manager.ready().await?;
                let path = PathAndQuery::from_static(WRITE);
                manager.streaming(requests, path, MessageCodec::<Passed, Answered>::default()).await
            };
            let answers = local.at_manager(write).await?;
            Ok(answers.map(|answers| merged(answers, refusals, error)))
        })
    }
}

/// What of a caller's writes goes to a manager. What does not is answered through `refused`; `broken` hears
/// why the rest cannot be read.
fn passed(
    requests: Streaming<Passed>,
    viewer: Viewer,
    refused: mpsc::Sender<Result<Answered, Status>>,
    broken: oneshot::Sender<Status>,
) -> impl Stream<Item = Passed> + Send + 'static {
    let mut broken = Some(broken);
    // The end of the requests, whatever it is, is the end of the call; so is a caller who takes no refusals.
    let requests = requests.map_while(move |request| {
        let mut request = match request {
            Ok(request) => request,
            Err(status) => {
                // Who called may be gone.
                let _ = broken.take()?.send(status);
                return None;
            }
        };
        match &mut request.write {
            Some(Write::CreateNetwork(create)) => {
                *create = followed_by(create, &routes::in_create_network());
            }
            Some(Write::UpdateNetwork(update)) => {
                *update = followed_by(update, &routes::in_update_network());
            }
            _ => {}
        }
        let Err(status) = check(&viewer, request.write.as_ref()) else {
            return Some(Some(request));
        };
        refused.try_send(Ok(refusal_of(request.number, &status))).ok()?;
        Some(None)
    });
    requests.filter_map(|request| request)
}

/// Adds what this host routes: fields that follow a message are of it.
fn followed_by(request: &[u8], routes: &[u8]) -> Bytes {
    let mut both = BytesMut::with_capacity(request.len() + routes.len());
    both.extend_from_slice(request);
    both.extend_from_slice(routes);
    both.freeze()
}

/// Refuses what a manager of the release before would read in part. It is looked into while there may be
/// one.
fn check(viewer: &Viewer, write: Option<&Write>) -> Result<(), Status> {
    let Some(Write::CreateService(message) | Write::UpdateService(message)) = write else {
        return Ok(());
    };
    viewer.read(|view| {
        if view.cluster().is_some_and(|cluster| cluster.level >= FeatureLevel::OURS) {
            return Ok(());
        }
        // The manager refuses what is no message.
        let spec = match write {
            Some(Write::CreateService(_)) => {
                v1::CreateServiceRequest::decode(message.clone()).ok().and_then(|it| it.spec)
            }
            _ => v1::UpdateServiceRequest::decode(message.clone()).ok().and_then(|it| it.spec),
        };
        level::check_service(view, spec.as_ref())
    })
}

/// The answers of a manager, and refusals of this node. An error of the caller's comes behind them: what was
/// asked before it is done.
fn merged(
    answers: Streaming<Answered>,
    refusals: mpsc::Receiver<Result<Answered, Status>>,
    error: oneshot::Receiver<Status>,
) -> Answers {
    let error = futures::stream::once(error).filter_map(|error| error.ok().map(Err));
    Box::pin(answers.merge(ReceiverStream::new(refusals)).chain(error))
}

fn refusal_of(number: u64, status: &Status) -> Answered {
    let refusal = v1::Refusal {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: status.details().to_vec(),
    };
    Answered { number, answer: Some(Answer::Refusal(refusal.encode_to_vec().into())) }
}
