//! Steps of a key epoch that can be refused.

use core::fmt;

use overlay_types::EpochState;
use serde::{Deserialize, Serialize};

/// What a key epoch was to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EpochTarget {
    /// This state.
    State(EpochState),
    /// Deleted.
    Removed,
    /// The current gossip key.
    CurrentGossipKey,
    /// An epoch that a node publishes a key for.
    Keyed,
}

impl fmt::Display for EpochTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => state.fmt(f),
            Self::Removed => f.write_str("deleted"),
            Self::CurrentGossipKey => f.write_str("the current gossip key"),
            Self::Keyed => f.write_str("an epoch with a new key"),
        }
    }
}
