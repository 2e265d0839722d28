//! Frames of a kernel that left work to hardware which the way here does not have.
//!
//! On a virtual link (veth, virtio) nothing completes an inner checksum or cuts an inner
//! super-frame: the socket gets them as the sending kernel's stack made them. Such a frame carries
//! the sum of its pseudo-header where the checksum belongs. That can be a good checksum by chance;
//! computing it again then gives the same.

use core::num::NonZeroU16;

use super::{batch::Offload, segment::checksum_at, transit::Packet};
use crate::wire::{
    checksum::Sum,
    ethernet, protocol, read_u16,
    tcp::{self, TcpSegment},
    udp, write_u16,
};

/// Finishes the checksum of `packet`, or marks it as a super-frame when it exceeds `mtu`.
pub(super) fn finish(packet: &mut Packet<'_>, mtu: usize) {
    let seen = packet.seen;
    let header = match seen.protocol {
        protocol::TCP => tcp::HEADER_LEN,
        protocol::UDP => udp::HEADER_LEN,
        _ => return,
    };
    let transport = packet.transport();
    if seen.fragment.is_some() || transport.len() < header {
        return;
    }
    let at = checksum_at(seen.protocol);
    let length = transport.len() as u32;
    let pseudo = Sum::pseudo_header(seen.source, seen.destination, seen.protocol, length);
    if read_u16(transport, at) != pseudo.partial() {
        return;
    }
    if seen.packet_len() <= mtu {
        // The field holds the pseudo-header's sum: what is left is the rest.
        let checksum = match Sum::of(transport).checksum() {
            0 if seen.protocol == protocol::UDP => 0xffff,
            checksum => checksum,
        };
        write_u16(packet.bytes, seen.transport + at, checksum);
    } else if let Ok(tcp) = TcpSegment::new(transport)
        && seen.protocol == protocol::TCP
    {
        let headers = seen.transport + tcp.header_len() - ethernet::HEADER_LEN;
        let size = u16::try_from(mtu.saturating_sub(headers)).ok().and_then(NonZeroU16::new);
        packet.offload = size.map_or(Offload::None, Offload::Segment);
    }
}
