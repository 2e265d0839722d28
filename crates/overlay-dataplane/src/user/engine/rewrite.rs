//! Changing addresses and ports of a packet in place, checksums with them.

use core::net::IpAddr;

use crate::wire::{
    checksum::{Sum, update},
    dissection::Dissection,
    protocol, read_u16, tcp, udp, write_u16,
};

/// One end of a flow. The port is 0 where the protocol has none.
pub(super) type End = (IpAddr, u16);

/// Whether transport checksums are kept right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    /// They are complete and have to stay so.
    Update,
    /// Whoever cuts or completes the frame computes them.
    Leave,
}

/// Puts `source` and `destination` in place of those of `packet`, an IP packet that `seen`
/// describes and whose transport header is at `at`.
///
/// Addresses must be of the packet's family. Ports of SCTP are left alone: its CRC32c covers them
/// and the whole packet.
pub(super) fn ends(
    packet: &mut [u8],
    (seen, at): (&Dissection, usize),
    source: End,
    destination: End,
    checksums: Checksums,
) {
    let (source_at, length) = if seen.source.is_ipv4() { (12, 4) } else { (8, 16) };
    let addresses = source_at..source_at + 2 * length;
    let old = Sum::of(&packet[addresses.clone()]);
    write_address(packet, source_at, source.0);
    write_address(packet, source_at + length, destination.0);
    let new = Sum::of(&packet[addresses]);
    if seen.source.is_ipv4() {
        let checksum = update(read_u16(packet, 10), old, new);
        write_u16(packet, 10, checksum);
    }
    let (mut old, mut new) = (old, new);
    if let Some((old_source, old_destination)) = seen.ports
        && seen.protocol != protocol::SCTP
    {
        write_u16(packet, at, source.1);
        write_u16(packet, at + 2, destination.1);
        old = old.and_word(old_source).and_word(old_destination);
        new = new.and_word(source.1).and_word(destination.1);
    }
    if checksums == Checksums::Update && seen.fragment.is_none_or(|(_, offset)| offset == 0) {
        update_transport(&mut packet[at..], seen.protocol, old, new);
    }
}

fn update_transport(transport: &mut [u8], protocol: u8, old: Sum, new: Sum) {
    let at = match protocol {
        protocol::TCP => tcp::CHECKSUM_AT,
        // Zero says "none" and stays so (RFC 768).
        protocol::UDP if read_u16(transport, udp::CHECKSUM_AT) != 0 => udp::CHECKSUM_AT,
        _ => return,
    };
    if transport.len() < at + 2 {
        return;
    }
    let checksum = update(read_u16(transport, at), old, new);
    let checksum = if protocol == protocol::UDP && checksum == 0 { 0xffff } else { checksum };
    write_u16(transport, at, checksum);
}

fn write_address(packet: &mut [u8], at: usize, address: IpAddr) {
    match address {
        IpAddr::V4(address) => packet[at..at + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => packet[at..at + 16].copy_from_slice(&address.octets()),
    }
}

/// Takes one hop from an IP packet. `false` when it had none left; then nothing changed.
pub(super) fn take_hop(packet: &mut [u8], is_ipv4: bool) -> bool {
    let at = if is_ipv4 { 8 } else { 7 };
    if packet[at] <= 1 {
        return false;
    }
    let old = Sum::ZERO.and_word(read_u16(packet, 8));
    packet[at] -= 1;
    if is_ipv4 {
        let new = Sum::ZERO.and_word(read_u16(packet, 8));
        let checksum = update(read_u16(packet, 10), old, new);
        write_u16(packet, 10, checksum);
    }
    true
}
