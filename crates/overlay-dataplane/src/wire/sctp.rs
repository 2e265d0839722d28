//! The SCTP common header (RFC 9260 §3.1).
//!
//! Its CRC32c covers the packet only, no pseudo-header: addresses change without touching it,
//! ports do not.

use super::{Malformed, read_u16};

/// Octets of the common header.
pub const HEADER_LEN: usize = 12;

/// Chunk types that begin and end an association.
pub mod chunk {
    /// First packet of an association.
    pub const INIT: u8 = 1;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// Last packet of an orderly end.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// A packet whose common header is whole.
#[derive(Debug, Clone, Copy)]
pub struct SctpPacket<'a>(&'a [u8]);

impl<'a> SctpPacket<'a> {
    /// The packet that is all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN { Err(Malformed::Truncated) } else { Ok(Self(bytes)) }
    }

    /// Source port.
    pub fn source(self) -> u16 {
        read_u16(self.0, 0)
    }

    /// Destination port.
    pub fn destination(self) -> u16 {
        read_u16(self.0, 2)
    }

    /// Type of the first chunk, if there is one.
    pub fn first_chunk(self) -> Option<u8> {
        self.0.get(HEADER_LEN).copied()
    }
}
