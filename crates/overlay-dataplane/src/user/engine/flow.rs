//! The flow table of VIP translation: which backend a flow has, until it ends.
//!
//! ```text
//!            client's first packet
//!                     │
//!                 ┌───▼───┐ reply   ┌─────────────┐ FIN, SHUTDOWN  ┌─────────┐
//!                 │opening├────────►│ established ├───────────────►│ closing │
//!                 └───┬───┘         └──────┬──────┘                └────┬────┘
//!                     │ RST, ABORT         │ RST, ABORT                 │ RST, second FIN
//!                     └──────────┬─────────┴────────────────────────────┘
//!                             ┌──▼───┐
//!                             │closed│   each state ends by idling for its time
//!                             └──────┘
//! ```

use core::{
    hash::{Hash, Hasher},
    net::IpAddr,
    time::Duration,
};
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use overlay_types::{MacAddr, Vni};

use super::{
    hash::{Seed, mix},
    rewrite::End,
    tables::address_bits,
};
use crate::wire::{
    protocol, sctp,
    tcp::{self, flag},
};

/// Flows that a node keeps by default: about 200 octets each, 13 MB in all. A client that opens
/// more pushes out those that would have expired first.
pub const DEFAULT_MAX_FLOWS: usize = 65_536;

/// Entries looked at to find one to push out of a table that is full of established flows: enough
/// that the chosen one is likely among the nearest to expiry, few enough to bound the cost.
const EVICTION_SAMPLE: usize = 16;

/// Entries that one call of [`FlowTable::sweep`] looks at: a full table is walked within about a
/// minute of calls every second, and a call costs microseconds.
const SWEEP_STEP: usize = 1024;

/// Source ports tried when a client's own is taken at the backend.
const PORT_ATTEMPTS: u16 = 64;

/// Idle times after which a flow is forgotten; those of Linux' connection tracking.
mod idle {
    use core::time::Duration;

    pub(super) const OPENING: Duration = Duration::from_mins(1);
    pub(super) const TCP: Duration = Duration::from_hours(5 * 24);
    pub(super) const UDP: Duration = Duration::from_mins(2);
    pub(super) const SCTP: Duration = Duration::from_hours(5 * 24);
    pub(super) const CLOSING: Duration = Duration::from_mins(2);
    pub(super) const CLOSED: Duration = Duration::from_secs(10);
}

/// What names the packets of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowKey {
    source: u128,
    destination: u128,
    ports: u32,
    vni_and_protocol: u32,
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(self.source);
        hasher.write_u128(self.destination);
        hasher.write_u64(u64::from(self.ports) << 32 | u64::from(self.vni_and_protocol));
    }
}

impl FlowKey {
    pub(super) fn new(vni: Vni, protocol: u8, source: End, destination: End) -> Self {
        Self {
            source: address_bits(source.0),
            destination: address_bits(destination.0),
            ports: u32::from(source.1) << 16 | u32::from(destination.1),
            vni_and_protocol: vni.get() << 8 | u32::from(protocol),
        }
    }

    /// A hash that is the same on every node and after every restart, for the backend's choice.
    pub(super) fn stable_hash(&self) -> u64 {
        let source = mix(self.source as u64, (self.source >> 64) as u64);
        let destination = mix(self.destination as u64, (self.destination >> 64) as u64);
        mix(
            mix(source, destination),
            u64::from(self.ports) << 32 | u64::from(self.vni_and_protocol),
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Established,
    /// One side has sent its FIN: the client, or not.
    Closing {
        by_client: bool,
    },
    Closed,
}

/// Which side of a flow a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// A flow from a client here to a backend anywhere.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// The client as it sees itself.
    pub(super) client: End,
    /// The virtual address and port that it talks to; the backend's own where the flow is kept only
    /// because the client's port is taken there.
    pub(super) vip: End,
    /// The client as the backend sees it.
    pub(super) seen_as: End,
    /// The backend.
    pub(super) backend: End,
    pub(super) backend_mac: MacAddr,
    /// Generation of the tables that the backend was last found in.
    pub(super) generation: u64,
    protocol: u8,
    vni: Vni,
    state: State,
    deadline: Instant,
    /// Number of this flow among all; tells it from a later one in its slot.
    serial: u64,
}

impl Flow {
    fn forward_key(&self) -> FlowKey {
        FlowKey::new(self.vni, self.protocol, self.client, self.vip)
    }

    fn reverse_key(&self) -> FlowKey {
        FlowKey::new(self.vni, self.protocol, self.backend, self.seen_as)
    }

    fn is_loop(&self) -> bool {
        self.client.0 == self.backend.0
    }

    fn is_direct(&self) -> bool {
        self.vip == self.backend
    }

    fn idle_time(&self) -> Duration {
        match (self.state, self.protocol) {
            (State::Closed, _) => idle::CLOSED,
            (State::Closing { .. }, _) => idle::CLOSING,
            (State::Opening, _) => idle::OPENING,
            (State::Established, protocol::TCP) => idle::TCP,
            (State::Established, protocol::SCTP) => idle::SCTP,
            (State::Established, _) => idle::UDP,
        }
    }

    fn step(&mut self, side: Side, signal: Signal) {
        self.state = match (self.state, signal) {
            (_, Signal::Abort) | (State::Closed, _) => State::Closed,
            (State::Closing { by_client }, Signal::End) if by_client != (side == Side::Client) => {
                State::Closed
            }
            (State::Opening | State::Established, Signal::End) => {
                State::Closing { by_client: side == Side::Client }
            }
            (State::Opening, _) if side == Side::Backend => State::Established,
            (state, _) => state,
        };
    }
}

/// What a packet says about the life of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// A new connection begins.
    Begin,
    /// Nothing.
    None,
    /// One side is done.
    End,
    /// The connection is over.
    Abort,
}

impl Signal {
    /// The signal in a packet of `protocol`, whose transport header starts `transport`.
    pub(super) fn of(protocol: u8, transport: &[u8]) -> Self {
        match protocol {
            protocol::TCP => match transport.get(tcp::FLAGS_AT) {
                Some(flags) if flags & flag::RST != 0 => Self::Abort,
                Some(flags) if flags & flag::FIN != 0 => Self::End,
                Some(flags) if flags & (flag::SYN | flag::ACK) == flag::SYN => Self::Begin,
                _ => Self::None,
            },
            protocol::SCTP => match transport.get(sctp::HEADER_LEN).copied() {
                Some(sctp::chunk::ABORT) => Self::Abort,
                Some(sctp::chunk::SHUTDOWN_COMPLETE) => Self::End,
                Some(sctp::chunk::INIT) => Self::Begin,
                _ => Self::None,
            },
            _ => Self::None,
        }
    }
}

/// What a new flow is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewFlow {
    pub(super) vni: Vni,
    pub(super) protocol: u8,
    pub(super) client: End,
    pub(super) vip: End,
    /// The address that the backend shall see: the client's, or the VIP where client and backend
    /// are one endpoint.
    pub(super) seen_as: IpAddr,
    pub(super) backend: IpAddr,
    pub(super) backend_mac: MacAddr,
    pub(super) generation: u64,
}

/// Flows by both of their directions, bounded.
#[derive(Debug)]
pub(super) struct FlowTable {
    slots: Vec<Option<Flow>>,
    free: Vec<u32>,
    forward: HashMap<FlowKey, u32, Seed>,
    reverse: HashMap<FlowKey, u32, Seed>,
    /// Slots of flows that nobody had answered when they were added, oldest first: the first to
    /// be pushed out, so that a flood of attempts costs no established flow. Answered and removed
    /// ones are passed over.
    unanswered: VecDeque<(u32, u64)>,
    /// Flows whose client is their backend.
    loops: usize,
    /// Flows to a backend's own address.
    direct: usize,
    limit: usize,
    serial: u64,
    hand: usize,
}

/// A flow and whether it came at the cost of another.
pub(super) struct Inserted<'a> {
    pub(super) flow: &'a Flow,
    pub(super) evicted: bool,
}

impl FlowTable {
    pub(super) fn new(limit: usize, seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            forward: HashMap::with_hasher(Seed(seed)),
            reverse: HashMap::with_hasher(Seed(mix(seed, 1))),
            unanswered: VecDeque::new(),
            loops: 0,
            direct: 0,
            limit: limit.max(1),
            serial: 0,
            hand: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.forward.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.forward.len()
    }

    /// The flow whose client sends packets with this key.
    pub(super) fn by_client(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        let slot = *self.forward.get(key)?;
        self.slots[slot as usize].as_mut()
    }

    /// The flow whose backend sends packets with this key.
    pub(super) fn by_backend(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        let slot = *self.reverse.get(key)?;
        self.slots[slot as usize].as_mut()
    }

    /// Notes a packet of `flow`.
    pub(super) fn touch(flow: &mut Flow, side: Side, signal: Signal, now: Instant) {
        flow.step(side, signal);
        flow.deadline = now + flow.idle_time();
    }

    /// Whether a packet with this signal starts a connection anew on the entry of one that ended.
    pub(super) fn is_over(flow: &Flow, signal: Signal, now: Instant) -> bool {
        flow.deadline <= now
            || (signal == Signal::Begin
                && matches!(flow.state, State::Closing { .. } | State::Closed))
    }

    /// Adds a flow. `None` when no source port is free at its backend.
    pub(super) fn insert(&mut self, new: NewFlow, now: Instant) -> Option<Inserted<'_>> {
        let mut flow = Flow {
            client: new.client,
            vip: new.vip,
            seen_as: (new.seen_as, new.client.1),
            backend: (new.backend, new.vip.1),
            backend_mac: new.backend_mac,
            generation: new.generation,
            protocol: new.protocol,
            vni: new.vni,
            state: State::Opening,
            deadline: now + idle::OPENING,
            serial: self.serial,
        };
        self.serial += 1;
        self.find_port(&mut flow)?;
        let evicted = self.forward.len() >= self.limit && self.evict(now);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.forward.insert(flow.forward_key(), slot);
        self.reverse.insert(flow.reverse_key(), slot);
        self.loops += usize::from(flow.is_loop());
        self.direct += usize::from(flow.is_direct());
        self.unanswered.push_back((slot, flow.serial));
        if self.unanswered.len() > 2 * self.limit {
            let slots = &self.slots;
            self.unanswered.retain(|entry| is_unanswered(slots, *entry));
        }
        let flow = self.slots[slot as usize].insert(flow);
        Some(Inserted { flow, evicted })
    }

    /// Two virtual addresses, or one and the backend's own, can lead one client port to one backend
    /// port; the second flow then gets another source port, so that replies can be told apart.
    fn find_port(&self, flow: &mut Flow) -> Option<()> {
        for attempt in 0..=PORT_ATTEMPTS {
            if !self.reverse.contains_key(&flow.reverse_key()) {
                return Some(());
            }
            // SCTP's checksum covers the ports: they cannot change.
            if flow.protocol == protocol::SCTP {
                return None;
            }
            let hash = mix(flow.forward_key().stable_hash(), attempt.into());
            flow.seen_as.1 = 49_152 + (hash % 16_384) as u16;
        }
        None
    }

    /// Whether any client is its own backend: then replies go to a virtual address.
    pub(super) fn has_loops(&self) -> bool {
        self.loops > 0
    }

    /// Whether any flow is to a backend's own address.
    pub(super) fn has_direct(&self) -> bool {
        self.direct > 0
    }

    /// Forgets a flow.
    pub(super) fn remove(&mut self, key: &FlowKey) {
        if let Some(slot) = self.forward.get(key).copied() {
            self.remove_slot(slot as usize);
        }
    }

    fn remove_slot(&mut self, slot: usize) {
        if let Some(flow) = self.slots[slot].take() {
            self.forward.remove(&flow.forward_key());
            self.reverse.remove(&flow.reverse_key());
            self.loops -= usize::from(flow.is_loop());
            self.direct -= usize::from(flow.is_direct());
            self.free.push(slot as u32);
        }
    }

    /// Pushes out the oldest flow that nobody answered, else that of a sample which would expire
    /// first.
    fn evict(&mut self, now: Instant) -> bool {
        while let Some(entry) = self.unanswered.pop_front() {
            if is_unanswered(&self.slots, entry) {
                self.remove_slot(entry.0 as usize);
                return true;
            }
        }
        let mut victim: Option<(Duration, usize)> = None;
        let mut seen = 0;
        for _ in 0..self.slots.len() {
            let slot = self.advance();
            if let Some(flow) = &self.slots[slot] {
                let left = flow.deadline.saturating_duration_since(now);
                if victim.is_none_or(|(least, _)| left < least) {
                    victim = Some((left, slot));
                }
                seen += 1;
                if seen == EVICTION_SAMPLE {
                    break;
                }
            }
        }
        if let Some((_, slot)) = victim {
            self.remove_slot(slot);
        }
        victim.is_some()
    }

    fn advance(&mut self) -> usize {
        self.hand = if self.hand + 1 >= self.slots.len() { 0 } else { self.hand + 1 };
        self.hand
    }

    /// Forgets expired flows among the next few. Says how many.
    pub(super) fn sweep(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        for _ in 0..SWEEP_STEP.min(self.slots.len()) {
            let slot = self.advance();
            if self.slots[slot].as_ref().is_some_and(|flow| flow.deadline <= now) {
                self.remove_slot(slot);
                expired += 1;
            }
        }
        expired
    }
}

fn is_unanswered(slots: &[Option<Flow>], (slot, serial): (u32, u64)) -> bool {
    let flow = slots[slot as usize].as_ref();
    flow.is_some_and(|flow| flow.serial == serial && flow.state == State::Opening)
}
