//! ICMP and ICMPv6 messages that a switch sends or changes (RFC 792, RFC 1191, RFC 4443).

use core::net::IpAddr;

use super::{
    checksum::Sum,
    ipv4::{self, Ipv4Repr},
    ipv6::{self, Ipv6Repr},
    protocol, write_u16, write_u32,
};

/// Octets before the body of a message: type, code, checksum, rest of header.
pub const HEADER_LEN: usize = 8;
/// Where in the message the checksum is.
pub const CHECKSUM_AT: usize = 2;

/// ICMP types.
pub mod v4 {
    /// Answer to a ping.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Ping.
    pub const ECHO_REQUEST: u8 = 8;
    /// TTL ran out.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A header field is wrong.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Whether messages of this type quote the packet that caused them.
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// ICMPv6 types.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Hop limit ran out.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Ping.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answer to a ping.
    pub const ECHO_REPLY: u8 = 129;

    /// Whether messages of this type quote the packet that caused them (RFC 4443 §2.1).
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
    }
}

/// What an error message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The packet exceeds this MTU (RFC 1191 §4, RFC 4443 §3.2).
    TooBig(u16),
    /// Nobody answers on the destination port.
    PortUnreachable,
    /// There is no way to the destination.
    NoRoute,
    /// TTL or hop limit ran out.
    TimeExceeded,
}

/// An error message to the sender of a packet.
#[derive(Debug, Clone, Copy)]
pub struct ErrorRepr<'a> {
    /// What is wrong.
    pub trouble: Trouble,
    /// Who says so. Of one family with `destination`.
    pub source: IpAddr,
    /// The sender of the packet.
    pub destination: IpAddr,
    /// The packet, from its IP header on.
    pub packet: &'a [u8],
}

/// Octets of the packet that an ICMP error quotes: 576 in all (RFC 1812 §4.3.2.3).
const QUOTE_V4: usize = 576 - ipv4::HEADER_LEN - HEADER_LEN;
/// Octets that an ICMPv6 error quotes: the minimum MTU in all (RFC 4443 §2.4 c).
const QUOTE_V6: usize = 1280 - ipv6::HEADER_LEN - HEADER_LEN;

impl ErrorRepr<'_> {
    /// Appends IP header and message. Nothing when the addresses are of two families.
    pub fn emit(self, out: &mut Vec<u8>) {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let quote = &self.packet[..self.packet.len().min(QUOTE_V4)];
                let payload_len = (HEADER_LEN + quote.len()) as u16;
                let (ttl, protocol) = (64, protocol::ICMP);
                Ipv4Repr { source, destination, protocol, payload_len, ttl }.emit(out);
                let (kind, code, rest) = match self.trouble {
                    Trouble::TooBig(mtu) => (v4::UNREACHABLE, 4, u32::from(mtu)),
                    Trouble::PortUnreachable => (v4::UNREACHABLE, 3, 0),
                    Trouble::NoRoute => (v4::UNREACHABLE, 1, 0),
                    Trouble::TimeExceeded => (v4::TIME_EXCEEDED, 0, 0),
                };
                emit_message(out, (kind, code, rest), quote, Sum::ZERO);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let quote = &self.packet[..self.packet.len().min(QUOTE_V6)];
                let payload_len = (HEADER_LEN + quote.len()) as u16;
                let (hop_limit, protocol) = (64, protocol::ICMPV6);
                Ipv6Repr { source, destination, protocol, payload_len, hop_limit }.emit(out);
                let (kind, code, rest) = match self.trouble {
                    Trouble::TooBig(mtu) => (v6::TOO_BIG, 0, u32::from(mtu)),
                    Trouble::PortUnreachable => (v6::UNREACHABLE, 4, 0),
                    Trouble::NoRoute => (v6::UNREACHABLE, 3, 0),
                    Trouble::TimeExceeded => (v6::TIME_EXCEEDED, 0, 0),
                };
                let (source, destination) = (self.source, self.destination);
                let length = u32::from(payload_len);
                let pseudo = Sum::pseudo_header(source, destination, protocol, length);
                emit_message(out, (kind, code, rest), quote, pseudo);
            }
            _ => {}
        }
    }
}

fn emit_message(out: &mut Vec<u8>, (kind, code, rest): (u8, u8, u32), quote: &[u8], pseudo: Sum) {
    let start = out.len();
    out.extend_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    write_u32(out, start + 4, rest);
    out.extend_from_slice(quote);
    let checksum = pseudo.and(Sum::of(&out[start..])).checksum();
    write_u16(out, start + CHECKSUM_AT, checksum);
}
