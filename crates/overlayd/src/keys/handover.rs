//! From the associations of a run before to those of this one, without a packet lost.
//!
//! A daemon that was started again has new keys, and its kernel still seals and opens with the old ones,
//! which nobody can read. Its peers learn of the new ones when the managers do, sooner or later:
//!
//! ```text
//!   restarted node  seals with the old one ───────────────► until it hears the peer by a new one
//!   its peer        seals with the old one ──► the new key comes: seals with the new one, and
//!                   opens both ──────────────────────────► a while after it heard the new one
//! ```
//!
//! Without managers both go on with the old ones, and so does a node towards a peer that is down: what that
//! has in its kernel opens nothing else.

use core::{net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_crypto::esp::{SaId, table::MAX_ASSOCIATIONS};
use overlay_dataplane::sa::Sa;
use overlay_types::{Epoch, NodeId, View};

use super::Keys;

/// How long what a peer sealed with before is still opened after it was heard by something newer: longer
/// than anything is under way.
const LINGER: Duration = Duration::from_secs(10);
/// When a node uses its new keys for a peer that it has not heard by them, from when the managers have them
/// and the peer runs: it has them by then, and still opens the old ones. Longer than gossip takes to notice
/// that a node has ended.
const SETTLE: Duration = Duration::from_secs(10);

/// What is under way.
#[derive(Default)]
pub(super) struct Handover {
    /// Addresses that the kernel seals for with associations of a run before.
    predecessors: BTreeSet<IpAddr>,
    /// What waits until its peer has it.
    held: BTreeMap<NodeId, Sa>,
    /// Keys of this run, and when the view showed that the managers have them.
    published: BTreeMap<Epoch, ([u8; 32], Option<Instant>)>,
    /// Nodes whose daemons run, and since when that is known.
    running: BTreeMap<NodeId, Instant>,
    /// Inbound associations whose peer has another one, in the order in which it came; and when they go, once
    /// something newer of the peer was heard. Its kernel may seal with them until then.
    lingering: Vec<(SaId, Option<Instant>)>,
    /// Inbound ones that something came by.
    heard: BTreeSet<SaId>,
}

impl Handover {
    /// This run's key of an epoch, which the managers are asked to have.
    pub(super) fn publish(&mut self, epoch: Epoch, public: [u8; 32]) {
        let published = self.published.entry(epoch).or_insert((public, None));
        if published.0 != public {
            *published = (public, None);
        }
    }

    /// Nothing of the peer waits any more.
    pub(super) fn stop(&mut self, peer: NodeId) {
        self.held.remove(&peer);
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let settled = self.held.values().filter_map(|sa| self.settled(sa));
        settled.chain(self.lingering.iter().filter_map(|(_, until)| *until)).min()
    }

    /// From when on the peer of an association has it, whether it was heard or not.
    fn settled(&self, sa: &Sa) -> Option<Instant> {
        let (_, shown) = self.published.get(&sa.id.epoch)?;
        Some((*shown)?.max(*self.running.get(&sa.id.peer)?) + SETTLE)
    }

    fn lingers(&self, id: SaId) -> bool {
        self.lingering.iter().any(|(other, _)| *other == id)
    }

    /// Has what something newer was heard after go in a while. Returns what goes now.
    fn expire(&mut self, now: Instant) -> Vec<SaId> {
        let pair = |id: &SaId| (id.peer, id.epoch);
        let old: BTreeSet<SaId> = self.lingering.iter().map(|(id, _)| *id).collect();
        let mut newer: BTreeSet<_> = self.heard.difference(&old).map(pair).collect();
        for (id, until) in self.lingering.iter_mut().rev() {
            if newer.contains(&pair(id)) {
                until.get_or_insert(now + LINGER);
            } else if self.heard.contains(id) {
                newer.insert(pair(id));
            }
        }
        let over = |until: &Option<Instant>| until.is_some_and(|until| until <= now);
        self.lingering.iter().filter(|(_, until)| over(until)).map(|(id, _)| *id).collect()
    }
}

impl Keys {
    /// Addresses that the kernel seals for with associations of a run before.
    pub(crate) fn succeed(&mut self, predecessors: BTreeSet<IpAddr>) {
        self.handover.predecessors = predecessors;
    }

    /// Whether what goes to a peer can be sealed: with an association of this run or of one before.
    pub(crate) fn seals_for(&self, peer: NodeId) -> bool {
        self.sas.outbound.contains_key(&peer) || self.handover.held.contains_key(&peer)
    }

    /// Nodes that are known to run.
    pub(crate) fn see(&mut self, running: &BTreeSet<NodeId>, now: Instant) {
        let known = &mut self.handover.running;
        known.retain(|node, _| running.contains(node));
        for node in running {
            known.entry(*node).or_insert(now);
        }
    }

    /// Seals with an association; where one of a run before is in use, when its peer has this one.
    pub(super) fn seal_with(&mut self, sa: Sa, greet: bool) {
        if self.handover.predecessors.contains(&sa.address) {
            self.handover.held.insert(sa.id.peer, sa);
            return;
        }
        if greet {
            self.sas.greet.insert(sa.id.peer);
        }
        self.sas.outbound.insert(sa.id.peer, sa);
    }

    /// Something came by an association of this run, so its peer has those of this run.
    pub(super) fn hear(&mut self, id: SaId) {
        if self.sas.inbound.contains_key(&id) {
            self.handover.heard.insert(id);
            self.release(id.peer);
        }
    }

    fn release(&mut self, peer: NodeId) {
        let Some(sa) = self.handover.held.remove(&peer) else { return };
        self.handover.predecessors.remove(&sa.address);
        // The peer opens the old one until it hears this one.
        self.seal_with(sa, true);
    }

    /// Opens with an association no more; if its peer was started again, when that seals with it no more.
    pub(super) fn withdraw(&mut self, id: SaId) {
        let of_both = |other: &SaId| (other.peer, other.epoch) == (id.peer, id.epoch);
        let is_new = |other: &SaId| *other != id && !self.handover.lingers(*other);
        let replaced = self.peers.contains(&id.peer)
            && self.sas.inbound.keys().any(|other| of_both(other) && is_new(other))
            && self.sas.inbound.len() < MAX_ASSOCIATIONS;
        if !replaced {
            self.close(id);
            return;
        }
        // A run that ended before it was heard sealed as the one before it, and so does the next one.
        let Handover { lingering, heard, .. } = &self.handover;
        let before = lingering.iter().map(|(other, _)| *other).filter(of_both);
        let before: Vec<SaId> = before.collect();
        let last_heard = before.iter().rev().find(|other| heard.contains(other));
        let sealing = last_heard.or(before.first()).filter(|_| !heard.contains(&id)).copied();
        for other in before.into_iter().filter(|other| Some(*other) != sealing) {
            self.close(other);
        }
        self.handover.lingering.push((id, None));
    }

    fn close(&mut self, id: SaId) {
        self.sas.inbound.remove(&id);
        self.handover.lingering.retain(|(other, _)| *other != id);
        self.handover.heard.remove(&id);
    }

    /// Nothing of a run before of these peers is opened any more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(SaId) -> bool) {
        let gone = self.handover.lingering.iter().map(|(id, _)| *id).filter(|id| is_gone(*id));
        for id in gone.collect::<Vec<_>>() {
            self.close(id);
        }
    }

    /// Does what is due.
    pub(super) fn hand_over(&mut self, view: &View, now: Instant) {
        for id in self.handover.expire(now) {
            self.close(id);
        }
        let Handover { published, held, .. } = &mut self.handover;
        published.retain(|epoch, _| self.epochs.contains_key(epoch));
        if held.is_empty() {
            return;
        }
        for key in view.node_keys().values().filter(|key| key.node == self.own) {
            if let Some((public, shown)) = published.get_mut(&key.epoch)
                && *public == key.public
            {
                shown.get_or_insert(now);
            }
        }
        for (peer, sa) in held {
            // It may have moved.
            sa.address = view.nodes().get(peer).map_or(sa.address, |node| node.data_path);
        }
        let Handover { held, predecessors, .. } = &self.handover;
        let is_due = |sa: &Sa| {
            let settled = self.handover.settled(sa).is_some_and(|settled| settled <= now);
            // Nothing of the run before seals for it (any more).
            settled || !predecessors.contains(&sa.address)
        };
        let due = held.iter().filter(|(_, sa)| is_due(sa)).map(|(peer, _)| *peer);
        for peer in due.collect::<Vec<_>>() {
            self.release(peer);
        }
    }
}
