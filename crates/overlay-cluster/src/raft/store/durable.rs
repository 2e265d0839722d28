//! How much of the log is on the disk, for those who have to wait for it.

use std::sync::Arc;

use tokio::sync::watch;

use super::error::StoreError;

/// What the writer has done.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Entries with a smaller index are on the disk, or in a snapshot there.
    below: u64,
    /// Entries below this index may have been counted by raft before they were on the disk.
    ahead: u64,
    /// Why nothing is written any more.
    failed: Option<Arc<StoreError>>,
}

/// The end of those who write.
#[derive(Clone, Debug)]
pub(super) struct Mark(Arc<watch::Sender<Progress>>);

/// Follows how much of the log is on the disk of this manager. Clones follow the same log.
#[derive(Clone, Debug)]
pub struct Durable(watch::Receiver<Progress>);

impl Mark {
    /// Entries below `below` are on the disk.
    pub(super) fn new(below: u64) -> Self {
        Self(Arc::new(watch::Sender::new(Progress { below, ahead: 0, failed: None })))
    }

    /// Raft counts the entries up to `index`, which are on their way to the disk.
    pub(super) fn ran_ahead(&self, index: u64) {
        self.0.send_if_modified(|progress| {
            progress.ahead = progress.ahead.max(index + 1);
            // Nobody waits for this.
            false
        });
    }

    pub(super) fn follow(&self) -> Durable {
        Durable(self.0.subscribe())
    }

    /// Entries up to `index` are on the disk, or in a snapshot there.
    pub(super) fn written(&self, index: u64) {
        self.0.send_if_modified(|progress| {
            let more = progress.below <= index;
            progress.below = progress.below.max(index + 1);
            more
        });
    }

    /// Entries from `index` on are no longer in the log.
    pub(super) fn truncated(&self, index: u64) {
        self.0.send_modify(|progress| {
            progress.below = progress.below.min(index);
            progress.ahead = progress.ahead.min(index);
        });
    }

    /// Nothing is written after this.
    pub(super) fn failed(&self, error: Arc<StoreError>) {
        self.0.send_modify(|progress| progress.failed = Some(error));
    }
}

impl Durable {
    /// Entries below this index are on the disk.
    pub(super) fn below(&self) -> u64 {
        self.0.borrow().below
    }

    /// Why nothing is written any more, if that is so.
    pub fn failure(&self) -> Option<Arc<StoreError>> {
        self.0.borrow().failed.clone()
    }

    /// Waits until the entry at `index`, which raft counts, is on the disk. An error says why it
    /// never will be.
    pub async fn reach(&self, index: u64) -> Result<(), Arc<StoreError>> {
        if let Some(outcome) = self.0.borrow().outcome(index) {
            return outcome;
        }
        let mut progress = self.0.clone();
        let closed = || Err(Arc::new(StoreError::Closed));
        match progress.wait_for(|progress| progress.outcome(index).is_some()).await {
            Ok(progress) => progress.outcome(index).unwrap_or_else(closed),
            Err(_) => closed(),
        }
    }
}

impl Progress {
    /// Whether the entry at `index` is on the disk; `None` if that is not decided.
    fn outcome(&self, index: u64) -> Option<Result<(), Arc<StoreError>>> {
        match &self.failed {
            _ if self.below > index => Some(Ok(())),
            Some(error) => Some(Err(Arc::clone(error))),
            None => (self.ahead <= index).then_some(Ok(())),
        }
    }
}
