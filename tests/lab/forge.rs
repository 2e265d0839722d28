//! Frames and VXLAN datagrams as somebody makes them who knows everything about a network.

use core::net::Ipv4Addr;

use anyhow::Result;
use etherparse::{PacketBuilder, VlanId};

/// UDP port that inner datagrams go to; nobody listens there.
const PORT: u16 = 9;
/// Octets of payload of each fragment; a multiple of 8.
const FRAGMENT: usize = 64;
const IPV4_HEADER: usize = 20;
/// "More fragments" of the third word of an IPv4 header.
const MORE: u16 = 0x2000;

/// One frame, and the datagram that it travels in.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    /// Who says to have sent it.
    pub(crate) node: Ipv4Addr,
    pub(crate) to_node: Ipv4Addr,
    pub(crate) vxlan_port: u16,
    pub(crate) vni: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) to_mac: [u8; 6],
    pub(crate) ip: Ipv4Addr,
    pub(crate) to_ip: Ipv4Addr,
    /// Tags of VLANs in front of the inner packet, 2 at most.
    pub(crate) tags: u8,
    /// Octets after the word that it is known by.
    pub(crate) padding: usize,
}

impl Forged {
    /// The outer IPv4 packet; `word` is in it.
    pub(crate) fn packet(&self, word: &[u8]) -> Result<Vec<u8>> {
        let mut vxlan = vec![0x08, 0, 0, 0];
        vxlan.extend_from_slice(&(self.vni << 8).to_be_bytes());
        vxlan.extend_from_slice(&self.frame(word)?);
        let mut packet = Vec::new();
        PacketBuilder::ipv4(self.node.octets(), self.to_node.octets(), 64)
            .udp(50_000, self.vxlan_port)
            .write(&mut packet, &vxlan)?;
        Ok(packet)
    }

    /// The inner frame.
    pub(crate) fn frame(&self, word: &[u8]) -> Result<Vec<u8>> {
        let payload = [word, &vec![b'.'; self.padding]].concat();
        let (from, to) = (self.ip.octets(), self.to_ip.octets());
        let ethernet = PacketBuilder::ethernet2(self.mac, self.to_mac);
        let mut frame = Vec::new();
        let id = VlanId::try_new(5)?;
        let packet = match self.tags {
            0 => ethernet.ipv4(from, to, 64),
            1 => ethernet.single_vlan(id).ipv4(from, to, 64),
            _ => ethernet.double_vlan(id, id).ipv4(from, to, 64),
        };
        packet.udp(PORT, PORT).write(&mut frame, &payload)?;
        Ok(frame)
    }
}

/// An IPv4 packet without options in fragments, which the kernel gives checksums.
pub(crate) fn fragments(packet: &[u8], id: u16) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(IPV4_HEADER);
    let pieces = payload.chunks(FRAGMENT);
    let last = pieces.len() - 1;
    let fragment = |(number, piece): (usize, &[u8])| {
        let more = if number < last { MORE } else { 0 };
        let offset = (number * FRAGMENT / 8) as u16 | more;
        let mut fragment = [header, piece].concat();
        let length = (fragment.len() as u16).to_be_bytes();
        fragment[2..4].copy_from_slice(&length);
        fragment[4..6].copy_from_slice(&id.to_be_bytes());
        fragment[6..8].copy_from_slice(&offset.to_be_bytes());
        fragment
    };
    pieces.enumerate().map(fragment).collect()
}
