//! Key epochs, nodes' public keys, the gossip ring.

use overlay_types::{
    Change, Epoch, EpochState, GossipKey, GossipKeys, KeyEpoch, NodeId, NodeKey, Object, ObjectKey,
    UnixMillis,
};

use super::{
    Applied, Rejection, Response, State,
    apply::{Context, Outcome},
    kind::Kind,
    rejection::EpochTarget,
};

/// Key epochs at one time: one that is prepared, the active one, and those that drain. More would
/// mean rotations that follow one another faster than nodes can drain.
pub(super) const MAX_EPOCHS: usize = 4;

impl State {
    /// The epoch that nodes send with.
    pub fn active_epoch(&self) -> Option<&KeyEpoch> {
        self.view.key_epochs().values().rev().find(|e| e.state == EpochState::Active)
    }

    /// Number that the next key epoch gets.
    pub fn next_epoch(&self) -> Epoch {
        self.view.key_epochs().keys().next_back().map_or(Epoch::new(1), |last| last.next())
    }

    /// Number that the next gossip key gets.
    pub fn next_gossip_epoch(&self) -> Epoch {
        let keys = self.view.gossip_keys().map_or(&[][..], |ring| &ring.keys);
        keys.iter().map(|key| key.epoch).max().map_or(Epoch::new(1), Epoch::next)
    }

    pub(super) fn publish_node_key(
        &self,
        context: Context,
        (epoch, node): (Epoch, NodeId),
        public: [u8; 32],
    ) -> Outcome {
        self.node(node)?;
        let state = self.epoch(epoch)?.state;
        if state == EpochState::Retired {
            return Err(Rejection::EpochStep { epoch, found: state, wanted: EpochTarget::Keyed });
        }
        if public == [0; 32] {
            let reason = "all zeros is no public key (RFC 7748 §6.1)";
            return Err(Rejection::invalid("public", "0", reason));
        }
        let old = self.view.node_keys().get(&(epoch, node));
        if let Some(old) = old.filter(|old| old.public == public) {
            return Ok(Applied::unchanged(Response::NodeKey(*old)));
        }
        let meta = old.map_or_else(|| context.created(), |old| context.changed(old.meta));
        Ok(put_key(NodeKey { node, epoch, meta, public, ready: false }))
    }

    pub(super) fn report_epoch_ready(
        &self,
        context: Context,
        (epoch, node): (Epoch, NodeId),
        public: [u8; 32],
    ) -> Outcome {
        let state = self.epoch(epoch)?.state;
        let old = self.view.node_keys().get(&(epoch, node));
        let reason = match (state, old) {
            (_, None) => "it published no key",
            // The report outlived its process, or another host has the node's identity.
            (_, Some(old)) if old.public != public => "it has published another key since",
            (EpochState::Preparing, _) => "not all nodes have published their keys",
            (EpochState::Retired, _) => "the epoch is retired",
            (EpochState::Ready | EpochState::Active, Some(old)) if old.ready => {
                return Ok(Applied::unchanged(Response::NodeKey(*old)));
            }
            (EpochState::Ready | EpochState::Active, Some(old)) => {
                let meta = context.changed(old.meta);
                return Ok(put_key(NodeKey { ready: true, meta, ..*old }));
            }
        };
        Err(Rejection::NotReady { node, epoch, reason: reason.into() })
    }

    pub(super) fn start_rotation(
        &self,
        context: Context,
        epoch: Epoch,
        deadline: UnixMillis,
    ) -> Outcome {
        let epochs = self.view.key_epochs();
        let starting = [EpochState::Preparing, EpochState::Ready];
        if let Some(running) = epochs.values().find(|e| starting.contains(&e.state)) {
            let (epoch, state) = (running.epoch, running.state);
            return Err(Rejection::RotationRunning { epoch, state });
        }
        if epochs.len() >= MAX_EPOCHS {
            return Err(Rejection::TooMany { kind: Kind::KeyEpoch, limit: MAX_EPOCHS });
        }
        if epoch != self.next_epoch() {
            return Err(Rejection::EpochNumber { next: self.next_epoch(), given: epoch });
        }
        let state = EpochState::Preparing;
        let epoch = KeyEpoch { epoch, meta: context.created(), state, deadline };
        Ok(Applied::put(Response::Epoch(epoch.clone()), Object::KeyEpoch(epoch)))
    }

    pub(super) fn advance_epoch(
        &self,
        context: Context,
        (epoch, to): (Epoch, EpochState),
        deadline: UnixMillis,
        drained: UnixMillis,
    ) -> Outcome {
        let old = self.epoch(epoch)?;
        match (old.state, to) {
            (EpochState::Preparing, EpochState::Ready)
            | (EpochState::Ready, EpochState::Active) => {}
            (found, to) if found == to => {
                return Ok(Applied::unchanged(Response::Epoch(old.clone())));
            }
            (found, to) => {
                let wanted = EpochTarget::State(to);
                return Err(Rejection::EpochStep { epoch, found, wanted });
            }
        }
        let mut changes = Vec::new();
        if to == EpochState::Active {
            let before = self.view.key_epochs().values().filter(|e| e.state == EpochState::Active);
            changes.extend(before.map(|before| {
                let meta = context.changed(before.meta);
                let state = EpochState::Retired;
                let retired = KeyEpoch { meta, state, deadline: drained, ..before.clone() };
                Change::Put(Object::KeyEpoch(retired))
            }));
        }
        let new = KeyEpoch { epoch, meta: context.changed(old.meta), state: to, deadline };
        changes.push(Change::Put(Object::KeyEpoch(new.clone())));
        Ok(Applied { response: Response::Epoch(new), changes })
    }

    pub(super) fn remove_epoch(&self, epoch: Epoch) -> Outcome {
        let found = self.epoch(epoch)?.state;
        if found != EpochState::Retired {
            return Err(Rejection::EpochStep { epoch, found, wanted: EpochTarget::Removed });
        }
        let nodes = (epoch, NodeId::default())..=(epoch, NodeId::from_u128(u128::MAX));
        let keys = self.view.node_keys().range(nodes);
        let mut changes: Vec<Change> = keys
            .map(|((epoch, node), _)| Change::Delete(ObjectKey::NodeKey(*epoch, *node)))
            .collect();
        changes.push(Change::Delete(ObjectKey::KeyEpoch(epoch)));
        Ok(Applied { response: Response::Done, changes })
    }

    pub(super) fn rotate_gossip_key(
        &self,
        context: Context,
        key: &GossipKey,
        deadline: UnixMillis,
    ) -> Outcome {
        let old = self.gossip()?;
        if let Some(next) = next_key(old) {
            return Err(Rejection::RotationRunning {
                epoch: next.epoch,
                state: EpochState::Preparing,
            });
        }
        if key.epoch != self.next_gossip_epoch() {
            let next = self.next_gossip_epoch();
            return Err(Rejection::EpochNumber { next, given: key.epoch });
        }
        let mut ring = GossipKeys { meta: context.changed(old.meta), deadline, ..old.clone() };
        ring.keys.push(key.clone());
        Ok(Applied::put(Response::GossipKeys, Object::GossipKeys(ring)))
    }

    pub(super) fn advance_gossip_key(
        &self,
        context: Context,
        to: Epoch,
        deadline: UnixMillis,
    ) -> Outcome {
        let old = self.gossip()?;
        if old.current == to {
            return Ok(Applied::unchanged(Response::GossipKeys));
        }
        let Some(next) = next_key(old).filter(|next| next.epoch == to) else {
            let wanted = EpochTarget::CurrentGossipKey;
            return Err(Rejection::EpochStep { epoch: to, found: EpochState::Retired, wanted });
        };
        let mut ring = GossipKeys {
            meta: context.changed(old.meta),
            current: next.epoch,
            keys: old.keys.clone(),
            deadline,
        };
        // What was current stays as the previous key; what was previous goes.
        ring.keys.retain(|key| key.epoch >= old.current);
        Ok(Applied::put(Response::GossipKeys, Object::GossipKeys(ring)))
    }

    /// Brings the next rotations forward, so that they are due at `latest`. Steps of one that is under
    /// way have deadlines of their own.
    pub(super) fn due_by(&self, context: Context, latest: UnixMillis) -> Vec<Object> {
        let last = self.view.key_epochs().values().next_back();
        let epoch = last.filter(|e| e.state == EpochState::Active && e.deadline > latest);
        let epoch = epoch.map(|old| {
            let meta = context.changed(old.meta);
            Object::KeyEpoch(KeyEpoch { meta, deadline: latest, ..old.clone() })
        });
        let ring = self.view.gossip_keys();
        let ring = ring.filter(|r| next_key(r).is_none() && r.deadline > latest);
        let ring = ring.map(|old| {
            let meta = context.changed(old.meta);
            Object::GossipKeys(GossipKeys { meta, deadline: latest, ..old.clone() })
        });
        epoch.into_iter().chain(ring).collect()
    }

    fn epoch(&self, epoch: Epoch) -> Result<&KeyEpoch, Rejection> {
        let found = self.view.key_epochs().get(&epoch);
        found.ok_or_else(|| Rejection::not_found(Kind::KeyEpoch, epoch))
    }

    fn gossip(&self) -> Result<&GossipKeys, Rejection> {
        self.view.gossip_keys().ok_or(Rejection::NoCluster)
    }
}

/// The key that is handed out and not yet in use.
pub(super) fn next_key(ring: &GossipKeys) -> Option<&GossipKey> {
    ring.keys.iter().find(|key| key.epoch > ring.current)
}

fn put_key(key: NodeKey) -> Applied {
    Applied::put(Response::NodeKey(key), Object::NodeKey(key))
}
