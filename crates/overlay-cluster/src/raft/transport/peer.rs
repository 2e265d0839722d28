//! The sending side.

use core::{future::Future, time::Duration};
use std::{io, sync::Arc};

use bytes::Bytes;
use openraft::{
    OptionalSend,
    error::{
        Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use overlay_api::internal::v1::{self as wire, raft_client::RaftClient};
use overlay_types::NodeId;
use tonic::{Code, Request, Status};

use super::{
    appends::Appends,
    links::{Channel, Links},
};
use crate::raft::{
    codec,
    store::Durable,
    types::{Entry, LogId, Member, Snapshot, TypeConfig, Vote},
};

/// Largest message between managers: far above what is sent, see [`MAX_ENTRIES`].
pub(super) const MAX_MESSAGE: usize = 64 << 20;
/// Bytes of entries in one message, but for the first entry, which has at most 2 MB. A follower has
/// to write them before the next heartbeat is due.
const MAX_ENTRIES: usize = 4 << 20;

/// How long a snapshot may take to be installed, besides its transfer.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes a second that the transfer of a snapshot is given time for: a slow link between sites.
const SNAPSHOT_RATE: u64 = 1_000_000;

/// Bytes of a snapshot in one message.
const PIECE: usize = 256 << 10;

/// Calls other managers.
#[derive(Clone, Debug)]
pub struct Peers {
    links: Arc<dyn Links>,
    durable: Durable,
}

impl Peers {
    /// Calls over these links. `durable` is of the caller's own log.
    pub fn new(links: Arc<dyn Links>, durable: Durable) -> Self {
        Self { links, durable }
    }

    /// The same links, for another log.
    #[must_use]
    pub fn with(&self, durable: Durable) -> Self {
        Self { durable, ..self.clone() }
    }

    /// A client for the manager `id`, which must prove to be that node.
    pub fn client(&self, id: NodeId, member: &Member) -> Option<RaftClient<Channel>> {
        let client = RaftClient::new(self.links.channel(id, member.control?));
        Some(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        let appends = Appends::default();
        Peer { peers: self.clone(), id: target, member: node.clone(), appends }
    }
}

/// The connection to one manager.
#[derive(Debug)]
pub struct Peer {
    peers: Peers,
    id: NodeId,
    member: Member,
    appends: Appends,
}

type RpcError = RPCError<NodeId, Member, RaftError<NodeId>>;

fn rpc_error(status: &Status) -> RpcError {
    match status.code() {
        // Unreachable makes openraft back off; anything else is tried again at once. Who refuses this
        // manager will not change its mind within a millisecond.
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::PermissionDenied
        | Code::Unauthenticated => Unreachable::new(status).into(),
        _ => NetworkError::new(status).into(),
    }
}

/// Whether the other manager does not let this one in: it was demoted or removed.
fn is_barred(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
}

/// What a manager that bars a candidate says to it, in raft's words: that its log ends before the
/// membership without it. Raft then waits longer for its next candidacy than others for theirs.
/// Without this, one that missed its own removal asks with term after term, gets the vote of whoever
/// missed it too, and the terms of all others are over before they have won (Raft, section 6:
/// servers that are removed disrupt the group).
fn behind(rpc: &VoteRequest<NodeId>) -> VoteResponse<NodeId> {
    let beyond = |last: LogId| LogId::new(last.leader_id, last.index + 1);
    let last_log_id = rpc.last_log_id.map(beyond);
    VoteResponse { vote: Vote::default(), vote_granted: false, last_log_id }
}

fn malformed(error: codec::Malformed) -> RpcError {
    NetworkError::new(&io::Error::other(error)).into()
}

impl Peer {
    fn client(&self) -> Result<RaftClient<Channel>, Unreachable> {
        self.peers.client(self.id, &self.member).ok_or_else(|| {
            Unreachable::new(&io::Error::other(format!("member {} has no address", self.id)))
        })
    }
}

/// The first entries, as many as one message takes.
fn fitting(entries: &[Entry]) -> &[Entry] {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        let first = bytes == 0;
        bytes += codec::bytes_of(entry);
        first || bytes <= MAX_ENTRIES
    });
    &entries[..fits.count()]
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError> {
        if let Some(committed) = rpc.leader_commit {
            // Followers apply it, so it must be on the disks of a quorum; raft counted ours ahead.
            let durable = self.peers.durable.reach(committed.index).await;
            durable.map_err(|error| NetworkError::new(&error))?;
        }
        let entries = fitting(&rpc.entries);
        let message = wire::AppendRequest {
            vote: Some(codec::vote_to_wire(rpc.vote)),
            previous: rpc.prev_log_id.map(codec::log_id_to_wire),
            entries: entries.iter().map(codec::entry_to_wire).collect(),
            leader_commit: rpc.leader_commit.map(codec::log_id_to_wire),
        };
        // Raft itself stops waiting, which ends the call; a deadline would be a timer at both ends.
        let client = self.client()?;
        let answer = self.appends.send(client, message).await;
        let answer = answer.map_err(|status| rpc_error(&status))?;
        let answer = codec::append_response_from_wire(answer).map_err(malformed)?;
        Ok(match (answer, entries.last()) {
            // The rest goes with the next message.
            (AppendEntriesResponse::Success, Some(last)) if entries.len() < rpc.entries.len() => {
                AppendEntriesResponse::PartialSuccess(Some(last.log_id))
            }
            (answer, _) => answer,
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError> {
        let message = wire::VoteRequest {
            vote: Some(codec::vote_to_wire(rpc.vote)),
            last_log_id: rpc.last_log_id.map(codec::log_id_to_wire),
        };
        let call = within(message, option.hard_ttl());
        let answer = match self.client()?.request_vote(call).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_barred(&status) => return Ok(behind(&rpc)),
            Err(status) => return Err(rpc_error(&status)),
        };
        Ok(VoteResponse {
            vote: codec::vote_from_wire(answer.vote).map_err(malformed)?,
            vote_granted: answer.granted,
            last_log_id: codec::optional_log_id(answer.last_log_id).map_err(malformed)?,
        })
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let data = *snapshot.snapshot;
        let length = data.len();
        let first = wire::SnapshotPiece {
            vote: Some(codec::vote_to_wire(vote)),
            meta: Some(codec::snapshot_meta_to_wire(&snapshot.meta)),
            data: Bytes::new(),
        };
        let pieces = (0..data.len()).step_by(PIECE).map(move |start| wire::SnapshotPiece {
            vote: None,
            meta: None,
            data: data.slice(start..data.len().min(start + PIECE)),
        });
        let stream = tokio_stream::iter(std::iter::once(first).chain(pieces));
        let limit = SNAPSHOT_PATIENCE + Duration::from_secs(length as u64 / SNAPSHOT_RATE);
        let mut client = self.client()?;
        let send = client.install_snapshot(within(stream, limit));
        let answer = tokio::select! {
            answer = send => answer,
            closed = cancel => return Err(closed.into()),
        };
        let answer = answer.map_err(|status| match rpc_error(&status) {
            RPCError::Unreachable(error) => StreamingError::Unreachable(error),
            _ => StreamingError::Network(NetworkError::new(&status)),
        })?;
        let vote = codec::vote_from_wire(answer.into_inner().vote)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }
}
