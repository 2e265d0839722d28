//! The flow table of VIP translation: flows by both of their directions, bounded.

use core::time::Duration;
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use super::{
    flow::{Flow, FlowKey, NewFlow},
    hash::{Seed, mix},
};
use crate::wire::protocol;

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

    /// Adds a flow. `None` when no source port is free at its backend.
    pub(super) fn insert(&mut self, new: NewFlow, now: Instant) -> Option<Inserted<'_>> {
        let mut flow = Flow::new(new, self.serial, now);
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
    flow.is_some_and(|flow| flow.serial == serial && flow.is_unanswered())
}
