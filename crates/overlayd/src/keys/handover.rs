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
        let Handover { lingering, .. } = &mut self.handover;
        let of_both = |other: &SaId| (other.peer, other.epoch) == (id.peer, id.epoch);
        let replaced = self.peers.contains(&id.peer)
            && self
                .sas
                .inbound
                .keys()
                .any(|other| *other != id && of_both(other) && !lingering.contains_key(other));
        // Who is started again and again has one of these at a time.
        let before: Vec<SaId> =
            lingering.extract_if(.., |other, _| of_both(other)).map(|(id, _)| id).collect();
        for other in before {
            self.sas.inbound.remove(&other);
        }
        if replaced && self.sas.inbound.len() < MAX_ASSOCIATIONS {
            lingering.insert(id, now + LINGER);
        } else {
            self.sas.inbound.remove(&id);
        }
    }

    /// Nothing of a run before of these peers is opened any more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(SaId) -> bool) {
        for (id, _) in self.handover.lingering.extract_if(.., |id, _| is_gone(*id)) {
            self.sas.inbound.remove(&id);
        }
    }

    /// Does what is due.
    pub(super) fn hand_over(&mut self, view: &View, now: Instant) {
        for (id, _) in self.handover.lingering.extract_if(.., |_, until| *until <= now) {
            self.sas.inbound.remove(&id);
        }
        if self.handover.held.is_empty() {
            return;
        }
        let published = &mut self.handover.published;
        published.retain(|epoch, _| self.epochs.contains_key(epoch));
        for key in view.node_keys().values().filter(|key| key.node == self.own) {
            if let Some((public, shown)) = published.get_mut(&key.epoch)
                && *public == key.public
            {
                shown.get_or_insert(now);
            }
        }
        let is_due = |(_, (sa, _)): &(&NodeId, &(Sa, bool))| {
            let shown = published.get(&sa.id.epoch).and_then(|(_, shown)| *shown);
            shown.is_some_and(|shown| shown + SETTLE <= now)
        };
        let due: Vec<NodeId> =
            self.handover.held.iter().filter(is_due).map(|(peer, _)| *peer).collect();
        for peer in due {
            self.release(peer);
        }
    }
}
