//! What a node holds of one epoch.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use overlay_types::{EpochState, NodeId};

use super::MAX_PEERS;
use crate::{
    agreement::{KeyPair, Pair, PairKeys, PublicKey},
    error::CryptoError,
    esp::{SaId, SaKeys},
};

/// Most public keys of one epoch that are remembered as spent: a peer that restarts every second
/// for 18 hours. At one more, replaced keys are refused until the next epoch.
const MAX_SPENT: usize = 65_536;

/// The key pair of an epoch and what was derived from it. Dropping it zeroizes all of that.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Generation {
    pub(super) state: EpochState,
    pair: KeyPair,
    /// The replicated state shows our key.
    published: bool,
    /// It did so while the epoch was preparing: whoever is ready has our association.
    in_time: bool,
    /// The replicated state shows that we are ready.
    reported: bool,
    publish_at: Instant,
    report_at: Option<Instant>,
    pub(super) stop_at: Option<Instant>,
    pub(super) erase_at: Option<Instant>,
    pub(super) peers: BTreeMap<NodeId, PeerEntry>,
    /// Keys of peers that were replaced or left. Deriving from one again would use its keys again.
    spent: BTreeSet<(NodeId, PublicKey)>,
}

/// What tells whether a peer has the associations of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Evidence {
    /// It published a key; more is not known.
    None,
    /// It reported ready with that key.
    Ready,
    /// An authentic packet of it arrived.
    Heard,
    /// It restarted since, as its key of another epoch shows.
    Doubted,
}

/// One peer in one epoch.
#[cfg_attr(test, derive(Clone))]
pub(super) struct PeerEntry {
    pub(super) public: PublicKey,
    pub(super) inbound: SaId,
    pub(super) outbound: SaId,
    /// Keys of `outbound` until they are handed out, once: whoever seals with them counts from 1,
    /// and a second one who does would repeat nonces.
    pub(super) unused: Option<SaKeys>,
    pub(super) evidence: Evidence,
    /// The key came when the epoch was active already.
    pub(super) late: bool,
}

impl PeerEntry {
    /// The replicated state shows its key again.
    pub(super) fn see_key(&mut self, ready: bool) {
        self.evidence = match (self.evidence, ready) {
            (Evidence::None | Evidence::Doubted, true) => Evidence::Ready,
            (Evidence::Ready, false) => Evidence::None,
            (evidence, _) => evidence,
        };
    }

    /// Whether it can be sent with: its keys are in use, as `current`, or never were.
    pub(super) fn is_usable(&self, current: Option<&SaId>) -> bool {
        self.unused.is_some() || current == Some(&self.outbound)
    }
}

impl Generation {
    pub(super) fn new(pair: KeyPair, state: EpochState, now: Instant) -> Self {
        Self {
            state,
            pair,
            published: false,
            in_time: false,
            reported: false,
            publish_at: now,
            report_at: None,
            stop_at: None,
            erase_at: None,
            peers: BTreeMap::new(),
            spent: BTreeSet::new(),
        }
    }

    /// Derives the keys with a peer's new public key and keeps them; returns what to receive with.
    pub(super) fn add_peer(
        &mut self,
        pair: &Pair,
        public: PublicKey,
        ready: bool,
    ) -> Result<(SaId, SaKeys), CryptoError> {
        if self.peers.len() >= MAX_PEERS {
            return Err(CryptoError::TableFull { what: "peers of an epoch", limit: MAX_PEERS });
        }
        if self.spent.contains(&(pair.peer, public)) {
            return Err(CryptoError::SpentPublicKey { peer: pair.peer, epoch: pair.epoch });
        }
        if self.spent.len() >= MAX_SPENT {
            return Err(CryptoError::TableFull { what: "spent public keys", limit: MAX_SPENT });
        }
        let PairKeys { outbound, inbound } = self.pair.derive(pair, public)?;
        let id = |keys: &SaKeys| SaId { peer: pair.peer, epoch: pair.epoch, spi: keys.spi };
        let entry = PeerEntry {
            public,
            inbound: id(&inbound),
            outbound: id(&outbound),
            unused: Some(outbound),
            evidence: if ready { Evidence::Ready } else { Evidence::None },
            late: self.state >= EpochState::Active,
        };
        self.peers.insert(pair.peer, entry);
        Ok((id(&inbound), inbound))
    }

    /// Forgets a peer, but not that its key was used.
    pub(super) fn remove_peer(&mut self, node: NodeId) -> Option<PeerEntry> {
        let entry = self.peers.remove(&node)?;
        self.spent.insert((node, entry.public));
        Some(entry)
    }

    /// The replicated state shows our key.
    pub(super) fn see_own_key(&mut self, ready: bool, now: Instant) {
        if !self.published {
            self.published = true;
            self.in_time = self.state == EpochState::Preparing;
            self.report_at = Some(now);
        }
        self.reported = ready;
    }

    pub(super) const fn public(&self) -> PublicKey {
        self.pair.public()
    }

    /// The replicated state showed our key at some time.
    pub(super) const fn is_published(&self) -> bool {
        self.published
    }

    /// Whether the peer certainly has the association that we would send with.
    pub(super) fn peer_has(&self, peer: &PeerEntry) -> bool {
        peer.evidence == Evidence::Heard || (peer.evidence == Evidence::Ready && self.in_time)
    }

    pub(super) fn retire(&mut self, drained: Instant, send_margin: Duration) {
        self.state = EpochState::Retired;
        self.erase_at = Some(drained);
        self.stop_at = Some(drained.checked_sub(send_margin).unwrap_or(drained));
    }

    /// Retired, and its time as the preferred one is over.
    pub(super) fn is_stopped(&self) -> bool {
        self.state == EpochState::Retired && self.stop_at.is_none()
    }

    pub(super) fn take_publication(
        &mut self,
        now: Instant,
        retry_at: Instant,
    ) -> Option<PublicKey> {
        if !self.waits_to_publish() || self.publish_at > now {
            return None;
        }
        self.publish_at = retry_at;
        Some(self.pair.public())
    }

    pub(super) fn take_report(&mut self, now: Instant, retry_at: Instant) -> Option<PublicKey> {
        if !self.waits_to_report() || self.report_at.is_some_and(|at| at > now) {
            return None;
        }
        self.report_at = Some(retry_at);
        Some(self.pair.public())
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        let publish_at = self.waits_to_publish().then_some(self.publish_at);
        let report_at = if self.waits_to_report() { self.report_at } else { None };
        [publish_at, report_at, self.stop_at, self.erase_at].into_iter().flatten().min()
    }

    fn waits_to_publish(&self) -> bool {
        !self.published && self.state < EpochState::Retired
    }

    fn waits_to_report(&self) -> bool {
        let open = matches!(self.state, EpochState::Ready | EpochState::Active);
        open && self.published && !self.reported
    }
}

#[cfg(test)]
impl Generation {
    /// All that decides what it does; times as `from_now` tells them.
    pub(super) fn hash_from<T: core::hash::Hash>(
        &self,
        from_now: impl Fn(Option<Instant>) -> T,
        hash: &mut impl core::hash::Hasher,
    ) {
        use core::hash::Hash as _;

        (self.state, self.pair.public(), &self.spent).hash(hash);
        (self.published, self.in_time, self.reported).hash(hash);
        from_now(self.waits_to_publish().then_some(self.publish_at)).hash(hash);
        from_now(self.report_at.filter(|_| self.waits_to_report())).hash(hash);
        from_now(self.stop_at).hash(hash);
        from_now(self.erase_at).hash(hash);
        for (peer, entry) in &self.peers {
            (peer, entry.public, entry.inbound, entry.outbound).hash(hash);
            (entry.unused.is_some(), entry.evidence, entry.late).hash(hash);
        }
    }
}
