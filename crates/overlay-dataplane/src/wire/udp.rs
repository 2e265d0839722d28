//! UDP headers (RFC 768).

use core::net::{IpAddr, SocketAddr};

use super::{Malformed, checksum::Sum, protocol, read_u16, write_u16};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;
/// Where in the header the checksum is.
pub const CHECKSUM_AT: usize = 6;

/// A datagram whose header is whole and whose length agrees with the bytes.
#[derive(Debug, Clone, Copy)]
pub struct UdpDatagram<'a>(&'a [u8]);

impl<'a> UdpDatagram<'a> {
    /// The datagram at the start of `bytes`; what follows its length is cut off.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        let length = usize::from(read_u16(bytes, 4));
        if length < HEADER_LEN {
            return Err(Malformed::Length);
        }
        bytes.get(..length).map(Self).ok_or(Malformed::Truncated)
    }

    /// Source port.
    pub fn source(self) -> u16 {
        read_u16(self.0, 0)
    }

    /// Destination port.
    pub fn destination(self) -> u16 {
        read_u16(self.0, 2)
    }

    /// What follows the header.
    pub fn payload(self) -> &'a [u8] {
        &self.0[HEADER_LEN..]
    }
}

/// A header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpRepr {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Octets of the payload.
    pub payload_len: u16,
}

impl UdpRepr {
    /// The 8 octets with checksum zero, which says "none" over IPv4.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        write_u16(&mut header, 0, self.source);
        write_u16(&mut header, 2, self.destination);
        write_u16(&mut header, 4, HEADER_LEN as u16 + self.payload_len);
        header
    }
}

/// Appends a datagram with its checksum, without the IP header in front of it. It is not longer than
/// 65 535 octets.
pub(crate) fn emit(source: SocketAddr, destination: SocketAddr, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let (from, to) = (source.port(), destination.port());
    let ports = UdpRepr { source: from, destination: to, payload_len: payload.len() as u16 };
    out.extend_from_slice(&ports.to_bytes());
    out.extend_from_slice(payload);
    fill_checksum(&mut out[start..], source.ip(), destination.ip());
}

/// Computes the checksum of the datagram that is all of `datagram`.
pub(crate) fn fill_checksum(datagram: &mut [u8], source: IpAddr, destination: IpAddr) {
    write_u16(datagram, CHECKSUM_AT, 0);
    let length = datagram.len() as u32;
    let pseudo = Sum::pseudo_header(source, destination, protocol::UDP, length);
    let checksum = pseudo.and(Sum::of(datagram)).udp_checksum();
    write_u16(datagram, CHECKSUM_AT, checksum);
}
