//! ESP in transport mode with AES-GCM and 64-bit sequence numbers, in UDP.
//!
//! ```text
//!  0        4        8                16                                       n-16      n
//!  │  SPI   │ seq lo │ IV: 64-bit seq │ UDP │ VXLAN │ frame │ pad │ len │ 17  │   tag    │
//!  └─────── authenticated, with ──────┴──────────── encrypted ───────────────┘
//!           the high half of seq
//! ```
//!
//! Sources: RFC 4303 (ESP, extended sequence numbers), RFC 4106 (AES-GCM in ESP), RFC 3948 (in UDP).
//! The Linux kernel speaks the same with `aead "rfc4106(gcm(aes))" … 128`, `esn` and
//! `replay-window 4096`.
//!
//! - [`codec`]: lengths, the parts of a packet, what a datagram on port 4500 is
//! - [`outbound`]: [`OutboundSa`] seals
//! - [`inbound`]: [`InboundSa`] checks, opens
//! - [`table`]: [`SaTable`] finds the association of a datagram and counts

pub mod codec;
pub mod inbound;
pub mod outbound;
pub mod table;

pub use codec::{Datagram, HEADROOM, MAX_OVERHEAD, TAILROOM, overhead};
pub use inbound::{InboundSa, OpenError};
pub use outbound::OutboundSa;
pub use table::{Opened, SaTable};

use overlay_types::{Epoch, NodeId, Spi};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aead::{AeadKey, NONCE_LEN};

/// Length of the salt in bytes: the part of the nonce that is not on the wire (RFC 4106 §4).
pub const SALT_LEN: usize = 4;

/// Which association: an SPI is a hash, so two peers of a node can have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId {
    /// The node at the other end.
    pub peer: NodeId,
    /// The key epoch it belongs to.
    pub epoch: Epoch,
    /// The number on the wire.
    pub spi: Spi,
}

/// Keying material of one direction between two nodes in one epoch. Zeroized when dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaKeys {
    /// The number on the wire.
    pub spi: Spi,
    /// AES-256 key.
    pub key: AeadKey,
    /// The part of the nonce that is not on the wire.
    pub salt: Salt,
}

/// The part of the nonce that is not on the wire (RFC 4106 §4). Zeroized when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Salt(pub [u8; SALT_LEN]);

impl Salt {
    fn nonce(&self, iv: [u8; 8]) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.0);
        nonce[SALT_LEN..].copy_from_slice(&iv);
        nonce
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(..)")
    }
}

#[cfg(test)]
mod tests;
