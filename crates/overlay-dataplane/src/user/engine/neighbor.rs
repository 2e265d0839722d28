//! ARP requests and neighbor solicitations, answered from the tables: nothing is flooded.

use core::net::{IpAddr, Ipv6Addr};

use super::{
    batch::Offload,
    counters::{DropReason, Event},
    ingress::link_local,
    tables::LocalPort,
    transit::{Packet, Transit},
};
use crate::wire::{
    announcement::{ALL_NODES, ALL_NODES_MAC},
    arp::{ArpRepr, Operation},
    ethernet::{self, EthernetFrame, EthernetRepr, ethertype},
    ndp::{Advertisement, Solicitation},
};

impl Transit<'_> {
    pub(super) fn answer_arp(
        &mut self,
        local: &LocalPort,
        frame: EthernetFrame<'_>,
    ) -> Result<(), DropReason> {
        let request = ArpRepr::parse(frame.payload()).map_err(|_| DropReason::Malformed)?;
        if request.sender_mac != local.mac {
            return Err(DropReason::SpoofedMac);
        }
        let probe = request.sender_ip.is_unspecified();
        if !probe && Some(request.sender_ip) != local.addresses.v4 {
            return Err(DropReason::SpoofedIp);
        }
        // Announcements and probes of the own address ask nobody.
        let own = Some(request.target_ip) == local.addresses.v4;
        if request.operation == Operation::Reply || own {
            return Err(DropReason::Arp);
        }
        let target = self.network.resolve(request.target_ip.into()).ok_or(DropReason::Arp)?;
        let (start, arena) = self.out.begin_frame();
        EthernetRepr { destination: local.mac, source: target, ethertype: ethertype::ARP }
            .emit(arena);
        ArpRepr {
            operation: Operation::Reply,
            sender_mac: target,
            sender_ip: request.target_ip,
            target_mac: local.mac,
            target_ip: request.sender_ip,
        }
        .emit(arena);
        self.finish_answer(start, local);
        Ok(())
    }

    pub(super) fn answer_solicitation(
        &mut self,
        local: &LocalPort,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let offset = packet.seen.transport - ethernet::HEADER_LEN;
        let ip = &packet.frame()[ethernet::HEADER_LEN..];
        let solicitation = Solicitation::parse(ip, offset)
            .map_err(|_| DropReason::Malformed)?
            .ok_or(DropReason::NeighborDiscovery)?;
        let (source, target) = (solicitation.source, solicitation.target);
        let own = |address: Ipv6Addr| {
            local.addresses.v6 == Some(address) || address == link_local(local.mac)
        };
        if !source.is_unspecified() && !own(source) {
            return Err(DropReason::SpoofedIp);
        }
        if own(target) {
            return Err(DropReason::NeighborDiscovery);
        }
        let found = self.network.resolve(IpAddr::V6(target));
        let mac = found.ok_or(DropReason::NeighborDiscovery)?;
        // Someone who tests an address that is taken has none to be answered at (RFC 4861 §7.2.4).
        let (destination, destination_mac, solicited) = if source.is_unspecified() {
            (ALL_NODES, ALL_NODES_MAC, false)
        } else {
            (source, local.mac, true)
        };
        let (start, arena) = self.out.begin_frame();
        let ethertype = ethertype::IPV6;
        EthernetRepr { destination: destination_mac, source: mac, ethertype }.emit(arena);
        Advertisement { target, mac, destination, solicited }.emit(arena);
        self.finish_answer(start, local);
        Ok(())
    }

    fn finish_answer(&mut self, start: usize, local: &LocalPort) {
        self.out.commit_frame(start, local.binding.port, Offload::None);
        self.counters.count(Event::NeighborAnswers);
        self.counters.count(Event::FramesOut);
    }
}
