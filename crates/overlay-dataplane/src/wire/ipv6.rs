//! IPv6 headers and the walk along extension headers (RFC 8200).

use core::net::Ipv6Addr;

use super::{Malformed, read_array, read_u16, read_u32};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Extension headers that are walked before a packet is refused: RFC 8200 §4.1 lists seven that
/// occur once, and a longer chain only serves to hide the transport header.
pub const MAX_EXTENSIONS: usize = 8;

/// A packet whose header is whole and whose payload length agrees with the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6Packet<'a>(&'a [u8]);

impl<'a> Ipv6Packet<'a> {
    /// The packet at the start of `bytes`; what follows its payload length is cut off.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        if bytes[0] >> 4 != 6 {
            return Err(Malformed::Field);
        }
        let total = HEADER_LEN + usize::from(read_u16(bytes, 4));
        bytes.get(..total).map(Self).ok_or(Malformed::Truncated)
    }

    /// Octets of the packet.
    pub fn total_len(self) -> usize {
        self.0.len()
    }

    /// Hop limit.
    pub fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Source address.
    pub fn source(self) -> Ipv6Addr {
        read_array(self.0, 8).into()
    }

    /// Destination address.
    pub fn destination(self) -> Ipv6Addr {
        read_array(self.0, 24).into()
    }

    /// Follows the extension headers to the transport header.
    pub fn upper_layer(self) -> Result<UpperLayer, Malformed> {
        let mut upper = UpperLayer { protocol: self.0[6], offset: HEADER_LEN, fragment: None };
        for _ in 0..=MAX_EXTENSIONS {
            let rest = &self.0[upper.offset..];
            let length = match upper.protocol {
                // Hop-by-hop options, routing, destination options.
                0 | 43 | 60 if rest.len() >= 8 => (usize::from(rest[1]) + 1) * 8,
                // Fragment.
                44 if rest.len() >= 8 => {
                    let offset_and_flags = read_u16(rest, 2);
                    // An atomic fragment (RFC 6946) is a whole packet.
                    if offset_and_flags & 0xfff9 != 0 {
                        let offset = usize::from(offset_and_flags & 0xfff8);
                        upper.fragment = Some((read_u32(rest, 4), offset));
                    }
                    8
                }
                0 | 43 | 44 | 60 => return Err(Malformed::Truncated),
                _ => return Ok(upper),
            };
            if length > rest.len() {
                return Err(Malformed::Truncated);
            }
            upper.protocol = rest[0];
            upper.offset += length;
            if upper.fragment.is_some_and(|(_, offset)| offset > 0) {
                return Ok(upper);
            }
        }
        Err(Malformed::Field)
    }
}

/// Where the chain of extension headers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperLayer {
    /// Protocol of what follows.
    pub protocol: u8,
    /// Where it starts, from the start of the packet.
    pub offset: usize,
    /// Identification and offset in octets, when the packet is one of several fragments.
    pub fragment: Option<(u32, usize)>,
}

/// A header without extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Octets of the payload.
    pub payload_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Ipv6Repr {
    /// Appends the 40 octets.
    pub fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0x60, 0, 0, 0]);
        out.extend_from_slice(&self.payload_len.to_be_bytes());
        out.extend_from_slice(&[self.protocol, self.hop_limit]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
    }
}
