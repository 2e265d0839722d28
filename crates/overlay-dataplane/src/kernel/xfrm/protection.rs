//! A node's associations and policies in the kernel, as one value.
//!
//! ```text
//!  association of this process ──► known: shown, counted, removed when told
//!  association of one before it ──► orphan: carries on until another one of its peer is in use, or
//!                                   others are and it has none
//! ```
//!
//! The kernel counts packets for as long as an association is there. One that is made again with the
//! same keys goes on behind what it sealed before, because a nonce that is used twice gives the
//! plaintext away (RFC 4106 §3).

use core::net::{IpAddr, SocketAddr};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
};

use nix::errno::Errno;
use overlay_crypto::esp::SaId;
use overlay_types::{Encapsulation, Epoch, NodeId};

use super::{
    super::netlink::{Refusal, RouteSocket},
    association::{self, Association, Found, Place},
    encapsulation::EspSocket,
    holder::Holder,
    policy::{self, Policy},
    traffic::Traffic,
};
use crate::{
    Error,
    sa::{PeerTraffic, Sa},
};

/// How far an association goes on behind the number that it was last seen to seal with: further than
/// it can have come since, and not so far that the receiver guesses the upper half wrong (RFC 4303
/// appendix A2).
const LEAP: u64 = 1 << 31;
/// Epochs whose numbers are remembered: more than drain at a time.
const KEPT_EPOCHS: u64 = 8;

/// What is sealed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Esp {
    /// UDP port of VXLAN that only ESP may carry.
    pub vxlan_port: u16,
    /// How ESP travels.
    pub encapsulation: Encapsulation,
}

/// The kernel's IPsec for this node's encrypted networks.
#[derive(Debug)]
pub struct Protection {
    /// Data-path address of this node.
    own: IpAddr,
    esp: Esp,
    socket: RouteSocket,
    /// Takes ESP out of UDP while it is open.
    encapsulation: Option<EspSocket>,
    /// Sends greetings.
    greeter: UdpSocket,
    /// Peers whose greeting did not leave.
    ungreeted: BTreeSet<NodeId>,
    inbound: BTreeMap<SaId, Place>,
    outbound: BTreeMap<NodeId, (SaId, Place)>,
    found: BTreeMap<Place, Found>,
    traffic: Traffic,
    /// Numbers that associations were last seen to seal with, also those that seal no more: one that is
    /// made again goes on behind.
    sealed: BTreeMap<SaId, u64>,
    /// Numbers that inbound associations were last seen to have opened: one that is made again refuses
    /// them.
    opened: BTreeMap<SaId, u64>,
    /// Where associations of an earlier process seal for. None come after the start.
    predecessors: BTreeSet<IpAddr>,
}

impl Protection {
    /// In the calling thread's namespace. Changes no association or policy. With a `holder`, ESP in UDP
    /// is taken in while this process is down, too, if [`keep`](Self::keep) was called last.
    pub fn start(own: IpAddr, esp: Esp, holder: Option<Holder>) -> Result<Self, Error> {
        let failed = |source: std::io::Error| Error::Kernel {
            step: "open",
            subject: "an xfrm socket".into(),
            source: source.into(),
        };
        let any: SocketAddr = (own, 0).into();
        let greeter = UdpSocket::bind(any);
        let encapsulation = match esp.encapsulation {
            Encapsulation::None => None,
            Encapsulation::Udp(port) => Some(EspSocket::open((own, port).into(), holder)?),
        };
        let mut protection = Self {
            own,
            esp,
            socket: RouteSocket::open_xfrm().map_err(failed)?,
            encapsulation,
            greeter: greeter.map_err(|source| Error::Socket { address: any, source })?,
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            found: BTreeMap::new(),
            traffic: Traffic::default(),
            sealed: BTreeMap::new(),
            opened: BTreeMap::new(),
            predecessors: BTreeSet::new(),
            ungreeted: BTreeSet::new(),
        };
        // What an earlier process has left is known before anything takes its place.
        protection.observe()?;
        protection.predecessors = protection.find_predecessors();
        Ok(protection)
    }

    /// Has both policies. Before a VXLAN device of an encrypted network comes up, and again when
    /// [`is_enforced`](Self::is_enforced) says that one is gone.
    pub fn enforce(&self) -> Result<(), Error> {
        self.policies().iter().try_for_each(|policy| {
            let failed = |source| kernel("put", "the policy of encrypted networks", source);
            self.socket.request(policy.put()).map_err(failed)
        })
    }

    /// Whether both policies are there.
    pub fn is_enforced(&self) -> Result<bool, Error> {
        let wanted = self.policies();
        let which = |payload: &[u8]| wanted.iter().position(|policy| policy.is(payload));
        let found = self.socket.dump(policy::list(), which);
        let found = found.map_err(|source| kernel("list", "policies", source))?;
        Ok((0..wanted.len()).all(|index| found.contains(&index)))
    }

    /// Has ESP taken in also when this process ends, for the encrypted networks that are there.
    pub fn keep(&mut self) {
        if let Some(socket) = &mut self.encapsulation {
            socket.keep();
        }
    }

    /// Has ESP taken in by this process alone: there is no encrypted network.
    pub fn release(&mut self) {
        if let Some(socket) = &mut self.encapsulation {
            socket.release();
        }
    }

    /// No association of this process is there.
    pub fn is_idle(&self) -> bool {
        self.inbound.is_empty() && self.outbound.is_empty()
    }

    /// Removes all that is ours: associations, then the policies, so that nothing is ever in clear.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.observe()?;
        for place in core::mem::take(&mut self.found).into_keys() {
            self.remove(place)?;
        }
        self.inbound.clear();
        self.outbound.clear();
        for policy in self.policies() {
            absent_is_fine(self.socket.request(policy.remove()))
                .map_err(|source| kernel("remove", "the policy of encrypted networks", source))?;
        }
        Ok(())
    }

    /// Reads all associations anew. Removes those of an earlier process that nobody needs any more, and
    /// sends greetings that did not leave.
    pub fn observe(&mut self) -> Result<(), Error> {
        let found = self.socket.dump(association::list(), |payload| self.parse(payload));
        let found = found.map_err(|source| kernel("list", "associations", source))?;
        self.found = found.into_iter().map(|found| (found.place, found)).collect();
        for (id, place) in self.outbound.values() {
            self.sealed.extend(self.found.get(place).map(|found| (*id, found.last)));
        }
        for (id, place) in &self.inbound {
            self.opened.extend(self.found.get(place).map(|found| (*id, found.received)));
        }
        self.count();
        for place in self.needless_orphans() {
            self.remove(place)?;
        }
        if !self.predecessors.is_empty() {
            self.predecessors = self.find_predecessors();
        }
        for peer in core::mem::take(&mut self.ungreeted) {
            self.greet(peer);
        }
        Ok(())
    }

    fn count(&mut self) {
        let inward = self.inbound.iter().map(|(id, place)| (id.peer, *place, true));
        let outward = self.outbound.values().map(|(id, place)| (id.peer, *place, false));
        let found = inward.chain(outward).filter_map(|(peer, place, inward)| {
            self.found.get(&place).map(|found| (peer, *found, inward))
        });
        self.traffic.count(found);
    }

    /// What was carried with each peer that there is an association with, as of the last look.
    pub const fn traffic(&self) -> &BTreeMap<NodeId, PeerTraffic> {
        self.traffic.of_peers()
    }

    /// Associations that are opened with, and where their packets come from.
    pub fn inbound(&self) -> BTreeMap<SaId, IpAddr> {
        let whole = self.inbound.iter().filter_map(|(id, place)| Some((*id, self.whole(place)?)));
        whole.map(|(id, found)| (id, found.source)).collect()
    }

    /// Association that each peer's packets are sealed with, and where they go.
    pub fn outbound(&self) -> BTreeMap<NodeId, (SaId, IpAddr)> {
        let known = self.outbound.iter();
        let whole =
            known.filter_map(|(peer, (id, place))| self.whole(place).map(|_| (peer, id, place)));
        whole.map(|(peer, id, place)| (*peer, (*id, place.destination))).collect()
    }

    /// Associations that something came with, as of the last look.
    pub fn heard(&self) -> impl Iterator<Item = SaId> {
        let known = self.inbound.iter();
        known.filter(|(_, place)| self.packets(place) > 0).map(|(id, _)| *id)
    }

    /// Where packets go that associations of an earlier process seal, as of the last look.
    pub const fn predecessors(&self) -> &BTreeSet<IpAddr> {
        &self.predecessors
    }

    fn find_predecessors(&self) -> BTreeSet<IpAddr> {
        let known: BTreeSet<Place> = self.outbound.values().map(|(_, place)| *place).collect();
        let outward = self.found.values().filter(|found| found.source == self.own && found.whole);
        let orphans = outward.map(|found| found.place).filter(|place| !known.contains(place));
        orphans.map(|place| place.destination).collect()
    }

    /// Packets and octets that each outbound association carried, as of the last look.
    pub fn outbound_use(&self) -> impl Iterator<Item = (SaId, u64, u64)> {
        let known = self.outbound.values();
        known.filter_map(|(id, place)| self.found.get(place).map(|f| (*id, f.packets, f.octets)))
    }

    /// Opens with it too.
    pub fn add_inbound(&mut self, sa: &Sa) -> Result<(), Error> {
        let received = self.opened.get(&sa.id).copied().unwrap_or(0);
        let made = self.put(sa, (sa.address, self.own), (0, received))?;
        self.inbound.insert(sa.id, made.place);
        Ok(())
    }

    /// Seals with it for its peer, and with no other. Says whether it was not in use already.
    pub fn set_outbound(&mut self, sa: &Sa) -> Result<bool, Error> {
        let peer = sa.id.peer;
        let place = Place { destination: sa.address, spi: sa.keys.spi };
        if self.outbound.get(&peer) == Some(&(sa.id, place)) && self.whole(&place).is_some() {
            return Ok(false);
        }
        let last = self.sealed.get(&sa.id).map_or(0, |last| last + LEAP);
        let last = self.put(sa, (self.own, sa.address), (last, 0))?.last;
        self.sealed.insert(sa.id, last);
        self.forget_before(sa.id);
        let old = self.outbound.insert(peer, (sa.id, place));
        if let Some((_, old)) = old.filter(|(_, old)| *old != place) {
            self.remove(old)?;
        }
        // Those of an earlier process for the same address.
        let known: Vec<Place> = self.outbound.values().map(|(_, place)| *place).collect();
        let others = self.found.values().filter(|found| found.place.destination == sa.address);
        let orphans = others.map(|found| found.place).filter(|place| !known.contains(place));
        for orphan in orphans.collect::<Vec<_>>() {
            self.remove(orphan)?;
        }
        self.predecessors.remove(&sa.address);
        Ok(true)
    }

    /// Opens with it no more.
    pub fn remove_inbound(&mut self, id: SaId) -> Result<(), Error> {
        let Some(place) = self.inbound.get(&id).copied() else { return Ok(()) };
        self.remove(place)?;
        self.inbound.remove(&id);
        self.opened.remove(&id);
        Ok(())
    }

    /// Seals for the peer no more.
    pub fn remove_outbound(&mut self, peer: NodeId) -> Result<(), Error> {
        let Some((_, place)) = self.outbound.get(&peer).copied() else { return Ok(()) };
        self.remove(place)?;
        self.outbound.remove(&peer);
        self.ungreeted.remove(&peer);
        Ok(())
    }

    /// As if so much had been sealed with an association, for whoever makes it again.
    #[cfg(test)]
    pub(super) fn pretend_sealed(&mut self, id: SaId, last: u64) {
        self.sealed.insert(id, last - LEAP);
    }

    /// Sends the peer an empty datagram, so that it hears the association. One that the host's rules or
    /// routes do not let out is sent again when associations are read.
    pub fn greet(&mut self, peer: NodeId) {
        if !self.send_greeting(peer) {
            self.ungreeted.insert(peer);
        }
    }

    /// Whether it has left, or is not to.
    fn send_greeting(&self, peer: NodeId) -> bool {
        let Some((_, place)) = self.outbound.get(&peer) else { return true };
        let address = SocketAddr::new(place.destination, self.esp.vxlan_port);
        let sent = self.greeter.send_to(&[], address);
        if let Err(error) = &sent {
            tracing::debug!(%peer, %address, %error, "the greeting has to wait");
        }
        sent.is_ok()
    }

    const fn policies(&self) -> [Policy; 2] {
        Policy::both(self.own, self.esp.vxlan_port)
    }

    fn parse(&self, payload: &[u8]) -> Option<Found> {
        Found::parse(payload, self.esp.vxlan_port, self.esp.encapsulation)
    }

    /// Has the association, behind the numbers that were sealed and opened with it last, and returns it
    /// as it is.
    fn put(
        &mut self,
        sa: &Sa,
        (source, destination): (IpAddr, IpAddr),
        (last, received): (u64, u64),
    ) -> Result<Found, Error> {
        let Esp { vxlan_port: port, encapsulation } = self.esp;
        let keys = &sa.keys;
        let place = Place { destination, spi: keys.spi };
        let mut association =
            Association { source, destination, port, encapsulation, keys, last, received };
        let failed = |source| kernel("make", &format!("association {}", sa.keys.spi), source);
        let mut made = Found::fresh(place, source, last, received);
        match self.socket.request(association.put()) {
            // Somebody else's stays, and so does that of another peer with the same number.
            Err(refusal) if refusal.errno == Errno::EEXIST && !self.is_taken(place, sa.id) => {
                let found = self.socket.get(place.get(), |payload| self.parse(payload));
                let found = found.map_err(failed)?.ok_or_else(|| failed(refusal))?;
                if found.whole && found.source == source {
                    made = found;
                } else {
                    self.remove(place)?;
                    made.last = last.max(found.last + LEAP);
                    made.received = received.max(found.received);
                    (association.last, association.received) = (made.last, made.received);
                    self.socket.request(association.put()).map_err(failed)?;
                }
            }
            outcome => outcome.map_err(failed)?,
        }
        self.found.insert(place, made);
        Ok(made)
    }

    /// Whether another association of this process is there.
    fn is_taken(&self, place: Place, by: SaId) -> bool {
        let mut known = self.inbound.iter().chain(self.outbound.values().map(|(id, p)| (id, p)));
        known.any(|(id, other)| *other == place && *id != by)
    }

    /// Forgets numbers of epochs so long ago that nobody asks for them again.
    fn forget_before(&mut self, id: SaId) {
        let from = |epoch| SaId { epoch: Epoch::new(epoch), ..id };
        let oldest = id.epoch.get().saturating_sub(KEPT_EPOCHS);
        // What is taken out is dropped.
        self.sealed.extract_if(from(0)..from(oldest), |_, _| true).for_each(drop);
    }

    fn remove(&mut self, place: Place) -> Result<(), Error> {
        absent_is_fine(self.socket.request(place.remove()))
            .map_err(|source| kernel("remove", &format!("association {}", place.spi), source))?;
        self.found.remove(&place);
        Ok(())
    }

    fn whole(&self, place: &Place) -> Option<&Found> {
        self.found.get(place).filter(|found| found.whole)
    }

    fn packets(&self, place: &Place) -> u64 {
        self.found.get(place).map_or(0, |found| found.packets)
    }

    /// Associations of an earlier process that nobody needs: their peers use another one by now, or some
    /// peer does and theirs has none, because it is gone from the cluster.
    fn needless_orphans(&self) -> Vec<Place> {
        let mut peers: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for found in self.inbound.values().filter_map(|place| self.found.get(place)) {
            *peers.entry(found.source).or_default() |= found.packets > 0;
        }
        let somebody = peers.values().any(|in_use| *in_use);
        let outbound = self.outbound.values().map(|(_, place)| place);
        let known: BTreeSet<&Place> = self.inbound.values().chain(outbound).collect();
        let orphans = self.found.values().filter(|found| !known.contains(&found.place));
        let needless = |orphan: &&Found| {
            let inward = orphan.place.destination == self.own;
            let peer = if inward { orphan.source } else { orphan.place.destination };
            // One that seals ends when there is another one for its peer.
            peers.get(&peer).map_or(somebody, |in_use| inward && *in_use)
        };
        orphans.filter(needless).map(|orphan| orphan.place).collect()
    }
}

pub(super) fn absent_is_fine(outcome: Result<(), Refusal>) -> Result<(), Refusal> {
    match outcome {
        Err(refusal) if matches!(refusal.errno, Errno::ESRCH | Errno::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

pub(super) fn kernel(step: &'static str, subject: &str, source: Refusal) -> Error {
    Error::Kernel { step, subject: subject.to_owned(), source }
}
