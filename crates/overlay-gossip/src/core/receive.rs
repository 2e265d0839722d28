//! What arrives, from the outside in: open, check who speaks, hand on.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use bytes::Buf;
use foca::Message;
use overlay_types::NodeId;

use super::{
    Carrier, Gossip, Phase, codec,
    message::GossipMessage,
    seal::{self, Sender},
};
use crate::{
    config::{MAX_DATAGRAM, MAX_MEMBERS, MAX_STREAM_MESSAGE},
    counters::DropReason,
    identity::Identity,
};

/// Shortest member in bytes, to tell from a packet's length how many it may hold.
const MIN_MEMBER: usize = 16 + 8 + 1 + 4 + 2 + 3;

impl Gossip {
    /// Takes a UDP payload. `from` is where it came from, for the log; who sent it is sealed in it.
    pub fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        if bytes.len() > MAX_DATAGRAM {
            return self.drop_from(from, DropReason::Oversized);
        }
        match self.receive(bytes, Carrier::Datagram, now) {
            Ok(()) => self.counters.datagrams_in += 1,
            Err(reason) => self.drop_from(from, reason),
        }
    }

    /// Takes a message that came over a stream, without its length. Answers go out as streams.
    pub fn handle_stream_message(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        if bytes.len() > MAX_STREAM_MESSAGE {
            return self.drop_from(from, DropReason::Oversized);
        }
        match self.receive(bytes, Carrier::Stream, now) {
            Ok(()) => self.counters.streams_in += 1,
            Err(reason) => self.drop_from(from, reason),
        }
    }

    /// Counts what the shell dropped before it got here.
    pub fn count_drops(&mut self, reason: DropReason, count: u64) {
        self.counters.add_drops(reason, count);
    }

    fn drop_from(&mut self, from: SocketAddr, reason: DropReason) {
        self.counters.drop_one(reason);
        tracing::trace!(%from, reason = reason.label(), "gossip dropped");
    }

    fn receive(&mut self, bytes: &[u8], carrier: Carrier, now: Instant) -> Result<(), DropReason> {
        if self.phase != Phase::Running {
            return Err(DropReason::AfterLeave);
        }
        let (sender, message) = seal::open(&mut self.ring, bytes)?;
        if self.removed.contains(&sender.node) {
            return Err(DropReason::Removed);
        }
        match GossipMessage::decode(&message)? {
            GossipMessage::Swim(packet) => self.receive_swim(sender, packet, carrier, now),
            GossipMessage::Greeting(from) => {
                check_sender(sender, &from)?;
                self.receive_greeting(from, now)
            }
            GossipMessage::Exchange(exchange) => {
                check_sender(sender, &exchange.from)?;
                self.receive_exchange(exchange, now)
            }
        }
    }

    fn receive_swim(
        &mut self,
        sender: Sender,
        packet: &[u8],
        carrier: Carrier,
        now: Instant,
    ) -> Result<(), DropReason> {
        let mut rest = packet;
        let header = codec::get_header(&mut rest).map_err(|_| DropReason::Malformed)?;
        check_sender(sender, &header.src)?;
        if header.dst != *self.identity() {
            // Somebody still talks to who this node was before its restart: he shall hear the news.
            if header.dst.node == self.identity().node {
                self.greet_address(header.src.address);
            }
            return Err(DropReason::NotForUs);
        }
        self.check_room(header.src.node, rest)?;
        let packet = self.without_removed(packet, packet.len() - rest.len())?;
        let handled = self.foca.handle_data(&packet, &mut self.runtime);
        if let Some(probe) = &self.probe {
            let answered = match header.message {
                Message::Ack(_) => header.src == probe.target,
                Message::ForwardedAck { origin, .. } => origin == probe.target,
                _ => false,
            };
            if answered {
                self.probe = None;
                self.counters.saved_by_stream += u64::from(carrier == Carrier::Stream);
            }
        }
        // Also after an error: foca may have applied the part before it.
        self.drain(now, (carrier == Carrier::Stream).then_some(header.src));
        handled.map_err(|_| DropReason::Malformed)
    }

    /// Looks for strangers in a packet only when the table is nearly full.
    fn check_room(&self, sender: NodeId, mut updates: &[u8]) -> Result<(), DropReason> {
        let at_most = updates.len() / MIN_MEMBER + 1;
        if self.foca.iter_membership_state().len() + at_most <= MAX_MEMBERS {
            return Ok(());
        }
        let mut heard = vec![sender];
        if let Ok(count) = updates.try_get_u16() {
            for _ in 0..count {
                let member = codec::get_member(&mut updates).map_err(|_| DropReason::Malformed)?;
                heard.push(member.id().node);
            }
        }
        self.check_room_for(&heard)
    }

    /// Refuses what would make the member table larger than it may be.
    pub(super) fn check_room_for(&self, heard: &[NodeId]) -> Result<(), DropReason> {
        let known = self.foca.iter_membership_state();
        if known.len() + heard.len() <= MAX_MEMBERS {
            return Ok(());
        }
        let nodes: BTreeSet<NodeId> =
            known.map(|member| member.id().node).chain(heard.iter().copied()).collect();
        if nodes.len() > MAX_MEMBERS { Err(DropReason::MemberTableFull) } else { Ok(()) }
    }
}

/// Nobody speaks for another.
fn check_sender(sender: Sender, claimed: &Identity) -> Result<(), DropReason> {
    if claimed.belongs_to_start(sender.node, sender.incarnation) {
        Ok(())
    } else {
        Err(DropReason::Impersonation)
    }
}
