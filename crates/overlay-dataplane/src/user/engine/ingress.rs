//! Frames from local ports: what an endpoint may send, and where it goes.
//!
//! ```text
//! frame ─► own MAC? ─► ARP ────────────► answered from the tables
//!                  └─► own IP? ─► ND ──► answered from the tables
//!                              ├─ group ─────────► every member, or dropped
//!                              ├─ too large ─────► sender told
//!                              ├─ to the router ─► VIP translation, echo, other subnet
//!                              └─ to a MAC ──────► port or node that has it, or dropped
//! ```

use core::net::{IpAddr, Ipv6Addr};

use overlay_types::MacAddr;

use super::{
    batch::Offload,
    counters::DropReason,
    rewrite,
    segment::Cutter,
    tables::{LocalPort, ROUTER_MAC},
    transit::{Packet, Transit},
};
use crate::wire::{
    dissection::Dissection,
    ethernet::{self, EthernetFrame, ethertype},
    icmp::Trouble,
    ndp, protocol,
};

impl Transit<'_> {
    /// Takes a frame that the endpoint at `local` sends.
    pub(super) fn take_frame(
        &mut self,
        local: &LocalPort,
        frame: &mut [u8],
        offload: Offload,
    ) -> Result<(), DropReason> {
        let ethernet = EthernetFrame::new(frame).map_err(|_| DropReason::Malformed)?;
        let destination = ethernet.destination();
        if ethernet.source() != local.mac {
            return Err(DropReason::SpoofedMac);
        }
        match ethernet.ethertype() {
            ethertype::IPV4 | ethertype::IPV6 => {}
            ethertype::ARP => return self.answer_arp(local, ethernet),
            _ if ethernet.is_tagged() => return Err(DropReason::VlanTagged),
            _ => return Err(DropReason::EtherType),
        }
        let seen = Dissection::of_frame(frame).map_err(|_| DropReason::Malformed)?;
        let packet = Packet { bytes: frame, seen, offload };
        if seen.protocol == protocol::ICMPV6
            && packet.transport().first().is_some_and(|kind| ndp::TYPES.contains(kind))
        {
            return self.answer_solicitation(local, &packet);
        }
        if destination.is_group() {
            return self.flood(local, &packet);
        }
        if !local.may_send_from(seen.source) {
            return Err(DropReason::SpoofedIp);
        }
        if largest_packet(&packet)? > self.network.mtu {
            self.report(local, &packet, Trouble::TooBig(self.network.mtu as u16));
            return Err(DropReason::Oversized);
        }
        if destination == ROUTER_MAC {
            self.route(local, packet)
        } else {
            self.send_to_endpoint(packet, destination)
        }
    }

    /// Replicates a group frame to every member of a network that carries them.
    fn flood(&mut self, local: &LocalPort, packet: &Packet<'_>) -> Result<(), DropReason> {
        let network = self.network;
        if !network.multicast {
            return Err(DropReason::Group);
        }
        if !may_source_group(local, packet.seen.source) {
            return Err(DropReason::SpoofedIp);
        }
        if largest_packet(packet)? > network.mtu {
            return Err(DropReason::Oversized);
        }
        for other in network.locals.iter().filter(|l| l.binding.port != local.binding.port) {
            self.emit(other, packet)?;
        }
        // A node that cannot be reached must not keep the others from their copy.
        let mut result = Ok(());
        for node in &network.members {
            result = self.encapsulate(*node, packet).and(result);
        }
        result
    }

    /// A packet to the switch itself: to a virtual address, the gateway, or another subnet.
    fn route(&mut self, local: &LocalPort, mut packet: Packet<'_>) -> Result<(), DropReason> {
        let network = self.network;
        let destination = packet.seen.destination;
        if let Some(service) = network.services.get(&destination) {
            return self.send_to_service(local, packet, service);
        }
        if network.gateways.contains(&destination) {
            return self.answer_as_router(local, packet);
        }
        let Some(mac) = network.neighbors.get(&destination).copied() else {
            self.report(local, &packet, Trouble::NoRoute);
            return Err(DropReason::NoRoute);
        };
        let is_ipv4 = destination.is_ipv4();
        if !rewrite::take_hop(&mut packet.bytes[ethernet::HEADER_LEN..], is_ipv4) {
            self.report(local, &packet, Trouble::TimeExceeded);
            return Err(DropReason::TimeExceeded);
        }
        // The source MAC stays the sender's: the receiving node checks it against the sender's
        // node, and no IP stack minds.
        packet.set_destination_mac(mac);
        self.send_to_endpoint(packet, mac)
    }
}

/// Largest IP packet that will leave, after cutting.
fn largest_packet(packet: &Packet<'_>) -> Result<usize, DropReason> {
    match packet.offload {
        Offload::None => Ok(packet.seen.packet_len()),
        Offload::Segment(size) => Cutter::new(packet.frame(), &packet.seen, size.get().into())
            .map(|cutter| cutter.largest_packet())
            .map_err(|_| DropReason::Malformed),
    }
}

/// Group frames may also come from the link-local address made of the MAC (RFC 4291 §A), which
/// multicast listeners report from, and from "no address yet".
fn may_source_group(local: &LocalPort, source: IpAddr) -> bool {
    local.addresses.contains(source)
        || source == IpAddr::V6(link_local(local.mac))
        || source == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// The link-local address with the modified EUI-64 of `mac`.
pub(crate) fn link_local(mac: MacAddr) -> Ipv6Addr {
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    octets[8..11].copy_from_slice(&mac.0[..3]);
    octets[13..].copy_from_slice(&mac.0[3..]);
    octets[8] ^= 2;
    Ipv6Addr::from(octets)
}
