//! **lossless-rotation**, and what excuses a loss.

use super::*;

impl Node {
    /// Whether it was so late that an epoch ended before it knew what the peer has of the next.
    pub(super) fn guesses(&self, peer: NodeId) -> bool {
        let generations = || self.rotation.generations.values();
        let current = self.rotation.sending_with(peer);
        let is_certain = |g: &Generation| {
            let entry = g.peers.get(&peer);
            entry.is_some_and(|e| Some(e.outbound) == current && g.peer_has(e))
        };
        generations().any(Generation::is_stopped) && !generations().any(is_certain)
    }

    /// Whether it has a key of a peer that the peer lost, and cannot know it yet.
    pub(super) fn takes_for_alive(&self, peer: &Self) -> bool {
        let mut entries = self.rotation.generations.values().filter_map(|g| g.peers.get(&peer.id));
        entries.any(|entry| peer.lost.contains(&entry.public))
    }
}

impl World {
    /// **lossless-rotation**: once packets of a pair arrive, they go on to, whatever rotates. And of
    /// two nodes that have read everything, restarts included, packets arrive if the sender has any
    /// key that its receiver has, and no reason to doubt it.
    pub(super) fn check(&mut self) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
                let current = sender.rotation.sending_with(receiver.id);
                assert_eq!(current, sender.sending.get(&receiver.id).map(|(id, _)| *id));
                if sender.away || receiver.away {
                    continue;
                }
                if sender.guesses(receiver.id) {
                    self.connected.remove(&(from, to));
                    continue;
                }
                let arrives = current.is_some_and(|id| self.is_installed(from, to, id));
                let better = sender.rotation.generations.values().rev().find_map(|generation| {
                    let entry = generation.peers.get(&receiver.id)?;
                    let sendable = generation.state >= EpochState::Active
                        && entry.is_usable(current.as_ref())
                        && entry.evidence != Evidence::Doubted
                        && self.is_installed(from, to, entry.outbound);
                    sendable.then_some(entry.outbound)
                });
                if arrives {
                    if self.is_settled(from) && self.is_settled(to) {
                        self.connected.insert((from, to));
                    }
                } else {
                    let excused = sender.takes_for_alive(receiver)
                        || receiver.takes_for_alive(sender)
                        || sender.read.min(receiver.read) < self.log.len();
                    assert!(excused || better.is_none(), "{from} to {to}: {current:?}, {better:?}");
                    assert!(!self.connected.contains(&(from, to)), "{from} lost {to}: {current:?}");
                }
            }
        }
    }

    /// Whether `to` could open what `from` seals with this association.
    pub(super) fn is_installed(&self, from: usize, to: usize, id: SaId) -> bool {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        to.inbound.contains_key(&SaId { peer: from.id, ..id })
    }

    /// Whether a node has read everything, and its keys are the replicated ones.
    pub(super) fn is_settled(&self, who: usize) -> bool {
        let node = &self.nodes[who];
        let replicated = |epoch| self.keys.get(&(node.id, epoch)).map(|key| key.public);
        let mut generations = node.rotation.generations.iter();
        node.read == self.log.len()
            && generations.all(|(epoch, g)| {
                g.state == EpochState::Retired || replicated(*epoch) == Some(g.public())
            })
    }

    /// Nodes that were forced to stay behind, when the epoch ends that they were in.
    pub(super) fn excuse_those_left_behind(&mut self) {
        let newest = self.epochs.values().rfind(|status| status.state >= EpochState::Active);
        let Some(EpochStatus { epoch, .. }) = newest.copied() else { return };
        for who in 0..self.nodes.len() {
            let key = self.keys.get(&(self.nodes[who].id, epoch));
            if key.is_none_or(|key| !key.ready) {
                self.excuse(who);
            }
        }
    }

    pub(super) fn excuse(&mut self, who: usize) {
        self.connected.retain(|(from, to)| *from != who && *to != who);
    }
}
