//! From the associations of a run before to those of this one, without a packet lost.
//!
//! A daemon that was started again has new keys, and its kernel still seals and opens with the old ones,
//! which nobody can read. Its peers learn of the new ones when the managers do, sooner or later:
//!
//! ```text
//!   restarted node  seals with the old one ───────────────► until it hears the peer by a new one
//!   its peer        seals with the old one ──► the new key comes: seals with the new one, and
//!                   opens both ───────────────────────────► for a while
//! ```
//!
//! Without managers both go on with the old ones.

use core::{net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_crypto::esp::{SaId, table::MAX_ASSOCIATIONS};
use overlay_dataplane::sa::Sa;
use overlay_types::{Epoch, NodeId, View};

use super::Keys;

/// How long what a peer sealed with before it was started again is opened: longer than it takes the peer to
/// notice that this node has its new key.
const LINGER: Duration = Duration::from_secs(30);
/// When a node uses its new keys though it has heard nobody by them, from when the managers have them: its
/// peers have them by then, and still open the old ones.
const SETTLE: Duration = Duration::from_secs(10);

/// What is under way.
#[derive(Default)]
pub(super) struct Handover {
    /// Addresses that the kernel seals for with associations of a run before.
    predecessors: BTreeSet<IpAddr>,
    /// What waits until its peer has it, and whether the peer is to be greeted then.
    held: BTreeMap<NodeId, (Sa, bool)>,
    /// Keys of this run, and when the view showed that the managers have them.
    published: BTreeMap<Epoch, ([u8; 32], Option<Instant>)>,
    /// Inbound associations whose peer has another one, and how long they stay.
    lingering: BTreeMap<SaId, Instant>,
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
        let shown = |(sa, _): &(Sa, bool)| Some(self.published.get(&sa.id.epoch)?.1? + SETTLE);
        self.held.values().filter_map(shown).chain(self.lingering.values().copied()).min()
    }
}

impl Keys {
    /// Addresses that the kernel seals for with associations of a run before.
    pub(crate) fn succeed(&mut self, predecessors: BTreeSet<IpAddr>) {
        self.handover.predecessors = predecessors;
    }

    /// Seals with an association; where one of a run before is in use, when its peer has this one.
    pub(super) fn seal_with(&mut self, sa: Sa, greet: bool) {
        if self.handover.predecessors.contains(&sa.address) {
            self.handover.held.insert(sa.id.peer, (sa, greet));
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
        let Some((sa, greet)) = self.handover.held.remove(&peer) else { return };
        self.handover.predecessors.remove(&sa.address);
        self.seal_with(sa, greet);
    }

    /// Opens with an association no more; if its peer was started again, after a while.
    pub(super) fn withdraw(&mut self, id: SaId, now: Instant) {
        let Handover { lingering, heard, .. } = &self.handover;
        let of_both = |other: &SaId| (other.peer, other.epoch) == (id.peer, id.epoch);
        let is_new = |other: &SaId| *other != id && !lingering.contains_key(other);
        let replaced = self.peers.contains(&id.peer)
            && self.sas.inbound.keys().any(|other| of_both(other) && is_new(other))
            && self.sas.inbound.len() < MAX_ASSOCIATIONS;
        // A run that ended before it was heard sealed as the one before it, and so does the next one.
        let before: Vec<SaId> = lingering.keys().copied().filter(of_both).collect();
        let unheard = replaced && !heard.contains(&id);
        let sealing = before.iter().copied().find(|other| heard.contains(other));
        let sealing = sealing.or(before.first().copied()).filter(|_| unheard);
        for other in before.into_iter().filter(|other| Some(*other) != sealing) {
            self.close(other);
        }
        if replaced {
            let stay = sealing.into_iter().chain([id]).map(|id| (id, now + LINGER));
            self.handover.lingering.extend(stay);
        } else {
            self.close(id);
        }
    }

    fn close(&mut self, id: SaId) {
        self.sas.inbound.remove(&id);
        self.handover.lingering.remove(&id);
        self.handover.heard.remove(&id);
    }

    /// Nothing of a run before of these peers is opened any more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(SaId) -> bool) {
        let gone: Vec<SaId> =
            self.handover.lingering.keys().copied().filter(|id| is_gone(*id)).collect();
        for id in gone {
            self.close(id);
        }
    }

    /// Does what is due.
    pub(super) fn hand_over(&mut self, view: &View, now: Instant) {
        let over = self.handover.lingering.iter().filter(|(_, until)| **until <= now);
        let over: Vec<SaId> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.close(id);
        }
        let Handover { published, held, predecessors, .. } = &mut self.handover;
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
        let mut due = Vec::new();
        for (peer, (sa, _)) in held {
            // It may have moved.
            sa.address = view.nodes().get(peer).map_or(sa.address, |node| node.data_path);
            let shown = published.get(&sa.id.epoch).and_then(|(_, shown)| *shown);
            let settled = shown.is_some_and(|shown| shown + SETTLE <= now);
            // Nothing of the run before seals for it (any more).
            if settled || !predecessors.contains(&sa.address) {
                due.push(*peer);
            }
        }
        for peer in due {
            self.release(peer);
        }
    }
}
