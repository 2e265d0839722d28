//! ICMP that the switch answers or translates: pings to its own addresses, and errors about
//! packets whose addresses it changed.

use core::net::IpAddr;

use overlay_types::MacAddr;

use super::{
    batch::Offload,
    counters::{DropReason, Event},
    flow::FlowKey,
    rewrite::{self, Checksums, End},
    tables::{LocalPort, ROUTER_MAC},
    transit::{Packet, Transit},
};
use crate::wire::{
    checksum::{Sum, update},
    dissection::Dissection,
    ethernet, icmp, ipv4, ipv6, protocol, read_array, read_u16, udp, write_u16,
};

/// Time to live of what the switch sends.
const TTL: u8 = 64;

impl Transit<'_> {
    /// A packet to a virtual or gateway address that no service takes.
    pub(super) fn answer_as_router(
        &mut self,
        local: &LocalPort,
        mut packet: Packet<'_>,
    ) -> Result<(), DropReason> {
        let reply = match (packet.seen.protocol, packet.icmp_type()) {
            (protocol::ICMP, Some(icmp::v4::ECHO_REQUEST)) => icmp::v4::ECHO_REPLY,
            (protocol::ICMPV6, Some(icmp::v6::ECHO_REQUEST)) => icmp::v6::ECHO_REPLY,
            (protocol::ICMP | protocol::ICMPV6, _) => return Err(DropReason::NoListener),
            _ => {
                self.report(local, &packet, icmp::Trouble::PortUnreachable);
                return Err(DropReason::NoListener);
            }
        };
        if packet.seen.fragment.is_some() {
            return Err(DropReason::FragmentWithoutFlow);
        }
        let at = packet.seen.transport;
        let old = Sum::ZERO.and_word(read_u16(packet.bytes, at));
        packet.bytes[at] = reply;
        let new = Sum::ZERO.and_word(read_u16(packet.bytes, at));
        let checksum = update(read_u16(packet.bytes, at + icmp::CHECKSUM_AT), old, new);
        write_u16(packet.bytes, at + icmp::CHECKSUM_AT, checksum);
        // Swapped addresses add up to the same sum.
        let (source, destination) = packet.ends();
        packet.translate(destination, source);
        let ip = &mut packet.bytes[ethernet::HEADER_LEN..];
        if source.0.is_ipv4() {
            ip[8] = TTL;
            ipv4::fill_checksum(ip);
        } else {
            ip[7] = TTL;
        }
        packet.set_macs(ROUTER_MAC, local.mac);
        self.counters.count(Event::EchoAnswers);
        self.emit(local, &packet)
    }

    /// An error from a client about a reply that it saw come from the VIP: the backend gets it,
    /// about the packet that it sent.
    pub(super) fn redirect_error(
        &mut self,
        packet: &mut Packet<'_>,
    ) -> Result<MacAddr, DropReason> {
        let quote = Quote::of(packet)?;
        let (vip, client) = quote.ends();
        let key = FlowKey::new(self.network.vni, quote.seen.protocol, client, vip);
        let flow = self.flows.by_client(&key).ok_or(DropReason::NoListener)?;
        let (seen_as, backend, mac) = (flow.seen_as, flow.backend, flow.backend_mac);
        quote.translate(packet, backend, seen_as, seen_as.0, backend.0);
        packet.set_destination_mac(mac);
        Ok(mac)
    }

    /// An error about a packet that went to a backend: the client gets it, about the packet that
    /// it sent to the VIP.
    pub(super) fn restore_error(&mut self, packet: &mut Packet<'_>) {
        // An error that cannot be read is about nothing of ours.
        let Ok(quote) = Quote::of(packet) else { return };
        let (seen_as, backend) = quote.ends();
        let key = FlowKey::new(self.network.vni, quote.seen.protocol, backend, seen_as);
        let Some(flow) = self.flows.by_backend(&key) else { return };
        let (client, vip) = (flow.client, flow.vip);
        let reporter = packet.seen.source;
        let source = if reporter == backend.0 { vip.0 } else { reporter };
        quote.translate(packet, client, vip, source, client.0);
    }
}

/// The packet quoted in an ICMP error; only its headers need be there.
struct Quote {
    /// Where it starts in the frame.
    start: usize,
    /// What it is; offsets from its own start.
    seen: Dissection,
}

impl Quote {
    fn of(packet: &Packet<'_>) -> Result<Self, DropReason> {
        if packet.offload != Offload::None || packet.seen.fragment.is_some() {
            return Err(DropReason::Malformed);
        }
        if message_sum(packet).checksum() != 0 {
            return Err(DropReason::Malformed);
        }
        let start = packet.seen.transport + icmp::HEADER_LEN;
        let quoted = &packet.bytes[start..packet.seen.end];
        let seen = if packet.seen.source.is_ipv4() { quoted_v4(quoted) } else { quoted_v6(quoted) };
        Ok(Self { start, seen: seen.ok_or(DropReason::Malformed)? })
    }

    fn ends(&self) -> (End, End) {
        let (source, destination) = self.seen.ports.unwrap_or_default();
        ((self.seen.source, source), (self.seen.destination, destination))
    }

    /// Puts new ends into the quoted packet and new addresses on the error itself.
    fn translate(
        &self,
        packet: &mut Packet<'_>,
        quoted_source: End,
        quoted_destination: End,
        source: IpAddr,
        destination: IpAddr,
    ) {
        let quoted = &mut packet.bytes[self.start..packet.seen.end];
        let seen = (&self.seen, self.seen.transport);
        rewrite::ends(quoted, seen, quoted_source, quoted_destination, Checksums::Update);
        packet.translate((source, 0), (destination, 0));
        let at = packet.seen.transport + icmp::CHECKSUM_AT;
        write_u16(packet.bytes, at, 0);
        let checksum = message_sum(packet).checksum();
        write_u16(packet.bytes, at, checksum);
    }
}

/// Sum over the ICMP message, with the pseudo-header that ICMPv6 has.
fn message_sum(packet: &Packet<'_>) -> Sum {
    let message = packet.transport();
    let sum = Sum::of(message);
    if packet.seen.protocol == protocol::ICMP {
        return sum;
    }
    let (source, destination) = (packet.seen.source, packet.seen.destination);
    let length = message.len() as u32;
    sum.and(Sum::pseudo_header(source, destination, protocol::ICMPV6, length))
}

fn quoted_v4(packet: &[u8]) -> Option<Dissection> {
    if packet.len() < ipv4::HEADER_LEN || packet[0] >> 4 != 4 {
        return None;
    }
    let header = usize::from(packet[0] & 0xf) * 4;
    let first = read_u16(packet, 6).trailing_zeros() >= 13;
    let transport = packet.get(header..).filter(|_| header >= ipv4::HEADER_LEN && first)?;
    Some(Dissection {
        source: read_array::<4>(packet, 12).into(),
        destination: read_array::<4>(packet, 16).into(),
        protocol: packet[9],
        transport: header,
        end: packet.len(),
        ports: Some(quoted_ports(transport)?),
        fragment: None,
    })
}

fn quoted_v6(packet: &[u8]) -> Option<Dissection> {
    if packet.len() < ipv6::HEADER_LEN || packet[0] >> 4 != 6 {
        return None;
    }
    Some(Dissection {
        source: read_array::<16>(packet, 8).into(),
        destination: read_array::<16>(packet, 24).into(),
        protocol: packet[6],
        transport: ipv6::HEADER_LEN,
        end: packet.len(),
        ports: Some(quoted_ports(&packet[ipv6::HEADER_LEN..])?),
        fragment: None,
    })
}

/// TCP, UDP and SCTP begin with the ports; eight octets are always quoted (RFC 792).
fn quoted_ports(transport: &[u8]) -> Option<(u16, u16)> {
    (transport.len() >= udp::HEADER_LEN).then(|| (read_u16(transport, 0), read_u16(transport, 2)))
}
