//! Key rings for tests.

use overlay_crypto::{
    aead::AeadKey,
    keyring::{RingKey, RingKeys},
};
use overlay_types::Epoch;

fn key(epoch: u64) -> RingKey {
    RingKey { epoch: Epoch::new(epoch), key: AeadKey::from_bytes([epoch as u8; 32]) }
}

/// A ring that holds only this key.
pub(crate) fn ring(current: u64) -> RingKeys {
    RingKeys { next: None, current: key(current), previous: None }
}

/// A ring that is about to send with the next key.
pub(crate) fn prepared(current: u64) -> RingKeys {
    RingKeys { next: Some(key(current + 1)), ..ring(current) }
}

/// A ring that has just begun to send with this key.
pub(crate) fn switched(current: u64) -> RingKeys {
    RingKeys { previous: Some(key(current - 1)), ..ring(current) }
}
