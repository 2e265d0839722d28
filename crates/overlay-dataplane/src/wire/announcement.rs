//! What tells the hosts of a link who has come: a gratuitous ARP reply (RFC 5944 §4.6), an unsolicited
//! advertisement (RFC 4861 §7.2.6).
//!
//! A host that asks for an address before its node knows whose that is gets no answer, and asks again a
//! second later, with what it wants to send on hold: it answers somebody who has just come, or was quicker
//! than the news. It takes the address from an announcement, too. Who did not ask ignores that, as
//! Linux does unless `arp_accept` or `accept_untracked_na` is set.

use core::net::{IpAddr, Ipv6Addr};

use overlay_types::MacAddr;

use super::{
    arp::{ArpRepr, Operation},
    ethernet::{EthernetRepr, ethertype},
    ndp::Advertisement,
};

/// Addresses of a network that are announced at a time. A node that starts hears of thousands at once, which
/// nobody waits for.
const MOST: usize = 128;

/// All hosts of a link, and their Ethernet address (RFC 2464 §7).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// An address, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The address.
    pub address: IpAddr,
    /// Where it is.
    pub mac: MacAddr,
}

impl Announcement {
    /// Appends the frame.
    pub fn emit(self, out: &mut Vec<u8>) {
        let Self { address, mac } = self;
        match address {
            IpAddr::V4(address) => {
                let ethertype = ethertype::ARP;
                EthernetRepr { destination: MacAddr::BROADCAST, source: mac, ethertype }.emit(out);
                ArpRepr {
                    operation: Operation::Reply,
                    sender_mac: mac,
                    sender_ip: address,
                    target_mac: mac,
                    target_ip: address,
                }
                .emit(out);
            }
            IpAddr::V6(target) => {
                let ethertype = ethertype::IPV6;
                EthernetRepr { destination: ALL_NODES_MAC, source: mac, ethertype }.emit(out);
                Advertisement { target, mac, destination: ALL_NODES, solicited: false }.emit(out);
            }
        }
    }
}

/// Who is told what: everybody behind a port of a network but whoever has the address. `ports` have the
/// Ethernet address that is behind each.
pub(crate) fn telling<P: Copy>(
    ports: &[(P, MacAddr)],
    newcomers: impl Iterator<Item = Announcement>,
) -> impl Iterator<Item = (P, Announcement)> {
    newcomers.take(MOST).flat_map(move |newcomer| {
        let others = ports.iter().filter(move |(_, own)| *own != newcomer.mac);
        others.map(move |(port, _)| (*port, newcomer))
    })
}
