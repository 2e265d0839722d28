//! TCP headers (RFC 9293 §3.1).

use super::{Malformed, read_u16, read_u32};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;
/// Where in the header the sequence number is.
pub const SEQUENCE_AT: usize = 4;
/// Where in the header the flags are.
pub const FLAGS_AT: usize = 13;
/// Where in the header the checksum is.
pub const CHECKSUM_AT: usize = 16;

/// Flag bits.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// A segment whose header with options is whole.
#[derive(Debug, Clone, Copy)]
pub struct TcpSegment<'a>(&'a [u8]);

impl<'a> TcpSegment<'a> {
    /// The segment that is all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        let header = usize::from(bytes[12] >> 4) * 4;
        if header < HEADER_LEN || header > bytes.len() {
            return Err(Malformed::Length);
        }
        Ok(Self(bytes))
    }

    /// Source port.
    pub fn source(self) -> u16 {
        read_u16(self.0, 0)
    }

    /// Destination port.
    pub fn destination(self) -> u16 {
        read_u16(self.0, 2)
    }

    /// Sequence number.
    pub fn sequence(self) -> u32 {
        read_u32(self.0, SEQUENCE_AT)
    }

    /// Flags, see [`flag`].
    pub fn flags(self) -> u8 {
        self.0[FLAGS_AT]
    }

    /// Octets of the header with options.
    pub fn header_len(self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// What follows the header.
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }
}
