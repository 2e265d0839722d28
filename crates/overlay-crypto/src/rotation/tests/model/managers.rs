//! The managers: what becomes of requests, and the steps that they take by themselves.

use super::*;

impl World {
    pub(super) fn put_epoch(&mut self, status: EpochStatus) {
        self.epochs.insert(status.epoch, status);
        self.log.push((self.now, Entry::Epoch(status)));
    }

    pub(super) fn put_key(&mut self, key: NodeKeyStatus) {
        self.keys.insert((key.node, key.epoch), key);
        self.log.push((self.now, Entry::Key(key)));
    }

    pub(super) fn newest(&self) -> EpochStatus {
        *self.epochs.last_key_value().expect("one epoch is always active").1
    }

    pub(super) fn apply(&mut self, request: &Request) {
        match request {
            Request::Publish(key) if self.accepts(key.epoch, EpochState::Preparing) => {
                let known = self.keys.get(&(key.node, key.epoch));
                if known.is_none_or(|known| known.public != key.public) {
                    self.put_key(*key);
                }
            }
            Request::Ready(ready) if self.accepts(ready.epoch, EpochState::Ready) => {
                let known = self.keys.get(&(ready.node, ready.epoch));
                if known.is_some_and(|known| known.public == ready.public && !known.ready) {
                    self.put_key(*ready);
                }
            }
            _ => {}
        }
    }

    pub(super) fn accepts(&self, epoch: Epoch, from: EpochState) -> bool {
        let state = self.epochs.get(&epoch).map(|status| status.state);
        state.is_some_and(|state| (from..EpochState::Retired).contains(&state))
    }

    pub(super) fn advance(&mut self, force: bool) {
        let newest = self.newest();
        let key_of = |who: usize| self.keys.get(&(self.nodes[who].id, newest.epoch));
        let missing: Vec<usize> = match newest.state {
            EpochState::Preparing => {
                (0..self.nodes.len()).filter(|who| key_of(*who).is_none()).collect()
            }
            EpochState::Ready => (0..self.nodes.len())
                .filter(|who| key_of(*who).is_none_or(|key| !key.ready))
                .collect(),
            EpochState::Active | EpochState::Retired => return self.remove_drained(),
        };
        // As the managers do: two epochs are not retired at once.
        let retired = |status: &EpochStatus| status.state == EpochState::Retired;
        if (!missing.is_empty() && !force) || self.epochs.values().any(retired) {
            return self.remove_drained();
        }
        if newest.state == EpochState::Preparing {
            return self.put_epoch(EpochStatus { state: EpochState::Ready, ..newest });
        }
        let previous: Vec<_> = self.epochs.values().filter(|s| **s != newest).copied().collect();
        self.put_epoch(EpochStatus { state: EpochState::Active, ..newest });
        for status in previous {
            let drained = Some(self.now + DRAIN);
            self.put_epoch(EpochStatus { state: EpochState::Retired, drained, ..status });
        }
    }

    pub(super) fn remove_drained(&mut self) {
        let drained =
            |status: &EpochStatus| status.drained.is_some_and(|at| at + MAX_LAG <= self.now);
        let removed = self.epochs.values().find(|status| drained(status)).map(|s| s.epoch);
        if let Some(epoch) = removed {
            self.epochs.remove(&epoch);
            self.keys.retain(|(_, of), _| *of != epoch);
            self.log.push((self.now, Entry::Removed(epoch)));
        }
    }
}
