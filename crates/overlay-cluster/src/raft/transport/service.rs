//! The receiving side.

use core::time::Duration;

use bytes::BytesMut;
use futures::{StreamExt, stream::BoxStream};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use overlay_api::{
    internal::v1::{self as wire, raft_server},
    status::invalid_field,
};
use tonic::{Request, Response, Status, Streaming};

use super::peer::MAX_MESSAGE;
use crate::{
    control::Control,
    raft::{
        codec::{self, Malformed},
        types::{Raft, Snapshot},
    },
    server::Guard,
    state::wire::decode_command,
};

/// Longest pause between two pieces of a snapshot.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest snapshot that is taken: ten times that of 200 000 endpoints.
const MAX_SNAPSHOT: usize = 1 << 30;

/// Answers other managers; the gate lets nobody else in.
#[derive(Clone, Debug)]
pub struct RaftService(Control);

impl RaftService {
    /// The gRPC service of this manager.
    pub fn server(control: Control) -> raft_server::RaftServer<Self> {
        raft_server::RaftServer::new(Self(control))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    fn raft(&self) -> Raft {
        self.0.raft()
    }
}

fn malformed(error: Malformed) -> Status {
    tracing::error!(%error, "another manager says what this one cannot read; is its release older?");
    overlay_api::status::invalid(&error)
}

fn internal(error: impl ToString) -> Status {
    Status::internal(error.to_string())
}

impl RaftService {
    async fn append_one(
        &self,
        message: wire::AppendRequest,
    ) -> Result<wire::AppendResponse, Status> {
        let entries = message.entries.into_iter().map(codec::entry_from_wire);
        let rpc = AppendEntriesRequest {
            vote: codec::vote_from_wire(message.vote).map_err(malformed)?,
            prev_log_id: codec::optional_log_id(message.previous).map_err(malformed)?,
            entries: entries.collect::<Result<_, _>>().map_err(malformed)?,
            leader_commit: codec::optional_log_id(message.leader_commit).map_err(malformed)?,
        };
        let answer = self.raft().append_entries(rpc).await.map_err(internal)?;
        Ok(codec::append_response_to_wire(answer))
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    type AppendsStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::AppendResponse>, Status> {
        self.append_one(request.into_inner()).await.map(Response::new)
    }

    async fn appends(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendsStream>, Status> {
        let guard = Guard::of(&request)?;
        let mut core = self.raft().server_metrics();
        // Its sender lives as long as the raft core, which nobody may keep from being closed.
        let stopped = async move { while core.changed().await.is_ok() {} };
        let service = self.clone();
        let answers = request.into_inner().then(move |message| {
            let (service, guard) = (service.clone(), guard.clone());
            async move {
                guard.look()?;
                service.append_one(message?).await
            }
        });
        Ok(Response::new(answers.take_until(stopped).boxed()))
    }

    async fn request_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let message = request.into_inner();
        let vote = codec::vote_from_wire(message.vote).map_err(malformed)?;
        let last_log_id = codec::optional_log_id(message.last_log_id).map_err(malformed)?;
        let rpc = VoteRequest { vote, last_log_id };
        let answer = self.raft().vote(rpc).await.map_err(internal)?;
        Ok(Response::new(wire::VoteResponse {
            vote: Some(codec::vote_to_wire(answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.map(codec::log_id_to_wire),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotPiece>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.unwrap_or_default();
        let vote = codec::vote_from_wire(first.vote).map_err(malformed)?;
        let meta = codec::snapshot_meta_from_wire(first.meta).map_err(malformed)?;
        let mut data = BytesMut::from(first.data);
        loop {
            let next = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
            match next.map_err(|_| Status::deadline_exceeded("the snapshot stopped coming"))?? {
                Some(piece) if data.len() + piece.data.len() <= MAX_SNAPSHOT => {
                    data.extend_from_slice(&piece.data);
                }
                Some(_) => return Err(Status::resource_exhausted("the snapshot exceeds 1 GiB")),
                None => break,
            }
        }
        let snapshot = Snapshot { meta, snapshot: Box::new(data.freeze()) };
        let answer = self.raft().install_full_snapshot(vote, snapshot).await.map_err(internal)?;
        let vote = Some(codec::vote_to_wire(answer.vote));
        Ok(Response::new(wire::SnapshotResponse { vote }))
    }

    async fn propose(
        &self,
        request: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        let command = decode_command(request.get_ref().command.as_slice())
            .map_err(|error| invalid_field("command", error.to_string()))?;
        let response = self.0.propose_as_leader(command).await?;
        Ok(Response::new(wire::ProposeResponse { response: Some((&response).into()) }))
    }

    async fn read_index(
        &self,
        _request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        let log_id = self.0.read_index_as_leader().await?;
        let log_id = log_id.map(codec::log_id_to_wire);
        Ok(Response::new(wire::ReadIndexResponse { log_id }))
    }
}
