//! Replaces the keys of all pairs of nodes, epoch by epoch, without losing a packet.
//!
//! Each epoch goes through these steps on each node; several epochs are under way at once.
//!
//! ```text
//!   epoch told     keys of peers arrive      epoch is ready,        epoch is active
//!       │                  │                 own key seen                │
//!       ▼                  ▼                     ▼                       ▼
//!  ┌─────────┐   ┌────────────────────┐   ┌─────────────┐   ┌─────────────────────────┐
//!  │ PREPARE │──►│ INSTALL receive SA │──►│ READY       │──►│ ACTIVE: send with it to │
//!  │ key pair│   │ per peer           │   │ ReportReady │   │ each peer that has it   │
//!  │ Publish │   │ InstallInbound     │   └─────────────┘   │ UseForSending           │
//!  └─────────┘   └────────────────────┘                     └────────────┬────────────┘
//!                                                              retired   │
//!                      ┌───────────────────┐  drained   ┌────────────────▼────────────┐
//!                      │ ERASE             │◄───────────│ DRAIN: receive, and send to │
//!                      │ Remove …, Erased  │            │ peers that have no newer    │
//!                      └───────────────────┘            └─────────────────────────────┘
//! ```
//!
//! **When a peer has an association.** The managers make an epoch *ready* at one revision. A node
//! reports ready after it has seen that revision, hence after it has installed the associations of
//! all keys published before. So a peer that is ready has ours if our key was published while the
//! epoch was still *preparing*. A node that is late (slow, away, restarted) cannot know it that way;
//! it knows when it hears the peer through the same epoch, because each installs before it sends.
//!
//! **What is sent with**, per peer: the newest active or retired epoch that the peer has for certain;
//! if there is none, the oldest that it may have, which it has had the longest time to install and
//! with which nothing is lost by trying; if there is no key at all, nothing is sent. Never plaintext:
//! this machine has no output for it. And never an older epoch again after a newer one: each key is
//! handed out once, so that no packet counter starts twice.
//!
//! A restarted node has no secrets any more. It makes a new pair for each epoch that is not retired
//! and publishes it; peers replace what they had of it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use hkdf::Hkdf;
use overlay_types::{ClusterId, Epoch, EpochState, NodeId};
use sha2::Sha256;
use zeroize::Zeroizing;

use self::generation::{Evidence, Generation};
use crate::{
    agreement::{KeyPair, Pair, PublicKey},
    error::CryptoError,
    esp::{SaId, table::MAX_ASSOCIATIONS},
};

pub use config::RotationConfig;
pub use output::Output;

mod choice;
mod config;
mod generation;
mod output;

/// Most epochs at once: draining, active, preparing, and one that the managers delete late. At one
/// more the oldest is erased.
pub const MAX_EPOCHS: usize = 4;

/// Most peers per epoch, so that all associations fit into an [`SaTable`](crate::esp::SaTable).
pub const MAX_PEERS: usize = MAX_ASSOCIATIONS / MAX_EPOCHS;

/// What the replicated state says about an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// How far it is.
    pub state: EpochState,
    /// When it is drained and to be erased; read only in state retired.
    pub drained: Option<Instant>,
}

/// What the replicated state says about a node's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeKeyStatus {
    /// Whose key.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The public half.
    pub public: PublicKey,
    /// The node has reported that it has its receive associations.
    pub ready: bool,
}

/// The rotation on one node. Feed it in the order of the replicated state: an epoch before its keys.
/// Its publications must take effect in the order in which they were made, also across a restart: a
/// key that was replaced and comes back is refused by peers until the next epoch.
#[cfg_attr(test, derive(Clone))]
pub struct Rotation {
    cluster: ClusterId,
    own: NodeId,
    config: RotationConfig,
    seed: Zeroizing<[u8; 32]>,
    generations: BTreeMap<Epoch, Generation>,
    /// Epochs below it are erased and do not come back.
    floor: Epoch,
    sending: BTreeMap<NodeId, SaId>,
    requested_after: Option<Epoch>,
    outputs: VecDeque<Output>,
}

impl Rotation {
    /// A node that knows no epoch. `entropy` comes from a cryptographic random source, anew at each
    /// start; all secrets are drawn from it by a ratchet, so that what is left never yields an
    /// erased one.
    pub fn new(cluster: ClusterId, own: NodeId, config: RotationConfig, entropy: [u8; 32]) -> Self {
        Self {
            cluster,
            own,
            config,
            seed: Zeroizing::new(entropy),
            generations: BTreeMap::new(),
            floor: Epoch::ZERO,
            sending: BTreeMap::new(),
            requested_after: None,
            outputs: VecDeque::new(),
        }
    }

    /// The association that `peer` is sent to with.
    pub fn sending_with(&self, peer: NodeId) -> Option<SaId> {
        self.sending.get(&peer).copied()
    }

    /// Epochs that are not erased, with their states.
    pub fn epochs(&self) -> impl Iterator<Item = (Epoch, EpochState)> {
        self.generations.iter().map(|(epoch, generation)| (*epoch, generation.state))
    }

    /// An epoch is new or has gone a step. States never go back.
    pub fn handle_epoch(&mut self, status: EpochStatus, now: Instant) {
        let epoch = status.epoch;
        if !self.generations.contains_key(&epoch) {
            if epoch < self.floor || status.state == EpochState::Retired {
                return;
            }
            let pair = KeyPair::from_entropy(&self.draw_entropy());
            self.generations.insert(epoch, Generation::new(pair, status.state, now));
        }
        if let Some(generation) = self.generations.get_mut(&epoch) {
            generation.state = generation.state.max(status.state);
            if status.state == EpochState::Retired {
                let drained = status.drained.or(generation.erase_at);
                let drained = drained.unwrap_or(now + self.config.default_drain);
                generation.retire(drained, self.config.send_margin);
            }
        }
        self.retire_superseded(now);
        while self.generations.len() > MAX_EPOCHS {
            let oldest = *self.generations.keys().next().expect("there are more than four");
            self.erase(oldest);
        }
        self.fire_timers(now);
        self.choose_for_all();
    }

    /// The replicated state no longer has the epoch: its keys are erased.
    pub fn handle_epoch_removed(&mut self, epoch: Epoch) {
        if self.generations.contains_key(&epoch) {
            self.erase(epoch);
        }
    }

    /// A public key is new, replaced, or its node became ready. This node's own key as well: only
    /// seeing it proves that it is published.
    ///
    /// # Errors
    /// [`CryptoError::WeakPublicKey`], [`CryptoError::SpentPublicKey`], [`CryptoError::TableFull`]:
    /// nothing will be sent to that node in this epoch, nor received from it.
    pub fn handle_key(&mut self, key: NodeKeyStatus, now: Instant) -> Result<(), CryptoError> {
        let NodeKeyStatus { node, epoch, public, ready } = key;
        let Some(generation) = self.generations.get_mut(&epoch) else { return Ok(()) };
        if node == self.own {
            if public == generation.public() {
                generation.see_own_key(ready, now);
            } else if generation.is_published() {
                return self.make_another_pair(epoch, now);
            }
            // Otherwise it is what this node published before it restarted.
            return Ok(());
        }
        if let Some(known) = generation.peers.get_mut(&node).filter(|known| known.public == public)
        {
            known.see_key(ready);
        } else {
            let pair = Pair { cluster: self.cluster, epoch, own: self.own, peer: node };
            self.replace_key(pair, public, ready)?;
        }
        self.choose(node);
        Ok(())
    }

    /// A node left the cluster: its associations are removed.
    pub fn handle_peer_gone(&mut self, node: NodeId) {
        let entries = self.generations.values_mut().filter_map(|g| g.remove_peer(node));
        let inbound: Vec<SaId> = entries.map(|entry| entry.inbound).collect();
        self.choose(node);
        self.outputs.extend(inbound.into_iter().map(Output::Remove));
    }

    /// An authentic packet arrived through this receive association, so its sender has the keys of
    /// that epoch. Telling the first one is enough.
    pub fn handle_heard(&mut self, id: SaId) {
        let generation = self.generations.get_mut(&id.epoch);
        if let Some(entry) = generation.and_then(|g| g.peers.get_mut(&id.peer))
            && entry.inbound == id
        {
            entry.evidence = Evidence::Heard;
            self.choose(id.peer);
        }
    }

    /// How much one association has carried. Above a limit the managers are asked, once per epoch,
    /// to rotate.
    pub fn handle_usage(&mut self, id: SaId, packets: u64, bytes: u64) {
        let spent = packets >= self.config.packet_limit || bytes >= self.config.byte_limit;
        let active = self.generations.get(&id.epoch).is_some_and(|g| g.state == EpochState::Active);
        if spent && active && self.requested_after != Some(id.epoch) {
            self.requested_after = Some(id.epoch);
            self.outputs.push_back(Output::RequestRotation(id.epoch));
        }
    }

    /// The next thing to do; [`Output::Wait`] when there is none.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        self.fire_timers(now);
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        // Only now that all associations are installed may others learn that they are.
        for (epoch, generation) in &mut self.generations {
            let retry_at = now + self.config.retry_interval;
            if let Some(public) = generation.take_publication(now, retry_at) {
                return Output::Publish { epoch: *epoch, public };
            }
            if let Some(public) = generation.take_report(now, retry_at) {
                return Output::ReportReady { epoch: *epoch, public };
            }
        }
        Output::Wait(self.generations.values().filter_map(Generation::wake_at).min())
    }

    fn draw_entropy(&mut self) -> Zeroizing<[u8; 32]> {
        let hkdf = Hkdf::<Sha256>::new(None, &*self.seed);
        let expand = |label: &[u8]| {
            let mut okm = Zeroizing::new([0; 32]);
            hkdf.expand(label, &mut *okm).expect("32 bytes are within HKDF's limit");
            okm
        };
        let drawn = expand(b"overlay rotation v1 key pair");
        self.seed = expand(b"overlay rotation v1 next seed");
        drawn
    }

    fn replace_key(
        &mut self,
        pair: Pair,
        public: PublicKey,
        ready: bool,
    ) -> Result<(), CryptoError> {
        let Some(generation) = self.generations.get_mut(&pair.epoch) else { return Ok(()) };
        let replaced = generation.remove_peer(pair.peer);
        let added = generation.add_peer(&pair, public, ready);
        let added = added.map(|(id, keys)| {
            self.outputs.push_back(Output::InstallInbound { id, keys });
        });
        if let Some(old) = replaced {
            self.doubt_others(pair.epoch, pair.peer);
            self.choose(pair.peer);
            self.outputs.push_back(Output::Remove(old.inbound));
        }
        added
    }

    /// The peer restarted: what it had of other epochs is in doubt, too. Unless that is a key of
    /// which nothing is known yet, which it has published just now: it does so in epoch order.
    fn doubt_others(&mut self, replaced: Epoch, peer: NodeId) {
        for (epoch, generation) in &mut self.generations {
            let published_now = *epoch < replaced && generation.state < EpochState::Retired;
            if *epoch != replaced
                && let Some(entry) = generation.peers.get_mut(&peer)
                && !(published_now && entry.evidence == Evidence::None)
            {
                entry.evidence = Evidence::Doubted;
            }
        }
    }

    /// A write from before a restart came late and replaced our key, or another host has our
    /// identity. Peers may have dropped what they had of us and take no key twice: a new one it is.
    fn make_another_pair(&mut self, epoch: Epoch, now: Instant) -> Result<(), CryptoError> {
        let pair = KeyPair::from_entropy(&self.draw_entropy());
        let Some(old) = self.generations.get_mut(&epoch) else { return Ok(()) };
        let mut generation = Generation::new(pair, old.state, now);
        (generation.stop_at, generation.erase_at) = (old.stop_at, old.erase_at);
        let old = std::mem::replace(old, generation);
        let mut result = Ok(());
        for (peer, entry) in &old.peers {
            let pair = Pair { cluster: self.cluster, epoch, own: self.own, peer: *peer };
            result =
                result.and(self.replace_key(pair, entry.public, entry.evidence == Evidence::Ready));
            self.choose(*peer);
        }
        self.outputs.extend(old.peers.values().map(|entry| Output::Remove(entry.inbound)));
        result
    }

    fn retire_superseded(&mut self, now: Instant) {
        let is_active = |g: &Generation| g.state == EpochState::Active;
        let Some(newest) = self.generations.iter().rfind(|(_, g)| is_active(g)).map(|(e, _)| *e)
        else {
            return;
        };
        for (_, generation) in self.generations.range_mut(..newest) {
            if generation.erase_at.is_none() {
                generation.retire(now + self.config.default_drain, self.config.send_margin);
            }
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut stopped = false;
        for generation in self.generations.values_mut() {
            stopped |= due(generation.stop_at.take_if(|at| *at <= now));
        }
        let drained: Vec<Epoch> =
            self.generations.iter().filter(|(_, g)| due(g.erase_at)).map(|(e, _)| *e).collect();
        for epoch in drained {
            self.erase(epoch);
        }
        if stopped {
            self.choose_for_all();
        }
    }

    fn erase(&mut self, epoch: Epoch) {
        let Some(generation) = self.generations.remove(&epoch) else { return };
        self.floor = self.floor.max(epoch.next());
        self.choose_for_all();
        let inbound = generation.peers.values().map(|entry| Output::Remove(entry.inbound));
        self.outputs.extend(inbound);
        self.outputs.push_back(Output::Erased(epoch));
    }
}

#[cfg(test)]
mod tests;
