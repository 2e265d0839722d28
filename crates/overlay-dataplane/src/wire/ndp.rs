//! Neighbor discovery: solicitations and advertisements (RFC 4861 §4.3, §4.4).

use core::net::{IpAddr, Ipv6Addr};

use overlay_types::MacAddr;

use super::{
    Malformed,
    checksum::Sum,
    ipv6::{Ipv6Packet, Ipv6Repr},
    protocol, read_array, write_u16,
};

/// ICMPv6 types of neighbor discovery: router solicitation to redirect.
pub const TYPES: core::ops::RangeInclusive<u8> = 133..=137;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Type, code, checksum, reserved, target.
const FIXED_LEN: usize = 24;

/// Who has `target`?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; unspecified while it tests whether an address is free (RFC 4862 §5.4).
    pub source: Ipv6Addr,
    /// The address asked for.
    pub target: Ipv6Addr,
}

impl Solicitation {
    /// The solicitation in `packet`, whose ICMPv6 message starts at `offset`. `None` when it is
    /// another type.
    pub fn parse(packet: &[u8], offset: usize) -> Result<Option<Self>, Malformed> {
        let ip = Ipv6Packet::new(packet)?;
        let message = &packet[offset..ip.total_len()];
        if message.first().is_some_and(|kind| *kind != SOLICITATION) {
            return Ok(None);
        }
        if message.len() < FIXED_LEN {
            return Err(Malformed::Truncated);
        }
        // A hop limit below 255 was routed: not from this link (RFC 4861 §7.1.1).
        if ip.hop_limit() != 255 || message[1] != 0 {
            return Err(Malformed::Field);
        }
        let (source, destination) = (ip.source(), ip.destination());
        let sum = Sum::pseudo_header(
            source.into(),
            destination.into(),
            protocol::ICMPV6,
            message.len() as u32,
        );
        if sum.and(Sum::of(message)).checksum() != 0 {
            return Err(Malformed::Checksum);
        }
        let target = Ipv6Addr::from(read_array::<16>(message, 8));
        if target.is_multicast() {
            Err(Malformed::Field)
        } else {
            Ok(Some(Self { source, target }))
        }
    }
}

/// `target` is at `mac`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// Address that is advertised, and source of the packet.
    pub target: Ipv6Addr,
    /// Where it is.
    pub mac: MacAddr,
    /// Who is told.
    pub destination: Ipv6Addr,
    /// Whether it answers a solicitation.
    pub solicited: bool,
}

impl Advertisement {
    /// Appends IPv6 header and message with the target link-layer address option.
    pub fn emit(self, out: &mut Vec<u8>) {
        const LEN: u16 = FIXED_LEN as u16 + 8;
        Ipv6Repr {
            source: self.target,
            destination: self.destination,
            protocol: protocol::ICMPV6,
            payload_len: LEN,
            hop_limit: 255,
        }
        .emit(out);
        let start = out.len();
        // Override is set: the tables are right by definition.
        let flags = if self.solicited { 0x60 } else { 0x20 };
        out.extend_from_slice(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
        out.extend_from_slice(&self.target.octets());
        out.extend_from_slice(&[2, 1]);
        out.extend_from_slice(&self.mac.0);
        let (source, destination) = (IpAddr::V6(self.target), IpAddr::V6(self.destination));
        let sum = Sum::pseudo_header(source, destination, protocol::ICMPV6, u32::from(LEN))
            .and(Sum::of(&out[start..]));
        write_u16(out, start + 2, sum.checksum());
    }
}
