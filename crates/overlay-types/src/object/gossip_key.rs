//! Keys of gossip.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{Meta, UnixMillis};
use crate::Epoch;

/// The gossip ring: next, current and previous key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GossipKeys {
    /// Writes that made and changed it.
    pub meta: Meta,
    /// Sealed with by everyone.
    pub current: Epoch,
    /// Two or three keys, the current one among them, by epoch.
    pub keys: Vec<GossipKey>,
    /// When the next rotation step is due.
    pub deadline: UnixMillis,
}

/// A key of the gossip ring. Secret: only members and their managers see it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Its generation.
    pub epoch: Epoch,
    /// The AES-256 key.
    pub key: [u8; 32],
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
