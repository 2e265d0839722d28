//! Which association each peer is sent to with.

use overlay_types::{Epoch, EpochState, NodeId};

use super::{
    Output, Rotation,
    generation::{Evidence, Generation, PeerEntry},
};

impl Rotation {
    pub(super) fn choose_for_all(&mut self) {
        let mut peers: Vec<NodeId> = self.sending.keys().copied().collect();
        peers.extend(self.generations.values().flat_map(|g| g.peers.keys().copied()));
        peers.sort_unstable();
        peers.dedup();
        for peer in peers {
            self.choose(peer);
        }
    }

    /// Picks what to send to `peer` with, by the rule at the top of the module `rotation`.
    pub(super) fn choose(&mut self, peer: NodeId) {
        let current = self.sending.get(&peer);
        let entry_of = |g: &'_ Generation| g.peers.get(&peer).map(|entry| entry.outbound);
        // Keys are handed out once, so there is no way back from a newer epoch.
        let oldest = current
            .filter(|id| self.generations.get(&id.epoch).and_then(entry_of).as_ref() == Some(*id));
        let candidates = || {
            let newest_first = self.generations.iter().rev();
            newest_first
                .filter(|(epoch, g)| {
                    g.state >= EpochState::Active && oldest.is_none_or(|id| **epoch >= id.epoch)
                })
                .filter_map(|(epoch, g)| g.peers.get(&peer).map(|entry| (*epoch, g, entry)))
                .filter(|(_, _, entry)| entry.is_usable(current))
        };
        let certain = candidates().find(|(_, g, entry)| g.peer_has(entry) && !g.is_stopped());
        let likely = |(_, g, entry): &(Epoch, &Generation, &PeerEntry)| {
            g.is_published() && !g.is_stopped() && entry.evidence != Evidence::Doubted
        };
        let best = certain
            .or_else(|| candidates().rfind(likely))
            .or_else(|| candidates().next())
            .map(|(epoch, ..)| epoch);
        let entry = best
            .and_then(|epoch| self.generations.get_mut(&epoch))
            .and_then(|generation| generation.peers.get_mut(&peer));
        if let Some(entry) = entry {
            if let Some(keys) = entry.unused.take() {
                let (id, greet) = (entry.outbound, entry.late);
                self.sending.insert(peer, id);
                self.outputs.push_back(Output::UseForSending { id, keys, greet });
            }
        } else if self.sending.remove(&peer).is_some() {
            self.outputs.push_back(Output::StopSending { peer });
        }
    }
}
