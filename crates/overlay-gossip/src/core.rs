//! The protocol as a state machine: no sockets, no clock, no entropy.
//!
//! ```text
//!                          greeted, or greets
//!             ┌──────────┐  and is answered   ┌───────────┐
//!   new ────► │ isolated │ ─────────────────► │ connected │ ◄─┐ Rejoined: declared dead by the
//!             │ (greets) │ ◄───────────────── │ (probes)  │ ──┘ others, comes back with the
//!             └────┬─────┘  all others dead   └─────┬─────┘     next incarnation
//!                  │                                │
//!                  └────────────── leave ───────────┤
//!                                                   ▼
//!                                            ┌─────────────┐  said often enough  ┌──────┐
//!                                            │   leaving   │ ──────────────────► │ gone │
//!                                            └─────────────┘        Left         └──────┘
//! ```
//!
//! The life of another member, as seen here:
//!
//! ```text
//!                      no answer to: ping, 3 indirect pings,
//!            ┌───────┐ ping over a stream                    ┌─────────┐  no objection  ┌──────┐
//!   news ──► │ alive │ ────────────────────────────────────► │ suspect │ ─────────────► │ dead │
//!            │       │ ◄──────────────────────────────────── │         │  in time       │      │
//!            └───┬───┘               objects                 └────┬────┘                └──┬───┘
//!                │ ▲                                              │                        │
//!                │ └────────────── greater incarnation ───────────┼────────────────────────┘
//!                └──── says that it leaves ──► left ◄─────────────┘
//! ```

mod codec;
mod exchange;
mod greetings;
mod members;
mod message;
mod output;
mod receive;
mod removal;
mod seal;
mod timers;

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast};
use overlay_crypto::keyring::{self, GossipKeyRing, RingKeys};
use overlay_types::{Incarnation, NodeId};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

pub use self::output::{Event, Output};
use self::{
    codec::FocaCodec,
    greetings::Greetings,
    members::Doubts,
    timers::{Fired, Timer, Timers},
};
use crate::{
    config::{GossipConfig, MAX_DATAGRAM},
    counters::Counters,
    error::GossipError,
    identity::{Identity, MemberState},
};

/// Times that a leaving member says so, a gossip period apart: with three receivers each, news of
/// it outlive a lossy network.
const FAREWELLS: u32 = 6;

/// Wait before the first exchange of a node that has found the others. When many start at once, what
/// the first answer told is old within a second; waits double from here to the usual period.
const FIRST_EXCHANGE: Duration = Duration::from_millis(500);

/// One member of the cluster.
///
/// Whoever drives it hands in what arrives and the time, then takes outputs from
/// [`poll_output`](Self::poll_output) until that says when to come back. All chance comes from the
/// seed, so the same inputs give the same outputs.
pub struct Gossip {
    config: GossipConfig,
    /// Incarnation with which this node started; datagrams are sealed under it.
    start: Incarnation,
    foca: Swim,
    runtime: AccumulatingRuntime<Identity>,
    ring: GossipKeyRing,
    rng: Xoshiro256PlusPlus,
    timers: Timers,
    greetings: Greetings,
    doubts: Doubts,
    /// At most [`crate::config::MAX_REMOVED`].
    removed: BTreeSet<NodeId>,
    probe: Option<Probe>,
    outputs: VecDeque<Output>,
    counters: Counters,
    phase: Phase,
    /// Wait before the next exchange; short after this node has found the others.
    exchange_wait: Duration,
    /// Logarithm of the number of members that foca is configured for.
    configured_for: u32,
}

type Swim = Foca<Identity, FocaCodec, Xoshiro256PlusPlus, NoCustomBroadcast>;

/// A probe that has not been answered yet.
struct Probe {
    target: Identity,
    /// foca's ping as it was sent, to be repeated over a stream.
    ping: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Leaving { farewells: u32 },
    Gone,
}

impl Gossip {
    /// A member that knows nobody yet. No other start of the node may have had its incarnation; `seed`
    /// decides all chance.
    pub fn new(
        config: GossipConfig,
        identity: Identity,
        keys: RingKeys,
        seed: u64,
        now: Instant,
    ) -> Result<Self, GossipError> {
        let address =
            SocketAddr::new(identity.address.ip().to_canonical(), identity.address.port());
        if !codec::is_usable(address) {
            return Err(GossipError::UnusableAddress(identity.address));
        }
        let identity = Identity { address, ..identity };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut timers = Timers::default();
        timers.set(Timer::Greet, now);
        timers.set(Timer::Exchange, now + jittered(config.exchange_period, &mut rng));
        Ok(Self {
            start: identity.incarnation,
            foca: new_foca(identity, &config, &mut rng),
            runtime: AccumulatingRuntime::new(),
            ring: GossipKeyRing::new(identity.node, identity.incarnation, keys),
            rng,
            timers,
            greetings: Greetings::default(),
            doubts: Doubts::default(),
            removed: BTreeSet::new(),
            probe: None,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            phase: Phase::Running,
            exchange_wait: config.exchange_period,
            configured_for: 0,
            config,
        })
    }

    /// Who this member is now.
    pub fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// The other members, the dead included, in no order.
    pub fn members(&self) -> impl Iterator<Item = (Identity, MemberState)> + '_ {
        let me = self.identity().node;
        let others = self.foca.iter_membership_state().filter(move |m| m.id().node != me);
        others.map(|member| (*member.id(), MemberState::of(member)))
    }

    /// What was sent, received and dropped.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether this member has left, or cannot come back; nothing will happen any more.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Adds addresses to join at, and greets some of them at once. They are greeted again for as long
    /// as they are no members.
    pub fn announce(&mut self, seeds: impl IntoIterator<Item = SocketAddr>) {
        self.greetings.add_seeds(seeds);
        if self.phase == Phase::Running {
            self.greet();
        }
    }

    /// Replaces what the managers say where members are. Those that gossip does not know are greeted.
    pub fn set_members_hint(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.greetings.set_hints(addresses);
    }

    /// Replaces the key ring. What was sealed under a key that stays in the ring is still accepted.
    pub fn set_keys(&mut self, keys: RingKeys) {
        self.ring.set_keys(keys);
    }

    /// Tells the others that this member goes. [`Event::Left`] follows when that was said often
    /// enough; from now on nothing is received.
    pub fn leave(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        self.timers.clear_all();
        let departing = self.identity().departing();
        // Neither can fail: the identity differs, and the codec encodes every identity.
        let changed = self.foca.change_identity(departing, &mut self.runtime);
        let left = self.foca.leave_cluster(&mut self.runtime);
        debug_assert!(changed.is_ok() && left.is_ok());
        self.phase = Phase::Leaving { farewells: FAREWELLS };
        self.drain(now, None);
        self.timers.clear_all();
        self.timers.set(Timer::Leave, now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(due) = self.timers.next() {
            // The process was stopped or the host slept. Answers could not be heard meanwhile, so
            // the time does not count: nobody is declared dead for our own absence.
            let late = now.saturating_duration_since(due);
            if late > self.config.probe_period {
                self.timers.postpone(late);
                self.doubts.postpone(late);
            }
        }
        while let Some(fired) = self.timers.fire(now) {
            match fired {
                Fired::Ours(Timer::Greet) => {
                    self.greet();
                    let next = now + jittered(self.config.greeting_period, &mut self.rng);
                    self.timers.set(Timer::Greet, next);
                }
                Fired::Ours(Timer::Exchange) => {
                    self.exchange_with_random_member();
                    self.schedule_exchange(self.exchange_wait * 2, now);
                }
                Fired::Ours(Timer::Doubt) => self.confirm_doubts(now),
                Fired::Ours(Timer::Leave) => self.say_farewell(now),
                Fired::Foca(timer) => self.handle_foca_timer(timer, now),
            }
        }
    }

    /// What to do next. Ask until it says [`Output::WakeAt`] or [`Output::Gone`].
    pub fn poll_output(&mut self, now: Instant) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        self.timers.next().map_or(Output::Gone, |at| Output::WakeAt(at.max(now)))
    }

    fn handle_foca_timer(&mut self, timer: foca::Timer<Identity>, now: Instant) {
        let starts_probe = matches!(timer, foca::Timer::ProbeRandomMember(_));
        if let foca::Timer::SendIndirectProbe { probed_id, .. } = &timer {
            self.probe_over_stream(*probed_id);
        }
        if let Err(error) = self.foca.handle_timer(timer, &mut self.runtime) {
            // foca repairs its own probe cycle; this is worth knowing and nothing to act on.
            tracing::debug!(%error, "gossip timer");
        }
        if starts_probe {
            self.probe = None;
        }
        self.drain(now, None);
    }

    /// The direct second opinion: TCP gets through where UDP is filtered or drowned.
    fn probe_over_stream(&mut self, probed: Identity) {
        if let Some(probe) = self.probe.take_if(|probe| probe.target == probed) {
            let message = message::GossipMessage::Swim(&probe.ping).encode();
            self.send(probed.address, &message, Carrier::Stream);
            self.probe = Some(probe);
        }
    }

    fn schedule_exchange(&mut self, wait: Duration, now: Instant) {
        self.exchange_wait = wait.min(self.config.exchange_period);
        self.timers.set(Timer::Exchange, now + jittered(self.exchange_wait, &mut self.rng));
    }

    fn say_farewell(&mut self, now: Instant) {
        let Phase::Leaving { farewells } = self.phase else { return };
        let Some(remaining) = farewells.checked_sub(1) else {
            self.phase = Phase::Gone;
            self.timers.clear_all();
            self.outputs.push_back(Output::Event(Event::Left));
            return;
        };
        let told = self.foca.gossip(&mut self.runtime);
        debug_assert!(told.is_ok(), "the codec encodes every identity");
        self.drain(now, None);
        self.phase = Phase::Leaving { farewells: remaining };
        self.timers.set(Timer::Leave, now + self.config.gossip_period);
    }

    /// Suspicions and the spreading of news take longer in larger clusters.
    fn follow_cluster_size(&mut self) {
        let members = self.foca.num_members() + 1;
        if members.ilog2() != self.configured_for {
            self.configured_for = members.ilog2();
            let resized = self.foca.set_config(self.config.foca(members, max_packet()));
            debug_assert!(resized.is_ok(), "no period changes");
        }
    }
}

impl std::fmt::Debug for Gossip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gossip")
            .field("identity", self.identity())
            .field("phase", &self.phase)
            .field("active", &self.foca.num_members())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// What a message travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Datagram,
    Stream,
}

fn new_foca(me: Identity, config: &GossipConfig, rng: &mut Xoshiro256PlusPlus) -> Swim {
    let seed = Xoshiro256PlusPlus::seed_from_u64(rng.random());
    Foca::new(me, config.foca(1, max_packet()), seed, FocaCodec::new())
}

/// What of a datagram is left for foca.
fn max_packet() -> NonZeroUsize {
    const { NonZeroUsize::new(MAX_DATAGRAM - keyring::OVERHEAD - message::PREFIX).unwrap() }
}

/// Between half and one and a half of the period, so that members do not fall into step.
fn jittered(period: Duration, rng: &mut Xoshiro256PlusPlus) -> Duration {
    period.mul_f64(rng.random_range(0.5..1.5))
}
