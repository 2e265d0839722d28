//! Keys of the data plane: their epochs, and the public half of each node's.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{Meta, UnixMillis};
use crate::{Epoch, NodeId};

/// A generation of data-plane keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// How far it is.
    pub state: EpochState,
    /// When the state ends, whoever leads then: the grace period of `preparing` and `ready`, the
    /// rotation deadline of `active`.
    pub deadline: UnixMillis,
}

/// State of a key epoch.
///
/// ```text
/// preparing ──► ready ──► active ──► retired
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpochState {
    /// Nodes make key pairs and publish the public halves.
    Preparing,
    /// Public keys are known; nodes install their receive associations.
    Ready,
    /// Nodes send with it.
    Active,
    /// A newer epoch is active; receive associations drain, then keys are erased.
    Retired,
}

impl fmt::Display for EpochState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Retired => "retired",
        })
    }
}

/// Public half of a node's X25519 key pair for one epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeKey {
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// Writes that made and changed it. A node that restarts publishes a new key for the epoch.
    pub meta: Meta,
    /// The public key (RFC 7748).
    pub public: [u8; 32],
    /// The node has installed its receive associations for this epoch.
    pub ready: bool,
}
