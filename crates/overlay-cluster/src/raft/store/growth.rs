//! How much log there is behind the last snapshot, and what that one took.

use core::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Bytes of commands behind a snapshot, after which the next one is due, however few entries they
/// are in: about 100 000 writes, which a manager that restarts applies in a second.
const DUE_AFTER: usize = 16 << 20;

/// Grows as commands are applied, and shrinks with a snapshot.
#[derive(Debug, Default)]
pub struct Growth {
    bytes: AtomicUsize,
    due: Notify,
    last: Mutex<Made>,
}

/// A snapshot that was made here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Its size.
    pub bytes: u64,
    /// From the look at the state until it was on the disk.
    pub time: Duration,
}

impl Growth {
    /// Commands of so many bytes were applied.
    pub(super) fn grow(&self, bytes: usize) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= DUE_AFTER {
            self.due.notify_one();
        }
    }

    /// A snapshot begins, which includes all that was applied.
    pub(super) fn begin(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// A snapshot is on the disk.
    pub(super) fn made(&self, made: Made) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = made;
    }

    /// Waits until a snapshot is due.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// The last snapshot that was made since the start.
    pub fn last(&self) -> Made {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
