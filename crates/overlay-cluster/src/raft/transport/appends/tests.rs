//! Appends to a manager that is far away, in virtual time.

use core::time::Duration;
use std::{
    io,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, stream::BoxStream};
use hyper_util::rt::TokioIo;
use overlay_api::internal::v1::raft_server::{Raft, RaftServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    time::{Instant, sleep_until, timeout},
};
use tonic::{
    Request, Response,
    codegen::http::Uri,
    transport::{Endpoint, Server},
};
use tower::{ServiceExt, service_fn};

use super::*;

/// How long raft waits for the answer to an append: a heartbeat.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes under way on a connection.
const PIPE: usize = 1 << 20;

/// A manager that answers appends, and notes by which call they came.
#[derive(Clone, Debug)]
struct Far {
    has_line: bool,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Far {
    fn note(&self, call: &'static str) -> wire::AppendResponse {
        self.calls.lock().unwrap().push(call);
        wire::AppendResponse::default()
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only appends"))
}

#[tonic::async_trait]
impl Raft for Far {
    type AppendsStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn append(
        &self,
        _: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        Ok(Response::new(self.note("Append")))
    }

    async fn appends(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendsStream>, Status> {
        if !self.has_line {
            return not_here();
        }
        let far = self.clone();
        let answers = request.into_inner().map(move |message| message.map(|_| far.note("Appends")));
        Ok(Response::new(answers.boxed()))
    }

    async fn request_vote(
        &self,
        _: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        not_here()
    }

    async fn install_snapshot(
        &self,
        _: Request<Streaming<wire::SnapshotPiece>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        not_here()
    }

    async fn propose(
        &self,
        _: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        not_here()
    }

    async fn read_index(
        &self,
        _: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        not_here()
    }
}

/// Carries what one end says to the other one, so much later.
fn carry(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    delay: Arc<Mutex<Duration>>,
) {
    let (send, mut under_way) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut bytes = vec![0; PIPE];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let due = Instant::now() + *delay.lock().unwrap();
            if send.send((due, bytes[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}

/// A way there and back, each as long as `delay` says.
fn far_away(delay: &Arc<Mutex<Duration>>) -> (DuplexStream, DuplexStream) {
    let (near, left) = duplex(PIPE);
    let (right, far) = duplex(PIPE);
    let ((from_left, to_left), (from_right, to_right)) = (split(left), split(right));
    carry(from_left, to_right, Arc::clone(delay));
    carry(from_right, to_left, Arc::clone(delay));
    (near, far)
}

/// A client of this manager.
fn client(manager: Far, delay: &Arc<Mutex<Duration>>) -> RaftClient<Channel> {
    let (near, far) = far_away(delay);
    let incoming =
        futures::stream::iter([Ok::<_, io::Error>(far)]).chain(futures::stream::pending());
    tokio::spawn(
        Server::builder().add_service(RaftServer::new(manager)).serve_with_incoming(incoming),
    );
    let near = Mutex::new(Some(TokioIo::new(near)));
    let connector = service_fn(move |_: Uri| {
        let near = near.lock().unwrap().take();
        async move { near.ok_or_else(|| io::Error::other("it is connected once")) }
    });
    let channel = Endpoint::from_static("http://far").connect_with_connector_lazy(connector);
    RaftClient::new(Channel::new(channel.map_err(|error| Status::from_error(error.into()))))
}

/// One append, as raft waits for it.
async fn append(appends: &mut Appends, client: &RaftClient<Channel>) -> bool {
    let sent = appends.send(client.clone(), wire::AppendRequest::default());
    timeout(PATIENCE, sent).await.is_ok_and(|answer| answer.is_ok())
}

#[tokio::test(start_paused = true)]
async fn a_line_to_a_manager_that_is_far_away_costs_no_append_its_answer() {
    let delay = Arc::new(Mutex::new(Duration::from_millis(40)));
    let manager = Far { has_line: true, calls: Arc::default() };
    let client = client(manager.clone(), &delay);
    let mut appends = Appends::default();
    for _ in 0..4 {
        assert!(append(&mut appends, &client).await);
    }
    assert_eq!(*manager.calls.lock().unwrap(), ["Append", "Appends", "Appends", "Appends"]);
}

#[tokio::test(start_paused = true)]
async fn r08_a_manager_without_lines_is_asked_for_one_once() {
    let delay = Arc::new(Mutex::new(Duration::from_millis(40)));
    let manager = Far { has_line: false, calls: Arc::default() };
    let client = client(manager.clone(), &delay);
    let mut appends = Appends::default();
    let mut answered = Vec::new();
    for _ in 0..4 {
        answered.push(append(&mut appends, &client).await);
    }
    // To ask takes a way there and back.
    assert_eq!(answered, [true, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn after_an_append_that_was_given_up_one_goes_by_a_call_of_its_own() {
    let delay = Arc::new(Mutex::new(Duration::from_millis(30)));
    let manager = Far { has_line: true, calls: Arc::default() };
    let client = client(manager.clone(), &delay);
    let mut appends = Appends::default();
    assert!(append(&mut appends, &client).await && append(&mut appends, &client).await);
    *delay.lock().unwrap() = Duration::from_millis(200);
    assert!(!append(&mut appends, &client).await);
    *delay.lock().unwrap() = Duration::from_millis(30);
    manager.calls.lock().unwrap().clear();
    // The first waits behind the one before, on the same connection.
    while !append(&mut appends, &client).await {}
    assert!(append(&mut appends, &client).await);
    let calls = manager.calls.lock().unwrap().clone();
    assert!(calls.ends_with(&["Append", "Appends"]), "{calls:?}");
}
