//! The watch: keeps the node's view current, from whichever manager answers.

use core::time::Duration;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use overlay_api::{
    convert::known_changes,
    status::{Reason, with_reason},
    v1::{self, watcher_client::WatcherClient},
};
use overlay_cluster::raft::transport::Channel;
use overlay_service::{Directory, SharedDirectory};
use overlay_types::{Change, NodeId, Object, ObjectKey, Revision, View};
use tokio::{sync::watch, time::timeout};
use tonic::{Response, Status, Streaming};

use crate::{backoff::Backoff, disk::Disk, managers::Managers, patience::STEADY};

/// How long a manager may take to say that it serves a watch: three times as long as one looks for a leader
/// and catches up.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);
/// Shortest time between two writes of the view to the disk.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The view of this node, shared by all that read it.
#[derive(Clone, Debug)]
pub(crate) struct Viewer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    view: RwLock<View>,
    names: SharedDirectory,
    directory: Mutex<(Directory, BTreeSet<NodeId>)>,
    revision: watch::Sender<Revision>,
    /// A manager was heard since the start: before that the view may be an old one.
    heard: AtomicBool,
}

impl Viewer {
    pub(crate) fn new(view: View) -> Self {
        let directory = Directory::new(&view);
        Self(Arc::new(Inner {
            revision: watch::Sender::new(view.revision()),
            names: SharedDirectory::new(directory.clone()),
            directory: Mutex::new((directory, BTreeSet::new())),
            view: RwLock::new(view),
            heard: AtomicBool::new(false),
        }))
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.0.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`read`](Self::read), once a manager was heard.
    pub(crate) fn read_heard<T>(&self, look: impl FnOnce(&View) -> T) -> Option<T> {
        self.0.heard.load(Ordering::Acquire).then(|| self.read(look))
    }

    /// Follows the revision of the view.
    pub(crate) fn revision(&self) -> watch::Receiver<Revision> {
        self.0.revision.subscribe()
    }

    /// The names of the view, for name servers.
    pub(crate) fn names(&self) -> SharedDirectory {
        self.0.names.clone()
    }

    /// Has names resolve to nothing on these nodes.
    pub(crate) fn set_dead(&self, nodes: &BTreeSet<NodeId>) {
        let mut guard = self.0.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, dead) = &mut *guard;
        if dead != nodes {
            directory.set_dead(nodes.iter().copied());
            self.0.names.publish(directory.clone());
            dead.clone_from(nodes);
        }
    }

    fn apply(&self, revision: Revision, snapshot: bool, changes: Vec<Change>) {
        let mut guard = self.0.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, dead) = &mut *guard;
        let mut view = self.0.view.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot {
            let objects = changes.into_iter().filter_map(|change| match change {
                Change::Put(object) => Some(object),
                // A snapshot deletes nothing.
                Change::Delete(_) => None,
            });
            *view = View::from_snapshot(revision, objects);
            *directory = Directory::new(&view);
            directory.set_dead(dead.iter().copied());
        } else {
            directory.apply(&changes);
            view.apply(revision, changes);
        }
        self.0.heard.store(true, Ordering::Release);
        drop(view);
        self.0.names.publish(directory.clone());
        drop(guard);
        self.0.revision.send_replace(revision);
    }
}

/// Watches until the task is ended.
pub(crate) async fn run(node: NodeId, managers: Managers, viewer: Viewer) {
    let mut backoff = Backoff::default();
    loop {
        let (mut renewed, mut died) = (managers.renewed(), managers.died());
        let mut asked = false;
        let watched = async {
            let channel = managers.channel().await?;
            asked = true;
            follow((node, channel), &managers, &viewer, &mut backoff).await
        };
        let broken_off = tokio::select! {
            outcome = watched => outcome,
            // Managers end the watch when the certificate that it began with does.
            _ = renewed.changed() => continue,
            _ = died.changed() => continue,
            () = pause(STEADY), if managers.is_patient() => {
                managers.calm();
                continue;
            }
        };
        if let Err(status) = broken_off {
            tracing::debug!(reason = status.message(), "watch broken off; asking another manager");
        }
        managers.failed();
        let draw = rand::random();
        let wait = if asked {
            backoff.one_refused(managers.count(), draw)
        } else {
            backoff.none_answered(draw)
        };
        pause(wait).await;
    }
}

async fn follow(
    (node, channel): (NodeId, Channel),
    managers: &Managers,
    viewer: &Viewer,
    backoff: &mut Backoff,
) -> Result<(), Status> {
    let mut stream = open((node, channel), viewer.read(View::revision), WATCH_PATIENCE).await?;
    let mut pending = Vec::new();
    let mut snapshot = false;
    while let Some(message) = stream.message().await? {
        if message.snapshot {
            pending.clear();
            snapshot = true;
        }
        if Revision::new(message.revision) < viewer.read(View::revision) {
            // What this node knows was replicated; it is the manager that lags.
            let message = "the manager's state is older than this node's view";
            return Err(with_reason(Reason::ManagerLags, message));
        }
        let changes = known_changes(message.changes).map_err(|error| {
            tracing::error!(%error, "a manager's view cannot be read; is this release older?");
            Status::internal(error.to_string())
        })?;
        pending.extend(changes);
        if !message.more {
            backoff.served();
            let changes = std::mem::take(&mut pending);
            let node = |change: &Change| {
                matches!(change, Change::Put(Object::Node(_)) | Change::Delete(ObjectKey::Node(_)))
            };
            let nodes_changed = snapshot || changes.iter().any(node);
            viewer.apply(Revision::new(message.revision), snapshot, changes);
            if nodes_changed {
                viewer.read(|view| managers.learn(view));
            }
            snapshot = false;
        }
    }
    Ok(())
}

/// Opens a watch. What is told of changes may take as long as nothing changes; the answer to this may not.
async fn open(
    (node, channel): (NodeId, Channel),
    from: Revision,
    patience: Duration,
) -> Result<Streaming<v1::WatchResponse>, Status> {
    let request = v1::WatchRequest { node: node.to_string(), from_revision: from.get() };
    let mut client = WatcherClient::new(channel);
    match timeout(patience, client.watch(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => {
            Err(Status::deadline_exceeded("the manager does not say whether it serves a watch"))
        }
    }
}

/// Keeps the view on disk as it changes. What the disk refuses is tried again until it is kept.
pub(crate) async fn keep(disk: Disk, viewer: Viewer) {
    let mut revision = viewer.revision();
    let mut failing = false;
    while failing || revision.changed().await.is_ok() {
        let (disk, viewer) = (disk.clone(), viewer.clone());
        let kept = tokio::task::spawn_blocking(move || disk.keep_view(|| viewer.read(View::clone)));
        match kept.await {
            Ok(Err(error)) if !failing => {
                tracing::error!(%error, "the view is not kept; a start would begin from an old one");
                failing = true;
            }
            Ok(Ok(())) if failing => {
                tracing::info!("the view is kept again");
                failing = false;
            }
            _ => {}
        }
        pause(KEEP_INTERVAL).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that paces retries and disk writes")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
    use core::future::pending;

    use tonic::{Code, body::Body, codegen::http};

    use super::*;

    #[tokio::test]
    async fn o03_a_manager_that_never_answers_a_watch_is_left() {
        let silent = |_: http::Request<Body>| pending::<Result<http::Response<Body>, Status>>();
        let channel = Channel::new(tower::service_fn(silent));
        let left = open((NodeId::from_u128(1), channel), Revision::ZERO, Duration::ZERO).await;
        assert_eq!(left.unwrap_err().code(), Code::DeadlineExceeded);
    }
}
