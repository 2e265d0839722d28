//! openraft's parameters, with our vocabulary.

use core::{fmt, net::SocketAddr};

use bytes::Bytes;
use overlay_types::{Name, NodeId};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use crate::state::{Rejection, Response};

/// Where a member of the raft group answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its host name; absent only in openraft's own tests.
    pub name: Option<Name>,
    /// Its management API; absent only in openraft's own tests.
    pub control: Option<SocketAddr>,
}

/// What a command was answered. Replicated: every manager says the same.
pub type Outcome = Result<Response, Rejection>;

openraft::declare_raft_types!(
    /// What this project replicates: batches of commands, between nodes, with snapshots as bytes.
    pub TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = NodeId,
        Node = Member,
        SnapshotData = Bytes,
);

/// Place of an entry in the log.
pub type LogId = openraft::LogId<NodeId>;
/// A vote for a leader.
pub type Vote = openraft::Vote<NodeId>;
/// A log entry.
pub type Entry = openraft::Entry<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<NodeId, Member>;
/// A membership and the entry that it was made by.
pub type StoredMembership = openraft::StoredMembership<NodeId, Member>;
/// What a snapshot includes.
pub type SnapshotMeta = openraft::SnapshotMeta<NodeId, Member>;
/// A snapshot.
pub type Snapshot = openraft::Snapshot<TypeConfig>;
/// Trouble with the store.
pub type StorageError = openraft::StorageError<NodeId>;
/// The running raft core.
pub type Raft = openraft::Raft<TypeConfig>;

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.control) {
            (Some(name), Some(control)) => write!(f, "{name} at {control}"),
            (_, Some(control)) => control.fmt(f),
            _ => f.write_str("unknown"),
        }
    }
}
