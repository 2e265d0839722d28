//! What the core wants done, and how foca's wishes become that.

use std::{net::SocketAddr, time::Instant};

use foca::{Member, Message, OwnedNotification};

use super::{Carrier, Gossip, Phase, Probe, codec, message::GossipMessage, new_foca};
use crate::{config::MAX_DATAGRAM, counters::DropReason, identity::Identity};

/// Messages that wait to be taken; one input causes a handful, a full exchange a few per member.
const MAX_PENDING: usize = 16_384;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this UDP payload.
    SendDatagram {
        /// A member's or seed's gossip address.
        to: SocketAddr,
        /// Sealed; at most [`MAX_DATAGRAM`] bytes.
        bytes: Vec<u8>,
    },
    /// Open a stream, send this message, close. An answer comes as a stream of its own.
    SendStream {
        /// A member's gossip address.
        to: SocketAddr,
        /// Sealed; at most [`crate::config::MAX_STREAM_MESSAGE`] bytes.
        bytes: Vec<u8>,
    },
    /// Something changed.
    Event(Event),
    /// Nothing to do until then, or until something arrives.
    WakeAt(Instant),
    /// Nothing to do ever again: the member has left.
    Gone,
}

/// Something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A member is there: for the first time, or again.
    MemberUp(Identity),
    /// A member was declared dead.
    MemberDown(Identity),
    /// A member said that it goes.
    MemberLeft(Identity),
    /// A member has restarted, moved, or come back before its death was heard of here.
    MemberRenewed(Identity),
    /// This node has found another member.
    Connected,
    /// This node knows no other living member. It keeps greeting.
    Isolated,
    /// This node learned that the others had declared it dead, and came back as this.
    Rejoined(Identity),
    /// This node was declared dead more often than a start has incarnations. It needs a restart.
    Defunct,
    /// This node has left.
    Left,
}

impl Gossip {
    /// Takes what foca wants sent, scheduled and told. What goes to `stream_peer` answers a stream
    /// and travels in one.
    pub(super) fn drain(&mut self, now: Instant, stream_peer: Option<Identity>) {
        loop {
            while let Some((after, timer)) = self.runtime.to_schedule() {
                self.timers.add_foca(now + after, timer);
            }
            while let Some((to, packet)) = self.runtime.to_send() {
                if !self.is_worth_sending(&to, &packet) {
                    continue;
                }
                let answer = stream_peer.is_some_and(|peer| peer.node == to.node);
                let carrier = if answer { Carrier::Stream } else { Carrier::Datagram };
                self.send(to.address, &GossipMessage::Swim(&packet).encode(), carrier);
            }
            let Some(notification) = self.runtime.to_notify() else { break };
            if notification == OwnedNotification::Idle {
                self.forget_news();
            }
            self.translate(&notification, now);
        }
        self.follow_cluster_size();
    }

    /// Seals and queues one message.
    pub(super) fn send(&mut self, to: SocketAddr, message: &[u8], carrier: Carrier) {
        if self.outputs.len() >= MAX_PENDING {
            self.counters.drop_one(DropReason::OutputFull);
            return;
        }
        let Ok(bytes) = self.ring.seal(message) else {
            self.counters.drop_one(DropReason::SealFailed);
            return;
        };
        match carrier {
            Carrier::Datagram => {
                debug_assert!(bytes.len() <= MAX_DATAGRAM);
                self.counters.datagrams_out += 1;
                self.outputs.push_back(Output::SendDatagram { to, bytes });
            }
            Carrier::Stream => {
                self.counters.streams_out += 1;
                self.outputs.push_back(Output::SendStream { to, bytes });
            }
        }
    }

    /// Looks at a packet of foca's before it goes.
    fn is_worth_sending(&mut self, to: &Identity, packet: &[u8]) -> bool {
        match codec::get_header(&mut &*packet).map(|header| header.message) {
            // Remembered until it is answered, or the next one is sent.
            Ok(Message::Ping(_)) => {
                self.probe = Some(Probe { target: *to, ping: packet.to_vec() });
                true
            }
            // foca 2.0 tells a member that it is dead whenever a suspicion ends, also when the member
            // has objected; it would have to come back from a death that nobody believes in.
            Ok(Message::TurnUndead) => !self.is_active(to),
            _ => true,
        }
    }

    fn translate(&mut self, notification: &OwnedNotification<Identity>, now: Instant) {
        let event = match *notification {
            OwnedNotification::MemberDown(id) if self.removed.contains(&id.node) => return,
            // What says that it goes counts as gone, also if foca still hears from it.
            OwnedNotification::MemberUp(id) | OwnedNotification::Rename(_, id) if id.leaving => {
                return self.bury(id);
            }
            OwnedNotification::MemberUp(id) => Event::MemberUp(id),
            OwnedNotification::MemberDown(id) if id.leaving => Event::MemberLeft(id),
            OwnedNotification::MemberDown(id) => Event::MemberDown(id),
            OwnedNotification::Rename(_, id) if self.is_active(&id) => Event::MemberRenewed(id),
            OwnedNotification::Active => {
                self.schedule_exchange(super::FIRST_EXCHANGE, now);
                Event::Connected
            }
            OwnedNotification::Idle => Event::Isolated,
            OwnedNotification::Rejoin(id) => {
                self.probe = None;
                if id.belongs_to_start(id.node, self.start) {
                    Event::Rejoined(id)
                } else {
                    self.phase = Phase::Gone;
                    self.timers.clear_all();
                    Event::Defunct
                }
            }
            // A death that becomes another death is no change. Leaving makes foca defunct, and nothing
            // else does: identities always renew.
            OwnedNotification::Rename(..) | OwnedNotification::Defunct => return,
        };
        self.outputs.push_back(Output::Event(event));
    }

    /// Starts foca anew with what it knows but nothing to tell.
    ///
    /// A node that is alone has called everyone dead and told nobody. When it is no longer alone that
    /// is wrong, and would be told first.
    fn forget_news(&mut self) {
        let me = *self.identity();
        let known = self.foca.iter_membership_state().filter(|m| m.id().node != me.node);
        let known: Vec<_> = known.cloned().collect();
        self.foca = new_foca(me, &self.config, &mut self.rng);
        self.configured_for = 0;
        self.timers.clear_foca();
        self.probe = None;
        let applied = self.foca.apply_many(known.into_iter(), false, &mut self.runtime);
        debug_assert!(applied.is_ok(), "the codec encodes every identity");
    }

    fn bury(&mut self, leaver: Identity) {
        let applied =
            self.foca.apply_many([Member::down(leaver)].into_iter(), true, &mut self.runtime);
        debug_assert!(applied.is_ok(), "the codec encodes every identity");
    }

    fn is_active(&self, id: &Identity) -> bool {
        self.foca.iter_members().any(|member| member.id() == id)
    }
}
