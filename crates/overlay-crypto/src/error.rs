//! The one error of this crate, for calls that a caller must act on.
//!
//! What is wrong with a received packet is not here: that is a reason with a counter, see
//! [`OpenError`](crate::esp::OpenError) and [`UnsealError`](crate::keyring::UnsealError).

use overlay_types::{Epoch, NodeId};

/// A call that did nothing: no key was used, no counter moved, no table changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The buffer has no room for what sealing adds.
    #[error(
        "payload at {start}..{end} of a {buffer} byte buffer needs {before} bytes before and \
         {after} after it to be sealed in place"
    )]
    NoRoom {
        /// Where the payload starts.
        start: usize,
        /// Where the payload ends.
        end: usize,
        /// Length of the buffer.
        buffer: usize,
        /// Bytes needed before the payload.
        before: usize,
        /// Bytes needed after the payload.
        after: usize,
    },
    /// A message is longer than anything that is sealed at once.
    #[error("a message of {length} bytes was not sealed; {limit} bytes are the limit")]
    TooLong {
        /// Length of the message.
        length: usize,
        /// The longest that is sealed.
        limit: usize,
    },
    /// The packet counter of a key has reached its end; it never wraps, because a repeated counter
    /// is a repeated nonce.
    #[error("the packet counter of this key is spent; traffic needs a new key epoch")]
    CounterSpent,
    /// The peer's public key has small order: the shared secret would be all zero (RFC 7748 §6.1).
    #[error("public key of node {peer} in epoch {epoch} has small order and was refused")]
    WeakPublicKey {
        /// Whose key it is.
        peer: NodeId,
        /// The key epoch.
        epoch: Epoch,
    },
    /// The node left or replaced this public key before, and came back with it.
    #[error(
        "public key of node {peer} in epoch {epoch} was in use before and is refused, because its \
         packet counters would start again; the node must publish a new one"
    )]
    SpentPublicKey {
        /// Whose key it is.
        peer: NodeId,
        /// The key epoch.
        epoch: Epoch,
    },
    /// A table is full.
    #[error("no more than {limit} {what} are kept; the new one was refused")]
    TableFull {
        /// What the table holds.
        what: &'static str,
        /// Its bound.
        limit: usize,
    },
}
