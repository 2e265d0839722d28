//! IPv4 headers (RFC 791).

use core::net::Ipv4Addr;

use super::{Malformed, checksum::Sum, read_array, read_u16, write_u16};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// A packet whose header is whole and whose length fields agree with the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Packet<'a>(&'a [u8]);

impl<'a> Ipv4Packet<'a> {
    /// The packet at the start of `bytes`; what follows its total length is cut off.
    ///
    /// The header checksum is not verified here, see [`Ipv4Packet::verify_checksum`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        if bytes[0] >> 4 != 4 {
            return Err(Malformed::Field);
        }
        let header = usize::from(bytes[0] & 0xf) * 4;
        let total = usize::from(read_u16(bytes, 2));
        if header < HEADER_LEN || total < header {
            return Err(Malformed::Length);
        }
        bytes.get(..total).map(Self).ok_or(Malformed::Truncated)
    }

    /// Octets of the header with options.
    pub fn header_len(self) -> usize {
        usize::from(self.0[0] & 0xf) * 4
    }

    /// Octets of the packet.
    pub fn total_len(self) -> usize {
        self.0.len()
    }

    /// Time to live.
    pub fn ttl(self) -> u8 {
        self.0[8]
    }

    /// Protocol of the payload.
    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    /// Source address.
    pub fn source(self) -> Ipv4Addr {
        read_array(self.0, 12).into()
    }

    /// Destination address.
    pub fn destination(self) -> Ipv4Addr {
        read_array(self.0, 16).into()
    }

    /// Whether this is one of several fragments.
    pub fn is_fragment(self) -> bool {
        read_u16(self.0, 6) & 0x3fff != 0
    }

    /// Offset of this fragment in the payload, in octets.
    pub fn fragment_offset(self) -> usize {
        usize::from(read_u16(self.0, 6) & 0x1fff) * 8
    }

    /// Identification: what the fragments of one packet have in common.
    pub fn identification(self) -> u16 {
        read_u16(self.0, 4)
    }

    /// What follows the header.
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }

    /// Whether the header checksum is right.
    pub fn verify_checksum(self) -> bool {
        Sum::of(&self.0[..self.header_len()]).checksum() == 0
    }
}

/// A header without options, of a packet that is not fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Octets of the payload.
    pub payload_len: u16,
    /// Time to live.
    pub ttl: u8,
}

impl Ipv4Repr {
    /// Appends the 20 octets, with "don't fragment" set.
    pub fn emit(self, out: &mut Vec<u8>) {
        let start = out.len();
        let total = HEADER_LEN as u16 + self.payload_len;
        out.extend_from_slice(&[0x45, 0]);
        out.extend_from_slice(&total.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0x40, 0, self.ttl, self.protocol, 0, 0]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
        fill_checksum(&mut out[start..]);
    }
}

/// Computes the checksum of the header at the start of `packet`, which must be checked.
pub(crate) fn fill_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    write_u16(packet, 10, 0);
    let checksum = Sum::of(&packet[..header]).checksum();
    write_u16(packet, 10, checksum);
}
