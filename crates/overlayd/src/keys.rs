//! The key rotation of this node: feeds it from the view, and turns what it says into security
//! associations and reports.
//!
//! ```text
//!   view ──► Rotation ──► SaSet ──► desired dataplane
//!                └──────► reports, once the associations are installed ──► manager
//! ```
//!
//! `handover`: from the associations of a run before to those of this one.

mod handover;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use overlay_api::v1;
use overlay_crypto::{
    agreement::PublicKey,
    esp::SaId,
    rotation::{EpochStatus, NodeKeyStatus, Output, Rotation, RotationConfig},
};
use overlay_dataplane::sa::{PeerTraffic, Sa, SaSet};
use overlay_types::{ClusterId, Epoch, EpochState, KeyEpoch, NodeId, UnixMillis, View};

use self::handover::Handover;

/// Shortest time that an epoch drains here once it is known to: a clock that is ahead must not have
/// the keys erased for packets that are under way.
const SHORTEST_DRAIN: Duration = Duration::from_secs(10);

/// What a manager is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    PublicKey {
        epoch: Epoch,
        public: [u8; 32],
    },
    Ready {
        epoch: Epoch,
        public: [u8; 32],
    },
    /// A key has carried enough.
    Rotate,
}

/// What there is of keys with one peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PeerKeys {
    /// The epoch that it is sent to with.
    pub(crate) sending: Option<Epoch>,
    /// The epochs that it may send with.
    pub(crate) receiving: BTreeSet<Epoch>,
    pub(crate) traffic: PeerTraffic,
}

impl PeerKeys {
    /// As a message.
    pub(crate) fn tell((node, keys): (&NodeId, &Self)) -> v1::PeerKeys {
        let PeerTraffic {
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            replays,
            bad_tags,
            unknown_spis,
        } = keys.traffic;
        v1::PeerKeys {
            node: node.to_string(),
            sending_epoch: keys.sending.map_or(0, Epoch::get),
            receiving_epochs: keys.receiving.iter().map(|epoch| epoch.get()).collect(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            replays,
            bad_tags,
            unknown_spis,
        }
    }
}

/// This node's keys and associations.
pub(crate) struct Keys {
    own: NodeId,
    rotation: Rotation,
    sas: SaSet,
    handover: Handover,
    peers: BTreeSet<NodeId>,
    /// The deadline of each epoch, and when that is on the clock that nobody sets, as it was when
    /// the node first heard of it: the time of day may jump meanwhile.
    epochs: BTreeMap<Epoch, (UnixMillis, Instant)>,
}

impl Keys {
    /// `entropy` comes from a cryptographic random source.
    pub(crate) fn new(cluster: ClusterId, own: NodeId, entropy: [u8; 32]) -> Self {
        Self {
            own,
            rotation: Rotation::new(cluster, own, RotationConfig::default(), entropy),
            sas: SaSet::default(),
            handover: Handover::default(),
            peers: BTreeSet::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// The associations that the dataplane shall have.
    pub(crate) const fn sas(&self) -> &SaSet {
        &self.sas
    }

    /// Epochs whose keys this node holds.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = Epoch> {
        self.rotation.epochs().map(|(epoch, _)| epoch)
    }

    /// Takes what the view says about epochs and keys. `wall` is the time of day at `now`.
    pub(crate) fn follow(&mut self, view: &View, wall: UnixMillis, now: Instant) {
        let nodes: BTreeSet<NodeId> = view.nodes().keys().copied().collect();
        for gone in self.peers.difference(&nodes) {
            self.rotation.handle_peer_gone(*gone);
        }
        self.forget(|id| !nodes.contains(&id.peer));
        self.peers = nodes;
        let epochs = view.key_epochs();
        for (gone, _) in self.epochs.extract_if(.., |epoch, _| !epochs.contains_key(epoch)) {
            self.rotation.handle_epoch_removed(gone);
        }
        for epoch in epochs.values() {
            let drained = Some(self.deadline(epoch, wall, now));
            let status = EpochStatus { epoch: epoch.epoch, state: epoch.state, drained };
            self.rotation.handle_epoch(status, now);
        }
        for key in view.node_keys().values() {
            let status = NodeKeyStatus {
                node: key.node,
                epoch: key.epoch,
                public: PublicKey(key.public),
                ready: key.ready,
            };
            if let Err(error) = self.rotation.handle_key(status, now) {
                tracing::warn!(node = %key.node, epoch = %key.epoch, %error, "key of a node refused");
            }
        }
    }

    fn deadline(&mut self, epoch: &KeyEpoch, wall: UnixMillis, now: Instant) -> Instant {
        if let Some((deadline, at)) = self.epochs.get(&epoch.epoch)
            && *deadline == epoch.deadline
        {
            return *at;
        }
        let left = match epoch.state {
            EpochState::Retired => epoch.deadline.since(wall).max(SHORTEST_DRAIN),
            _ => epoch.deadline.since(wall),
        };
        self.epochs.insert(epoch.epoch, (epoch.deadline, now + left));
        now + left
    }

    /// Takes what the dataplane noticed: associations that were heard, and how much was sealed.
    pub(crate) fn notice(&mut self, heard: Vec<SaId>, used: Vec<(SaId, u64, u64)>) {
        for id in heard {
            self.rotation.handle_heard(id);
            self.hear(id);
        }
        for (id, packets, bytes) in used {
            self.rotation.handle_usage(id, packets, bytes);
        }
    }

    /// Carries out what the rotation says. Returns what managers are to be told after the
    /// dataplane has [`sas`](Self::sas), and how long nothing more is due.
    pub(crate) fn step(&mut self, view: &View, now: Instant) -> (Vec<Report>, Option<Duration>) {
        let address_of = |peer: NodeId| view.nodes().get(&peer).map(|node| node.data_path);
        for sa in self.sas.inbound.values_mut().chain(self.sas.outbound.values_mut()) {
            sa.address = address_of(sa.id.peer).unwrap_or(sa.address);
        }
        let mut reports = Vec::new();
        loop {
            match self.rotation.poll_output(now) {
                Output::InstallInbound { id, keys } => {
                    if let Some(address) = address_of(id.peer) {
                        let sa = Sa { id, address, keys: Arc::new(keys) };
                        self.sas.inbound.insert(id, sa);
                    }
                }
                Output::UseForSending { id, keys, greet } => {
                    self.stop_sending(id.peer);
                    if let Some(address) = address_of(id.peer) {
                        self.seal_with(Sa { id, address, keys: Arc::new(keys) }, greet);
                    }
                }
                Output::StopSending { peer } => self.stop_sending(peer),
                Output::Remove(id) => self.withdraw(id),
                Output::Erased(epoch) => {
                    self.forget(|id| id.epoch == epoch);
                    tracing::info!(node = %self.own, %epoch, "keys of an epoch erased");
                }
                Output::Publish { epoch, public } => {
                    self.handover.publish(epoch, public.0);
                    reports.push(Report::PublicKey { epoch, public: public.0 });
                }
                Output::ReportReady { epoch, public } => {
                    reports.push(Report::Ready { epoch, public: public.0 });
                }
                Output::RequestRotation(_) => reports.push(Report::Rotate),
                Output::Wait(at) => {
                    self.hand_over(view, now);
                    let at = at.into_iter().chain(self.handover.due()).min();
                    return (reports, at.map(|at| at.saturating_duration_since(now)));
                }
            }
        }
    }

    /// What there is of keys with each peer, with what the dataplane has carried.
    pub(crate) fn peers(
        &self,
        traffic: &BTreeMap<NodeId, PeerTraffic>,
    ) -> BTreeMap<NodeId, PeerKeys> {
        let mut peers: BTreeMap<NodeId, PeerKeys> = BTreeMap::new();
        for sa in self.sas.outbound.values() {
            peers.entry(sa.id.peer).or_default().sending = Some(sa.id.epoch);
        }
        for sa in self.sas.inbound.values() {
            peers.entry(sa.id.peer).or_default().receiving.insert(sa.id.epoch);
        }
        for (peer, keys) in &mut peers {
            keys.traffic = traffic.get(peer).copied().unwrap_or_default();
        }
        peers
    }

    fn stop_sending(&mut self, peer: NodeId) {
        self.handover.stop(peer);
        self.sas.outbound.remove(&peer);
        self.sas.greet.remove(&peer);
    }
}

#[cfg(test)]
mod tests;
