//! MTU of an overlay network, from that of the interface under it.

/// Ethernet, VXLAN and UDP headers.
const VXLAN_OVERHEAD: u16 = 14 + 8 + 8;
/// The UDP header that ESP travels in, ESP header, IV and tag.
const ESP_OVERHEAD: u16 = 8 + 8 + 8 + 16;
/// Pad length and next header, aligned with the payload to 4 octets (RFC 4303 §2.4).
const ESP_TRAILER: u16 = 2;

/// Smallest MTU that is ever given out: below it, IPv4 itself does not work (RFC 791 §3.2).
const MIN: u16 = 68;

/// Largest IP packet of an overlay network over a data path with MTU `underlay`.
pub fn overlay(underlay: u16, over_ipv6: bool, encrypted: bool) -> u16 {
    let ip = if over_ipv6 { 40 } else { 20 };
    let room = underlay.saturating_sub(ip);
    let room = if encrypted {
        // What is aligned is UDP header, VXLAN packet and trailer.
        let aligned = room.saturating_sub(ESP_OVERHEAD) / 4 * 4;
        aligned.saturating_sub(ESP_TRAILER)
    } else {
        room
    };
    room.saturating_sub(VXLAN_OVERHEAD).max(MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n09_mtu_follows_from_the_encapsulation() {
        assert_eq!(overlay(1500, false, false), 1450);
        assert_eq!(overlay(1500, true, false), 1430);
        // 1500 - 20 IP - 8 UDP - 8 ESP - 8 IV - 16 tag = 1440 = 1438 + 2 trailer.
        assert_eq!(overlay(1500, false, true), 1438 - 30);
        assert_eq!(overlay(1500, true, true), 1418 - 30);
        assert_eq!(overlay(0, true, true), 68);
    }
}
