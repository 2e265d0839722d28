//! The loop that makes the dataplane what it should be: from the view, who is absent, how endpoints
//! are plugged in, and the keys. Runs on a thread of its own, because a dataplane may block.
//!
//! - this file: the handle to it, and what it tells
//! - [`shared`]: what it works with, and what it makes of the view
//! - [`worker`]: the loop

mod shared;
mod worker;

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use overlay_dataplane::sa::SaSet;
use overlay_types::{DataplaneKind, EndpointId, Epoch, NodeId, Revision};
use tokio::sync::{mpsc as async_mpsc, watch};

pub(crate) use self::shared::Shared;
use self::worker::Worker;
use crate::{
    keys::{Keys, PeerKeys, Report},
    rules::RulesWatch,
};

/// Reports that wait to be sent. They are repeated until the state shows them, so one that finds
/// no room is not lost.
const REPORTS: usize = 64;

/// What the loop has done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Revision of the view that the dataplane was last built from.
    pub(crate) revision: Revision,
    /// What failed in the last turn, by endpoint.
    pub(crate) failures: BTreeMap<EndpointId, String>,
    /// What endpoints that are plugged in lack, and what to do about it.
    pub(crate) lacks: Vec<String>,
    /// Endpoints that are plugged in.
    pub(crate) plugged: BTreeSet<EndpointId>,
    /// Endpoints that are to be detached: their namespaces ended.
    pub(crate) released: BTreeSet<EndpointId>,
    /// Epochs whose keys this node holds.
    pub(crate) epochs: BTreeSet<Epoch>,
    /// What the last turn took that read nothing.
    pub(crate) change: Duration,
    /// What the last turn took that read everything.
    pub(crate) comparison: Duration,
    /// What there is of keys with each peer.
    pub(crate) peers: BTreeMap<NodeId, PeerKeys>,
}

/// A handle to the running loop. The loop ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Reconciler {
    wake: mpsc::SyncSender<Wake>,
    progress: watch::Receiver<Progress>,
    /// On a node of the kernel dataplane.
    rules: Option<RulesWatch>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
enum Wake {
    Look,
    /// Tell what associations there are, with their keys.
    Show(mpsc::SyncSender<SaSet>),
    /// Remove everything, say whether that worked, and stop.
    Clear(mpsc::SyncSender<Result<(), overlay_dataplane::Error>>),
    Stop,
}

impl Reconciler {
    /// Starts the loop.
    pub(crate) fn start(
        shared: Arc<Shared>,
        keys: Keys,
    ) -> std::io::Result<(Self, async_mpsc::Receiver<Report>)> {
        // One wake-up that waits is enough: the loop looks at everything.
        let (wake, wakes) = mpsc::sync_channel(1);
        let (publish, progress) = watch::channel(Progress::default());
        let (reports, receiver) = async_mpsc::channel(REPORTS);
        let thread = thread::Builder::new().name("overlay-reconcile".to_owned());
        let stale = Arc::new(AtomicBool::new(true));
        let rules = watch_rules(shared.carriers.plain, wake.clone(), Arc::clone(&stale));
        let worker = Worker::new(shared, keys, publish, reports, stale);
        let thread = thread.spawn(move || worker.run(&wakes))?;
        Ok((Self { wake, progress, rules, thread: Some(thread) }, receiver))
    }

    /// Something changed.
    pub(crate) fn wake(&self) {
        // A full channel means that it will look anyway.
        let _ = self.wake.try_send(Wake::Look);
    }

    /// The associations of this node, with their keys; `None` when the loop ended. Blocks for the
    /// rest of a turn at most.
    pub(crate) fn sas(&self) -> Option<SaSet> {
        let (answer, wait) = mpsc::sync_channel(1);
        self.wake.send(Wake::Show(answer)).ok()?;
        wait.recv().ok()
    }

    /// Removes everything from the dataplane, which nobody changes after that. Says what remains, and
    /// why. Blocks until it is done.
    pub(crate) fn clear(&self) -> Result<(), overlay_dataplane::Error> {
        let (answer, wait) = mpsc::sync_channel(1);
        // A loop that ended has removed it, or left it to the next start.
        self.wake.send(Wake::Clear(answer)).map_err(|_| overlay_dataplane::Error::Stopped)?;
        wait.recv().map_err(|_| overlay_dataplane::Error::Stopped)?
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }
}

impl Drop for Reconciler {
    fn drop(&mut self) {
        self.rules = None;
        // Blocks for the rest of a turn at most.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Without it, what others do to rules is put back by the next periodic comparison.
fn watch_rules(
    kind: DataplaneKind,
    wake: mpsc::SyncSender<Wake>,
    stale: Arc<AtomicBool>,
) -> Option<RulesWatch> {
    if kind == DataplaneKind::User {
        return None;
    }
    let watch = RulesWatch::start(move || {
        stale.store(true, Ordering::Release);
        drop(wake.try_send(Wake::Look));
    });
    watch
        .inspect_err(|error| tracing::warn!(%error, "changes of the host's rules are not heard"))
        .ok()
}
