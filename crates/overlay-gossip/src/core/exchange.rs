//! Greetings and full exchanges: how members that do not know each other meet, and how news that
//! were lost arrive after all.
//!
//! ```text
//!   A  ── greeting ───────────────────────────► B     A knows an address, not who is there
//!   A  ◄── exchange (all B knows; answer!) ──── B     over a stream if it exceeds a datagram
//!   A  ── exchange (all A knows) ─────────────► B
//!
//!   A  ◄── exchange (… A is dead …) ─────────── B     after a partition
//!   A  ── exchange (from A's next incarnation) ► B    B takes A back
//! ```

use std::{net::SocketAddr, time::Instant};

use foca::{Member, State};
use overlay_crypto::keyring;
use rand::seq::IteratorRandom;

use super::{
    Carrier, Gossip, members,
    message::{Exchange, GossipMessage},
    timers::Timer,
};
use crate::{
    config::{MAX_DATAGRAM, MAX_MEMBERS},
    counters::DropReason,
    identity::Identity,
};

impl Gossip {
    /// Greets some addresses that should be members and are not.
    pub(super) fn greet(&mut self) {
        let me = *self.identity();
        let members = self.foca.iter_membership_state().filter(|m| m.id().node != me.node);
        let (dead, active): (Vec<_>, Vec<_>) = members.partition(|m| m.state() == State::Down);
        let dead = dead.iter().filter(|m| !m.id().leaving).map(|m| m.id().address);
        let active = active.iter().map(|m| m.id().address).chain([me.address]);
        let count = self.config.greetings.get();
        for address in self.greetings.choose(active, dead, count, &mut self.rng) {
            self.greet_address(address);
        }
    }

    pub(super) fn greet_address(&mut self, address: SocketAddr) {
        let greeting = GossipMessage::Greeting(*self.identity()).encode();
        self.send(address, &greeting, Carrier::Datagram);
    }

    /// Somebody asks to be met. It may know nobody, or hold this node for dead.
    pub(super) fn receive_greeting(
        &mut self,
        from: Identity,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.check_room_for(&[from.node])?;
        self.apply(vec![Member::alive(from)], now);
        self.send_exchange(from, true);
        Ok(())
    }

    /// Exchanges everything with a random member, so that lost news cost a period, not for ever.
    pub(super) fn exchange_with_random_member(&mut self) {
        let chosen = self.foca.iter_members().map(|member| *member.id()).choose(&mut self.rng);
        if let Some(to) = chosen {
            self.send_exchange(to, true);
        }
    }

    pub(super) fn receive_exchange(
        &mut self,
        exchange: Exchange,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Exchange { from, to, answer, mut members } = exchange;
        members.retain(|member| !self.removed.contains(&member.id().node));
        let me = *self.identity();
        // Replies to who this node was a moment ago are welcome, those to an earlier start are not.
        if !to.belongs_to_start(me.node, self.start) {
            return Err(DropReason::NotForUs);
        }
        let heard: Vec<_> = members.iter().map(|m| m.id().node).chain([from.node]).collect();
        self.check_room_for(&heard)?;
        // Twice the usual time: after a partition many are doubted, and object, at once.
        let doubt_until = now + 2 * self.config.suspicion_among(self.foca.num_members() + 1);
        let known = self.foca.iter_membership_state();
        let mut news = members::merge(&me, known, members, &mut self.doubts, doubt_until);
        news.insert(0, Member::alive(from));
        self.apply(news, now);
        self.schedule_doubts();

        let renewed = *self.identity() != me;
        let refused = !self.foca.iter_members().any(|member| *member.id() == from);
        if !self.is_gone() && (answer || renewed || refused) {
            self.send_exchange(from, false);
        }
        Ok(())
    }

    /// Declares dead who was doubted and did not object.
    pub(super) fn confirm_doubts(&mut self, now: Instant) {
        let expired = self.doubts.expire(now);
        let dead = members::confirm(self.foca.iter_membership_state(), &expired);
        self.apply(dead, now);
        self.schedule_doubts();
    }

    fn schedule_doubts(&mut self) {
        match self.doubts.next() {
            Some(at) => self.timers.set(Timer::Doubt, at),
            None => self.timers.clear(Timer::Doubt),
        }
    }

    fn apply(&mut self, news: Vec<Member<Identity>>, now: Instant) {
        let applied = self.foca.apply_many(news.into_iter(), true, &mut self.runtime);
        debug_assert!(applied.is_ok(), "the codec encodes every identity");
        self.drain(now, None);
    }

    fn send_exchange(&mut self, to: Identity, answer: bool) {
        let me = *self.identity();
        let known = self.foca.iter_membership_state().take(MAX_MEMBERS);
        let members = known.filter(|m| m.id().node != me.node).cloned().collect();
        let message = GossipMessage::Exchange(Exchange { from: me, to, answer, members }).encode();
        let fits = message.len() + keyring::OVERHEAD <= MAX_DATAGRAM;
        let carrier = if fits { Carrier::Datagram } else { Carrier::Stream };
        self.send(to.address, &message, carrier);
    }
}
