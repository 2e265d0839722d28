//! The SCTP common header (RFC 9260 §3.1).
//!
//! Its CRC32c covers the packet only, no pseudo-header: addresses change without touching it,
//! ports do not.

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
