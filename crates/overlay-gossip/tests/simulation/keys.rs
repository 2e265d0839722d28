//! Key rings for tests.

use overlay_gossip::{GossipKeys, KeySlot};
use overlay_types::Epoch;

fn slot(epoch: u64) -> KeySlot {
    KeySlot { epoch: Epoch::new(epoch), key: [epoch as u8; 32] }
}

/// A ring that holds only this key.
pub(crate) fn ring(current: u64) -> GossipKeys {
    GossipKeys { next: None, current: slot(current), previous: None }
}

/// A ring that is about to send with the next key.
pub(crate) fn prepared(current: u64) -> GossipKeys {
    GossipKeys { next: Some(slot(current + 1)), ..ring(current) }
}

/// A ring that has just begun to send with this key.
pub(crate) fn switched(current: u64) -> GossipKeys {
    GossipKeys { previous: Some(slot(current - 1)), ..ring(current) }
}
