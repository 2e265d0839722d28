//! A packet on its way through the switch, and the ways out: a local port or another node.

use core::net::IpAddr;
use std::time::Instant;

use overlay_types::MacAddr;

use super::{
    Config,
    batch::{Batch, Channel, Offload},
    counters::{Counters, DropReason, Event},
    flow_table::FlowTable,
    fragment::FragmentTable,
    hash::mix,
    rewrite::{self, Checksums, End},
    sealed::Sas,
    segment::{self, Cutter},
    tables::{LocalPort, NetworkTable, ROUTER_MAC, Station, address_bits},
};
use crate::wire::{
    dissection::Dissection,
    ethernet::{self, EthernetRepr, ethertype},
    icmp::{self, ErrorRepr, Trouble},
    protocol, vxlan,
};

/// An IP packet in its frame.
pub(super) struct Packet<'f> {
    pub(super) bytes: &'f mut [u8],
    pub(super) seen: Dissection,
    pub(super) offload: Offload,
}

impl Packet<'_> {
    pub(super) fn frame(&self) -> &[u8] {
        &self.bytes[..self.seen.end]
    }

    pub(super) fn transport(&self) -> &[u8] {
        &self.bytes[self.seen.transport..self.seen.end]
    }

    pub(super) fn set_macs(&mut self, source: MacAddr, destination: MacAddr) {
        self.bytes[..6].copy_from_slice(&destination.0);
        self.bytes[6..12].copy_from_slice(&source.0);
    }

    pub(super) fn set_destination_mac(&mut self, destination: MacAddr) {
        self.bytes[..6].copy_from_slice(&destination.0);
    }

    /// Gives the packet new ends.
    pub(super) fn translate(&mut self, source: End, destination: End) {
        let checksums = match self.offload {
            Offload::None => Checksums::Update,
            Offload::Segment(_) => Checksums::Leave,
        };
        let packet = &mut self.bytes[ethernet::HEADER_LEN..self.seen.end];
        let transport = self.seen.transport - ethernet::HEADER_LEN;
        rewrite::ends(packet, (&self.seen, transport), source, destination, checksums);
        self.seen.source = source.0;
        self.seen.destination = destination.0;
        self.seen.ports = self.seen.ports.map(|_| (source.1, destination.1));
    }

    /// Source and destination with their ports, 0 where there are none.
    pub(super) fn ends(&self) -> (End, End) {
        let (source, destination) = self.seen.ports.unwrap_or_default();
        ((self.seen.source, source), (self.seen.destination, destination))
    }

    /// Whether the packet is a fragment without the transport header.
    pub(super) fn is_later_fragment(&self) -> bool {
        self.seen.fragment.is_some_and(|(_, offset)| offset > 0)
    }

    /// Type of the ICMP message that the packet carries.
    pub(super) fn icmp_type(&self) -> Option<u8> {
        let is_icmp = matches!(self.seen.protocol, protocol::ICMP | protocol::ICMPV6);
        let whole = self.transport().len() >= icmp::HEADER_LEN;
        (is_icmp && !self.is_later_fragment() && whole).then(|| self.transport()[0])
    }

    /// Whether the packet carries an ICMP error.
    pub(super) fn is_icmp_error(&self) -> bool {
        self.icmp_type().is_some_and(|kind| match self.seen.protocol {
            protocol::ICMP => icmp::v4::is_error(kind),
            _ => icmp::v6::is_error(kind),
        })
    }

    /// A source port for the outer datagram: one per inner flow, so that the underlay spreads
    /// flows and keeps each in order (RFC 7348 §5).
    fn entropy(&self) -> u16 {
        let fold = |bits: u128| bits as u64 ^ (bits >> 64) as u64;
        let source = fold(address_bits(self.seen.source));
        let destination = fold(address_bits(self.seen.destination));
        let (from, to) = self.seen.ports.unwrap_or_default();
        let rest = u64::from(from) << 32 | u64::from(to) << 8 | u64::from(self.seen.protocol);
        let hash = mix(mix(source, destination), rest);
        0xc000 | (hash & 0x3fff) as u16
    }
}

/// All that one packet's way through the switch may look at or change.
pub(super) struct Transit<'a> {
    pub(super) config: &'a Config,
    pub(super) network: &'a NetworkTable,
    pub(super) generation: u64,
    pub(super) flows: &'a mut FlowTable,
    pub(super) fragments: &'a mut FragmentTable,
    pub(super) sas: &'a mut Sas,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
    pub(super) out: &'a mut Batch,
}

impl Transit<'_> {
    /// Sends a packet to whoever has its destination MAC.
    pub(super) fn forward(
        &mut self,
        packet: Packet<'_>,
        destination: MacAddr,
    ) -> Result<(), DropReason> {
        let network = self.network;
        match network.fdb.get(&destination) {
            Some(Station::Remote(node)) => self.encapsulate(*node, &packet),
            Some(Station::Local(index)) => self.deliver(&network.locals[*index as usize], packet),
            None => Err(DropReason::UnknownUnicast),
        }
    }

    /// Gives a packet to an endpoint here.
    pub(super) fn deliver(
        &mut self,
        local: &LocalPort,
        mut packet: Packet<'_>,
    ) -> Result<(), DropReason> {
        if !self.flows.is_empty() {
            self.restore_reply(&mut packet);
        }
        self.emit(local, &packet)
    }

    /// Puts a packet out on a port, as it is.
    pub(super) fn emit(
        &mut self,
        local: &LocalPort,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let port = local.binding.port;
        match packet.offload {
            Offload::None if local.binding.offload => self.out.push_mergeable(port, packet.frame()),
            Offload::None => {
                let (start, arena) = self.out.begin_frame();
                arena.extend_from_slice(packet.frame());
                self.out.commit_frame(start, port, Offload::None);
            }
            Offload::Segment(_) if local.binding.offload => {
                let (start, arena) = self.out.begin_frame();
                arena.extend_from_slice(packet.frame());
                segment::fill_partial_checksum(&mut arena[start..], &packet.seen);
                self.out.commit_frame(start, port, packet.offload);
            }
            Offload::Segment(size) => {
                let cutter = Cutter::new(packet.frame(), &packet.seen, size.get().into())
                    .map_err(|_| DropReason::Malformed)?;
                for index in 0..cutter.count() {
                    let (start, arena) = self.out.begin_frame();
                    cutter.append(index, arena);
                    self.out.commit_frame(start, port, Offload::None);
                }
            }
        }
        self.counters.count(Event::FramesOut);
        Ok(())
    }

    /// Sends a packet to another node.
    pub(super) fn encapsulate(
        &mut self,
        node: IpAddr,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let cutter = match packet.offload {
            Offload::None => None,
            Offload::Segment(size) => Some(
                Cutter::new(packet.frame(), &packet.seen, size.get().into())
                    .map_err(|_| DropReason::Malformed)?,
            ),
        };
        let count = cutter.as_ref().map_or(1, Cutter::count);
        let source_port = packet.entropy();
        for index in 0..count {
            let frame = |arena: &mut Vec<u8>| match &cutter {
                Some(cutter) => cutter.append(index, arena),
                None => arena.extend_from_slice(packet.frame()),
            };
            if self.network.encrypted {
                self.seal(node, source_port, frame)?;
            } else {
                let (start, arena) = self.out.begin_datagram();
                arena.extend_from_slice(&vxlan::header(self.network.vni));
                frame(arena);
                self.out.commit_datagram(start, node, Channel::Plain { source_port });
            }
        }
        self.counters.count_many(Event::DatagramsOut, count as u64);
        Ok(())
    }

    /// Tells the endpoint that sent `packet` what is wrong with it. Errors, groups and later
    /// fragments get no error (RFC 1122 §3.2.2).
    pub(super) fn report(&mut self, local: &LocalPort, packet: &Packet<'_>, trouble: Trouble) {
        let seen = &packet.seen;
        if packet.is_icmp_error() || packet.is_later_fragment() || !local.may_send_from(seen.source)
        {
            return;
        }
        let ethertype = ethertype::of_ip(seen.source.is_ipv4());
        let (start, arena) = self.out.begin_frame();
        EthernetRepr { destination: local.mac, source: ROUTER_MAC, ethertype }.emit(arena);
        ErrorRepr {
            trouble,
            source: match trouble {
                Trouble::PortUnreachable => seen.destination,
                _ => self.network.router_address(seen.source, seen.destination),
            },
            destination: seen.source,
            packet: &packet.frame()[ethernet::HEADER_LEN..],
        }
        .emit(arena);
        self.out.commit_frame(start, local.binding.port, Offload::None);
        self.counters.count(Event::IcmpErrors);
    }
}
