//! Cutting super-frames into the frames that go on the wire.
//!
//! ```text
//! [eth|ip|tcp|payload ~64 KiB]  ──►  [eth|ip|tcp|size] [eth|ip|tcp|size] … [eth|ip|tcp|rest]
//! ```

use crate::wire::{
    Malformed, checksum::Sum, dissection::Dissection, ethernet, icmp, ipv4, ipv6, protocol,
    read_u16, read_u32, tcp, udp, write_u16, write_u32,
};

/// A super-frame that can be cut.
#[derive(Debug)]
pub(super) struct Cutter<'a> {
    frame: &'a [u8],
    seen: Dissection,
    /// Octets of all headers.
    headers: usize,
    size: usize,
}

impl<'a> Cutter<'a> {
    /// Prepares to cut `frame` into segments with `size` octets of payload.
    pub(super) fn new(frame: &'a [u8], seen: &Dissection, size: usize) -> Result<Self, Malformed> {
        let transport = &frame[seen.transport..seen.end];
        let header = match seen.protocol {
            protocol::TCP => tcp::TcpSegment::new(transport)?.header_len(),
            protocol::UDP if transport.len() >= udp::HEADER_LEN => udp::HEADER_LEN,
            _ => return Err(Malformed::Field),
        };
        if seen.fragment.is_some() {
            return Err(Malformed::Field);
        }
        Ok(Self { frame, seen: *seen, headers: seen.transport + header, size })
    }

    /// Largest IP packet among the segments.
    pub(super) fn largest_packet(&self) -> usize {
        let payload = (self.seen.end - self.headers).min(self.size);
        self.headers + payload - ethernet::HEADER_LEN
    }

    /// Number of segments; at least one.
    pub(super) fn count(&self) -> usize {
        (self.seen.end - self.headers).div_ceil(self.size).max(1)
    }

    /// Appends segment `index` to `out`, with all checksums.
    pub(super) fn append(&self, index: usize, out: &mut Vec<u8>) {
        let from = self.headers + index * self.size;
        let to = (from + self.size).min(self.seen.end);
        let last = to == self.seen.end;
        let start = out.len();
        out.extend_from_slice(&self.frame[..self.headers]);
        out.extend_from_slice(&self.frame[from..to]);
        let frame = &mut out[start..];
        self.fix_ip(frame, index);
        let transport = self.seen.transport;
        if self.seen.protocol == protocol::TCP {
            let sequence = read_u32(frame, transport + tcp::SEQUENCE_AT);
            let offset = (index * self.size) as u32;
            write_u32(frame, transport + tcp::SEQUENCE_AT, sequence.wrapping_add(offset));
            let flags = &mut frame[transport + tcp::FLAGS_AT];
            if !last {
                *flags &= !(tcp::flag::FIN | tcp::flag::PSH);
            }
            if index > 0 {
                *flags &= !tcp::flag::CWR;
            }
        } else {
            let length = (frame.len() - transport) as u16;
            write_u16(frame, transport + 4, length);
        }
        fill_transport_checksum(frame, &self.seen, transport);
    }

    fn fix_ip(&self, frame: &mut [u8], index: usize) {
        let packet = &mut frame[ethernet::HEADER_LEN..];
        let length = packet.len();
        if self.seen.source.is_ipv4() {
            write_u16(packet, 2, length as u16);
            let id = read_u16(packet, 4).wrapping_add(index as u16);
            write_u16(packet, 4, id);
            ipv4::fill_checksum(packet);
        } else {
            write_u16(packet, 4, (length - ipv6::HEADER_LEN) as u16);
        }
    }
}

/// Computes the TCP or UDP checksum of `frame`, whose transport header is at `transport`.
fn fill_transport_checksum(frame: &mut [u8], seen: &Dissection, transport: usize) {
    let at = transport + checksum_at(seen.protocol);
    write_u16(frame, at, 0);
    let length = (frame.len() - transport) as u32;
    let pseudo = Sum::pseudo_header(seen.source, seen.destination, seen.protocol, length);
    let sum = pseudo.and(Sum::of(&frame[transport..]));
    let checksum = if seen.protocol == protocol::UDP { sum.udp_checksum() } else { sum.checksum() };
    write_u16(frame, at, checksum);
}

/// Where in the transport header of `protocol` its checksum stands.
pub(super) fn checksum_at(protocol: u8) -> usize {
    match protocol {
        protocol::TCP => tcp::CHECKSUM_AT,
        protocol::UDP => udp::CHECKSUM_AT,
        _ => icmp::CHECKSUM_AT,
    }
}

/// Sets the transport checksum of a super-frame to the sum of its pseudo-header, as a receiver
/// that completes or trusts it expects.
pub(super) fn fill_partial_checksum(frame: &mut [u8], seen: &Dissection) {
    let length = (seen.end - seen.transport) as u32;
    let pseudo = Sum::pseudo_header(seen.source, seen.destination, seen.protocol, length);
    write_u16(frame, seen.transport + checksum_at(seen.protocol), pseudo.partial());
}
