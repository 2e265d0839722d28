//! VIP translation at the client's node: a virtual address becomes a backend's, and replies come
//! from the virtual address again.
//!
//! ```text
//!  client ──(client → VIP)──► send_to_service ──(client → backend)──► backend's node
//!  client ◄─(VIP → client)── restore_reply ◄─────(backend → client)─ backend's node
//! ```
//!
//! A client may talk to the backend's own address from the same port, too: `send_to_endpoint`.
//!
//! A client that is the chosen backend itself sees its connection come from the VIP: a packet from
//! its own address would be refused by its stack.

use overlay_types::MacAddr;

use super::{
    counters::{DropReason, Event},
    flow::{FlowKey, NewFlow, Side, Signal},
    fragment::{FragmentFate, FragmentKey},
    rewrite::End,
    tables::{LocalPort, ROUTER_MAC, ServiceTable},
    transit::{Packet, Transit},
};
use crate::wire::{icmp::Trouble, protocol};

impl Transit<'_> {
    /// Takes a packet from the endpoint at `local` to a virtual address of `service`.
    pub(super) fn send_to_service(
        &mut self,
        local: &LocalPort,
        mut packet: Packet<'_>,
        service: &ServiceTable,
    ) -> Result<(), DropReason> {
        match packet.seen.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => {}
            protocol::ICMP | protocol::ICMPV6 if packet.is_icmp_error() => {
                let mac = self.redirect_error(&mut packet)?;
                return self.forward(packet, mac);
            }
            _ => return self.answer_as_router(local, packet),
        }
        let vni = self.network.vni;
        if packet.is_later_fragment() {
            return self.send_fragment_to_service(local, packet);
        }
        if packet.seen.ports.is_none() {
            return Err(DropReason::Malformed);
        }
        let (source, destination) = packet.ends();
        let signal = Signal::of(packet.seen.protocol, packet.transport());
        let key = FlowKey::new(vni, packet.seen.protocol, source, destination);
        if self.flows.has_loops()
            && let Some(flow) = self.flows.by_backend(&key)
        {
            // A backend that is its own client answers to the VIP.
            flow.touch(Side::Backend, signal, self.now);
            let (vip, client) = (flow.vip, flow.client);
            self.translate_first(&mut packet, vip, client);
            packet.set_macs(ROUTER_MAC, local.mac);
            return self.emit(local, &packet);
        }
        let found = self.client_flow(&key, signal, service);
        let (seen_as, backend, mac) = match found {
            Some(found) => found,
            None => self.begin_flow(local, &packet, &key, service)?,
        };
        self.translate_first(&mut packet, seen_as, backend);
        if mac == local.mac {
            packet.set_macs(ROUTER_MAC, mac);
            return self.emit(local, &packet);
        }
        packet.set_destination_mac(mac);
        self.forward(packet, mac)
    }

    /// The translation of a flow that exists and whose backend still does.
    fn client_flow(
        &mut self,
        key: &FlowKey,
        signal: Signal,
        service: &ServiceTable,
    ) -> Option<(End, End, MacAddr)> {
        let flow = self.flows.by_client(key)?;
        if flow.is_over(signal, self.now) {
            self.flows.remove(key);
            return None;
        }
        if flow.generation != self.generation {
            let Some(backend) = service.find(flow.backend.0) else {
                self.flows.remove(key);
                self.counters.count(Event::FlowsCut);
                return None;
            };
            flow.backend_mac = backend.mac;
            flow.generation = self.generation;
        }
        flow.touch(Side::Client, signal, self.now);
        Some((flow.seen_as, flow.backend, flow.backend_mac))
    }

    fn begin_flow(
        &mut self,
        local: &LocalPort,
        packet: &Packet<'_>,
        key: &FlowKey,
        service: &ServiceTable,
    ) -> Result<(End, End, MacAddr), DropReason> {
        let Some(backend) = service.choose(key.stable_hash()) else {
            self.report(local, packet, Trouble::PortUnreachable);
            return Err(DropReason::NoBackend);
        };
        let (client, vip) = packet.ends();
        self.add_flow(NewFlow {
            vni: self.network.vni,
            protocol: packet.seen.protocol,
            client,
            vip,
            seen_as: if backend.address == client.0 { vip.0 } else { client.0 },
            backend: backend.address,
            backend_mac: backend.mac,
            generation: self.generation,
        })
    }

    fn add_flow(&mut self, new: NewFlow) -> Result<(End, End, MacAddr), DropReason> {
        let inserted = self.flows.insert(new, self.now).ok_or(DropReason::PortsExhausted)?;
        self.counters.count(Event::FlowsBegun);
        if inserted.evicted {
            self.counters.count(Event::FlowsEvicted);
        }
        Ok((inserted.flow.seen_as, inserted.flow.backend, inserted.flow.backend_mac))
    }

    /// Sends a packet to the endpoint that it is addressed to.
    ///
    /// If a flow to a virtual address leads from the same client port to the same backend port,
    /// replies could not be told apart: then this connection is a flow too, and gets another port. One
    /// that is older than the flow to the virtual address is not known here, and loses its replies.
    pub(super) fn send_to_endpoint(
        &mut self,
        mut packet: Packet<'_>,
        mac: MacAddr,
    ) -> Result<(), DropReason> {
        if !self.flows.is_empty() {
            self.keep_apart(&mut packet, mac)?;
        }
        self.forward(packet, mac)
    }

    /// Gives a packet that would be taken for one of another flow its own source port.
    fn keep_apart(&mut self, packet: &mut Packet<'_>, mac: MacAddr) -> Result<(), DropReason> {
        let vni = self.network.vni;
        if packet.is_later_fragment() {
            let key = FragmentKey::of(vni, packet);
            if let Some(fate) = key.and_then(|key| self.fragments.find(&key, self.now)) {
                packet.translate(fate.source, fate.destination);
            }
            return Ok(());
        }
        if packet.seen.ports.is_none() {
            return Ok(());
        }
        let (client, backend) = packet.ends();
        let protocol = packet.seen.protocol;
        let key = FlowKey::new(vni, protocol, client, backend);
        let known = if self.flows.has_direct() { self.direct_flow(&key, packet) } else { None };
        let seen_as = if let Some(seen_as) = known {
            seen_as
        } else {
            let reply = FlowKey::new(vni, protocol, backend, client);
            if self.flows.by_backend(&reply).is_none() {
                return Ok(());
            }
            let (seen_as, ..) = self.add_flow(NewFlow {
                vni,
                protocol,
                client,
                vip: backend,
                seen_as: client.0,
                backend: backend.0,
                backend_mac: mac,
                generation: self.generation,
            })?;
            seen_as
        };
        self.translate_first(packet, seen_as, backend);
        Ok(())
    }

    /// The client as the backend sees it in a flow to the backend's own address.
    fn direct_flow(&mut self, key: &FlowKey, packet: &Packet<'_>) -> Option<End> {
        let signal = Signal::of(packet.seen.protocol, packet.transport());
        let flow = self.flows.by_client(key)?;
        if flow.is_over(signal, self.now) {
            self.flows.remove(key);
            return None;
        }
        flow.touch(Side::Client, signal, self.now);
        Some(flow.seen_as)
    }

    fn send_fragment_to_service(
        &mut self,
        local: &LocalPort,
        mut packet: Packet<'_>,
    ) -> Result<(), DropReason> {
        let key = FragmentKey::of(self.network.vni, &packet);
        let fate = key.and_then(|key| self.fragments.find(&key, self.now));
        let fate = fate.ok_or(DropReason::FragmentWithoutFlow)?;
        packet.translate(fate.source, fate.destination);
        let mac = self.network.neighbors.get(&fate.destination.0);
        let mac = *mac.ok_or(DropReason::NoRoute)?;
        if mac == local.mac {
            packet.set_macs(ROUTER_MAC, mac);
            return self.emit(local, &packet);
        }
        packet.set_destination_mac(mac);
        self.forward(packet, mac)
    }

    /// Translates a packet that has ports, and remembers how if fragments follow it.
    fn translate_first(&mut self, packet: &mut Packet<'_>, source: End, destination: End) {
        if let Some(key) = FragmentKey::of(self.network.vni, packet) {
            self.fragments.insert(key, FragmentFate { source, destination }, self.now);
        }
        packet.translate(source, destination);
    }

    /// Makes a packet for a local endpoint come from the virtual address, if it is a backend's
    /// reply or an error about a translated packet.
    pub(super) fn restore_reply(&mut self, packet: &mut Packet<'_>) {
        let vni = self.network.vni;
        if matches!(packet.seen.protocol, protocol::ICMP | protocol::ICMPV6) {
            if packet.is_icmp_error() {
                self.restore_error(packet);
            }
            return;
        }
        if packet.is_later_fragment() {
            let key = FragmentKey::of(vni, packet);
            if let Some(fate) = key.and_then(|key| self.fragments.find(&key, self.now)) {
                packet.translate(fate.source, fate.destination);
            }
            return;
        }
        if packet.seen.ports.is_none() {
            return;
        }
        let (source, destination) = packet.ends();
        let key = FlowKey::new(vni, packet.seen.protocol, source, destination);
        let Some(flow) = self.flows.by_backend(&key) else { return };
        let signal = Signal::of(packet.seen.protocol, packet.transport());
        flow.touch(Side::Backend, signal, self.now);
        let (vip, client) = (flow.vip, flow.client);
        self.translate_first(packet, vip, client);
    }
}
