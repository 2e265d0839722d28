//! MTU of an overlay network, from that of the interface under it.

use overlay_crypto::esp::codec::max_payload;
use overlay_types::Encapsulation;

use crate::wire::{ethernet, ipv4, ipv6, udp, vxlan};

/// Headers of an IP packet's way through VXLAN.
const VXLAN_OVERHEAD: usize = udp::HEADER_LEN + vxlan::HEADER_LEN + ethernet::HEADER_LEN;

/// Smallest MTU that is ever given out: below it, IPv4 itself does not work (RFC 791 §3.2).
const MIN: u16 = 68;

/// Largest IP packet of an overlay network over a data path with MTU `underlay`; `esp`: how that of an
/// encrypted network travels.
pub fn overlay(underlay: u16, over_ipv6: bool, esp: Option<Encapsulation>) -> u16 {
    let ip = if over_ipv6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let room = usize::from(underlay).saturating_sub(ip);
    let room = match esp {
        // In a UDP header of its own.
        Some(Encapsulation::Udp(_)) => max_payload(room.saturating_sub(udp::HEADER_LEN)),
        Some(Encapsulation::None) => max_payload(room),
        None => room,
    };
    (room.saturating_sub(VXLAN_OVERHEAD) as u16).max(MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n09_mtu_follows_from_the_encapsulation() {
        assert_eq!(overlay(1500, false, None), 1450);
        assert_eq!(overlay(1500, true, None), 1430);
        let in_udp = Some(Encapsulation::Udp(4500));
        // 1500 - 20 IP - 8 UDP - 8 ESP - 8 IV - 16 tag = 1440 = 1438 + 2 trailer.
        assert_eq!(overlay(1500, false, in_udp), 1438 - 30);
        assert_eq!(overlay(1500, true, in_udp), 1418 - 30);
        assert_eq!(overlay(0, true, in_udp), 68);
        // Without the 8 of UDP.
        assert_eq!(overlay(1500, false, Some(Encapsulation::None)), 1446 - 30);
        assert_eq!(overlay(1500, true, Some(Encapsulation::None)), 1426 - 30);
    }
}
