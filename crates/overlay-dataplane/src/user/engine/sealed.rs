//! Frames of encrypted networks: ESP around UDP and VXLAN, or nothing.
//!
//! ```text
//! UDP 4500 │ ESP header, IV │ UDP to 4788 │ VXLAN │ frame │ padding, trailer, tag
//! ```

use core::{fmt, net::IpAddr, ops::Range};
use std::collections::{BTreeMap, HashMap, VecDeque};

use overlay_crypto::{
    CryptoError,
    esp::{HEADROOM, InboundSa, OpenError, OutboundSa, SaId, SaTable, TAILROOM},
};
use overlay_types::NodeId;

use super::{
    Config,
    batch::{Batch, Channel},
    counters::DropReason,
    hash::Seed,
    transit::Transit,
};
use crate::{
    sa::{PeerTraffic, Sa},
    wire::{
        udp::{self, UdpDatagram, UdpRepr},
        vxlan, write_u16,
    },
};

/// Outbound associations remembered after they were replaced: their keys must never seal a number
/// twice, should they be asked for again. Old ones never are, so a few epochs of 5 000 peers do.
const MAX_RETIRED: usize = 20_480;

struct Outbound {
    id: SaId,
    sa: OutboundSa,
}

impl Outbound {
    fn traffic(&self) -> PeerTraffic {
        let (packets_out, bytes_out) = (self.sa.packets(), self.sa.bytes());
        PeerTraffic { packets_out, bytes_out, ..PeerTraffic::default() }
    }
}

fn traffic_of(sa: &InboundSa) -> PeerTraffic {
    PeerTraffic {
        packets_in: sa.packets(),
        bytes_in: sa.bytes(),
        replays: sa.replays(),
        bad_tags: sa.bad_tags(),
        ..PeerTraffic::default()
    }
}

/// The security associations in use.
#[derive(Default)]
pub struct Sas {
    inbound: SaTable,
    /// Where each peer's packets must come from.
    sources: HashMap<NodeId, IpAddr, Seed>,
    outbound: HashMap<IpAddr, Outbound, Seed>,
    /// Where each peer's packets go to: its place in `outbound`.
    destinations: HashMap<NodeId, IpAddr, Seed>,
    /// Last number of each association that no longer seals, oldest first.
    retired: VecDeque<(SaId, u64)>,
    /// What associations that are gone have carried, of peers that have others.
    past: HashMap<NodeId, PeerTraffic, Seed>,
    first_sequence: u64,
}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sas")
            .field("inbound", &self.inbound.len())
            .field("outbound", &self.outbound.len())
            .finish_non_exhaustive()
    }
}

impl Sas {
    /// None yet; they will begin behind a number.
    pub(super) fn beginning_behind(first_sequence: u64) -> Self {
        Self { first_sequence, ..Self::default() }
    }

    /// Opens with `sa` too. One that is there already stays, with its replay window.
    pub fn add_inbound(&mut self, sa: &Sa) -> Result<(), CryptoError> {
        self.inbound.insert(sa.id, InboundSa::resumed_after(&sa.keys, self.first_sequence))?;
        self.sources.insert(sa.id.peer, sa.address);
        Ok(())
    }

    /// Opens with the association no more, and erases its keys.
    pub fn remove_inbound(&mut self, id: SaId) {
        if let Some(gone) = self.inbound.get(id).map(traffic_of) {
            *self.past.entry(id.peer).or_default() += gone;
        }
        self.inbound.remove(id);
        if !self.inbound.iter().any(|(other, _)| other.peer == id.peer) {
            self.sources.remove(&id.peer);
        }
        self.forget(id.peer);
    }

    /// What a peer has carried, once there is no association with it.
    fn forget(&mut self, peer: NodeId) {
        if !self.sources.contains_key(&peer) && !self.destinations.contains_key(&peer) {
            self.past.remove(&peer);
        }
    }

    /// Seals with `sa` for its peer from now on, and with no other. One that is there already goes on
    /// counting. Says whether it was not.
    pub fn set_outbound(&mut self, sa: &Sa) -> bool {
        if self.outbound.get(&sa.address).is_some_and(|current| current.id == sa.id) {
            return false;
        }
        self.remove_outbound(sa.id.peer);
        // Another peer's, which had the address before.
        self.retire(sa.address);
        let used = self.retired.iter().position(|(id, _)| *id == sa.id);
        let used = used.and_then(|at| self.retired.remove(at));
        let last = used.map_or(self.first_sequence, |(_, last)| last);
        let outbound = Outbound { id: sa.id, sa: OutboundSa::resumed_after(&sa.keys, last) };
        self.outbound.insert(sa.address, outbound);
        self.destinations.insert(sa.id.peer, sa.address);
        true
    }

    /// Seals for this peer no more, and erases the keys.
    pub fn remove_outbound(&mut self, peer: NodeId) {
        if let Some(address) = self.destinations.get(&peer).copied() {
            self.retire(address);
        }
    }

    fn retire(&mut self, address: IpAddr) {
        if let Some(old) = self.outbound.remove(&address) {
            self.destinations.remove(&old.id.peer);
            *self.past.entry(old.id.peer).or_default() += old.traffic();
            if self.retired.len() >= MAX_RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back((old.id, old.sa.sequence()));
            self.forget(old.id.peer);
        }
    }

    /// Seals a datagram with nothing in it for `peer`, with the association that is in use. A dummy
    /// packet (RFC 4303 §2.6) says less: a kernel drops it before it counts it.
    pub(super) fn greet(
        &mut self,
        peer: NodeId,
        config: &Config,
        out: &mut Batch,
    ) -> Result<(), DropReason> {
        let address = *self.destinations.get(&peer).ok_or(DropReason::NoOutboundSa)?;
        let outbound = self.outbound.get_mut(&address).ok_or(DropReason::NoOutboundSa)?;
        let (start, arena) = out.begin_datagram();
        arena.extend_from_slice(&[0; HEADROOM]);
        let port = config.encrypted_vxlan_port;
        let empty = UdpRepr { source: port, destination: port, payload_len: 0 };
        arena.extend_from_slice(&empty.to_bytes());
        udp::fill_checksum(&mut arena[start + HEADROOM..], config.data_path, address);
        arena.extend_from_slice(&[0; TAILROOM]);
        let payload = HEADROOM..HEADROOM + udp::HEADER_LEN;
        let Ok(packet) = outbound.sa.seal(&mut arena[start..], payload) else {
            out.abandon(start);
            return Err(DropReason::SaSpent);
        };
        arena.truncate(start + packet.end);
        out.commit_datagram(start, address, Channel::Esp);
        Ok(())
    }

    /// Inbound associations that have received an authentic packet since the last call.
    pub fn newly_heard(&mut self) -> Vec<SaId> {
        self.inbound.newly_heard()
    }

    /// Packets and payload octets that each outbound association has sealed, for rotation by use.
    pub fn outbound_use(&self) -> impl Iterator<Item = (SaId, u64, u64)> {
        self.outbound.values().map(|o| (o.id, o.sa.packets(), o.sa.bytes()))
    }

    /// What was carried with each peer that there is an association with.
    pub fn traffic(&self) -> BTreeMap<NodeId, PeerTraffic> {
        let mut traffic: BTreeMap<NodeId, PeerTraffic> =
            self.past.iter().map(|(peer, past)| (*peer, *past)).collect();
        for (id, sa) in self.inbound.iter() {
            *traffic.entry(id.peer).or_default() += traffic_of(sa);
        }
        for outbound in self.outbound.values() {
            *traffic.entry(outbound.id.peer).or_default() += outbound.traffic();
        }
        traffic
    }

    /// Counts an SPI that no association has for the peer that it came from. The address may be forged.
    fn count_unknown(&mut self, from: IpAddr) {
        if let Some(peer) = self.outbound.get(&from).map(|outbound| outbound.id.peer) {
            self.past.entry(peer).or_default().unknown_spis += 1;
        }
    }

    /// Opens a datagram from `from` in place. Says where its VXLAN packet is.
    pub(super) fn open(
        &mut self,
        from: IpAddr,
        datagram: &mut [u8],
        vxlan_port: u16,
    ) -> Result<Range<usize>, DropReason> {
        let opened = self.inbound.open(datagram);
        if opened == Err(OpenError::UnknownSpi) {
            self.count_unknown(from);
        }
        let opened = opened.map_err(|error| match error {
            OpenError::Keepalive | OpenError::NonEsp => DropReason::NotEsp,
            OpenError::UnknownSpi => DropReason::UnknownSpi,
            OpenError::TooOld | OpenError::Replayed => DropReason::EspReplay,
            OpenError::Malformed | OpenError::BadTag | OpenError::BadPadding => {
                DropReason::EspInvalid
            }
            OpenError::NotUdp => DropReason::EspContent,
            OpenError::Dummy => DropReason::EspGreeting,
        })?;
        if self.sources.get(&opened.id.peer) != Some(&from) {
            return Err(DropReason::EspPeer);
        }
        // The UDP checksum is not looked at: the tag covers more than it would.
        let inner = UdpDatagram::new(&datagram[opened.payload.clone()])
            .map_err(|_| DropReason::EspContent)?;
        if inner.destination() != vxlan_port {
            return Err(DropReason::EspContent);
        }
        if inner.payload().is_empty() {
            return Err(DropReason::EspGreeting);
        }
        let start = opened.payload.start + udp::HEADER_LEN;
        Ok(start..start + inner.payload().len())
    }
}

impl Transit<'_> {
    /// Seals the frame that `write` appends, for the node at `node`. Without an association there
    /// is nothing to send: never in clear.
    pub(super) fn seal(
        &mut self,
        node: IpAddr,
        source_port: u16,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), DropReason> {
        let outbound = self.sas.outbound.get_mut(&node).ok_or(DropReason::NoOutboundSa)?;
        let (start, arena) = self.out.begin_datagram();
        arena.extend_from_slice(&[0; HEADROOM]);
        let destination = self.config.encrypted_vxlan_port;
        let header = UdpRepr { source: source_port, destination, payload_len: 0 };
        arena.extend_from_slice(&header.to_bytes());
        arena.extend_from_slice(&vxlan::header(self.network.vni));
        write(arena);
        let inner = start + HEADROOM;
        let length = arena.len() - inner;
        write_u16(arena, inner + 4, length as u16);
        if node.is_ipv6() {
            // Over IPv6 a receiving kernel refuses UDP without a checksum (RFC 8200 §8.1).
            udp::fill_checksum(&mut arena[inner..], self.config.data_path, node);
        }
        arena.extend_from_slice(&[0; TAILROOM]);
        let sealed = outbound.sa.seal(&mut arena[start..], HEADROOM..HEADROOM + length);
        let Ok(packet) = sealed else {
            self.out.abandon(start);
            return Err(DropReason::SaSpent);
        };
        arena.truncate(start + packet.end);
        self.out.commit_datagram(start, node, Channel::Esp);
        Ok(())
    }
}
