//! A raft core that the disk failed is started again from its file, until that works.
//!
//! ```text
//!   core runs ── error of the disk ──► pause ──► open the file ──► core runs
//!       ▲                                ▲──── refused ────┘          │
//!       └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! The applied state stays: what is applied was on the disk before. A core that panicked is not
//! started again, because its state may be half applied.

use core::time::Duration;
use std::sync::{Arc, PoisonError, Weak};

use openraft::{RaftMetrics, error::Fatal};
use overlay_types::NodeId;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{ControlError, Inner, raft_core::Core};
use crate::raft::{store::aside, types::Member};

/// Pause before the file is opened again: at first about as long as the last handle to it needs to
/// be closed, at last what an operator who just made room on the disk waits gladly.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A core that ran for this long has recovered: the next failure starts with the first pause.
const STEADY: Duration = Duration::from_secs(30);

type Metrics = watch::Receiver<RaftMetrics<NodeId, Member>>;

/// Watches the core of `manager` until the manager stops.
pub(super) async fn run(manager: Weak<Inner>, mut stop: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(metrics) = manager.upgrade().map(|inner| inner.core().raft.metrics()) else {
            return;
        };
        let began = Instant::now();
        let failed = tokio::select! {
            failed = disk_failed(metrics) => failed,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if !failed {
            return;
        }
        if began.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        loop {
            if tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let Some(inner) = manager.upgrade() else { return };
            if restart(&inner).await {
                break;
            }
        }
    }
}

/// Waits until the core has ended. Says whether for an error of the disk.
async fn disk_failed(mut metrics: Metrics) -> bool {
    let ended = |metrics: &RaftMetrics<NodeId, Member>| metrics.running_state.is_err();
    match metrics.wait_for(ended).await {
        Ok(metrics) => matches!(metrics.running_state, Err(Fatal::StorageError(_))),
        Err(_) => false,
    }
}

/// Puts a new core on the file in place of the one that ended. Says whether that worked.
async fn restart(inner: &Arc<Inner>) -> bool {
    match reopen(inner).await {
        Ok(core) => {
            tracing::info!(node = %inner.node, "raft core runs again");
            inner.core.send_replace(Arc::new(core));
            inner.refused().take();
            true
        }
        // The last core is just closing it.
        Err(ControlError::Store(error)) if error.is_in_use() => false,
        Err(error) => {
            tracing::warn!(%error, "raft core cannot run yet");
            *inner.refused() = Some(error.to_string());
            false
        }
    }
}

async fn reopen(inner: &Arc<Inner>) -> Result<Core, ControlError> {
    let opening = Arc::clone(inner);
    // Every record is read.
    let open = move || (opening.open)(Some(Arc::clone(&opening.replica)));
    let store = aside(open).await.map_err(ControlError::raft)??;
    Core::start(&inner.settings, &inner.core().peers, store).await
}

impl Inner {
    /// Why the file could not be opened again.
    fn refused(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn supervisor(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why this manager takes no part in its cluster for now, if that is so.
    pub(super) fn failure(&self) -> Option<String> {
        self.refused().clone().or_else(|| self.core().failure())
    }
}
