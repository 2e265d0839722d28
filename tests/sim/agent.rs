//! A node's agent: watches one manager, and another when that fails; says that it has the keys.
//!
//! The wire, the manager's side of a watch and [`View`] are the real ones; this stands for the loop
//! of `overlayd`, without its TLS connections and files.

use core::time::Duration;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use overlay_api::{
    convert::known_changes,
    v1::{self, reports_client::ReportsClient, watcher_client::WatcherClient},
};
use overlay_types::{Change, EpochState, NodeId, Revision, Role, View};
use tokio::{task::AbortHandle, time};
use tonic::Status;

use crate::{
    net::{Certificate, Net, SimLinks},
    nodes,
    plant::Plant,
};

/// As `overlayd` waits after a manager failed.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Between two looks at what is to be reported.
const REPORTS: Duration = Duration::from_millis(200);
/// Shortest time between two writes of the view to the disk, as in `overlayd`.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// An agent, running or not. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) id: NodeId,
    plant: Option<Plant>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    view: View,
    /// The view as the disk has it.
    kept: View,
    managers: Vec<NodeId>,
    next: usize,
    batches: u64,
    /// A manager was heard since the start: before that the view may be an old one.
    heard: bool,
    tasks: Vec<AbortHandle>,
}

impl Agent {
    /// Knows from a join which managers there are.
    pub(crate) fn new(id: NodeId, managers: Vec<NodeId>, plant: Option<Plant>) -> Self {
        let (view, kept, tasks) = (View::default(), View::default(), Vec::new());
        let state = State { view, kept, managers, next: 0, batches: 0, heard: false, tasks };
        let agent = Self { id, plant, state: Arc::new(Mutex::new(state)) };
        agent.state().prefer(id);
        agent
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What it knows.
    pub(crate) fn view(&self) -> View {
        self.state().view.clone()
    }

    /// The certificate that the node would get now, as far as it knows for sure, and since when it
    /// has its role.
    pub(crate) fn certificate(&self) -> Option<(Certificate, Revision)> {
        let state = self.state();
        let node = state.view.nodes().get(&self.id).filter(|_| state.heard)?;
        let certificate = Certificate { role: node.role, as_of: state.view.revision() };
        Some((certificate, node.role_since))
    }

    /// Runs on what its disk holds, in the life that its host has begun.
    pub(crate) fn start(&self, net: &Net) {
        let links = net.links(self.id);
        let watch = tokio::spawn(self.clone().watch(links.clone()));
        let report = tokio::spawn(self.clone().report(links));
        let keep = tokio::spawn(self.clone().keep());
        let mut state = self.state();
        state.view = state.kept.clone();
        state.heard = false;
        state.tasks = [watch, report, keep].map(|task| task.abort_handle()).into();
    }

    pub(crate) fn crash(&self) {
        self.state().tasks.drain(..).for_each(|task| task.abort());
    }

    async fn watch(self, links: SimLinks) {
        loop {
            let _ = self.follow(&links).await;
            if self.plant == Some(Plant::ForgetfulWorkers) {
                self.state().view = View::default();
            }
            self.state().next += 1;
            time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn follow(&self, links: &SimLinks) -> Result<(), Status> {
        let (manager, from_revision) = {
            let state = self.state();
            (state.managers[state.next % state.managers.len()], state.view.revision().get())
        };
        let mut client = WatcherClient::new(links.to(manager));
        let node = match self.plant {
            Some(Plant::StolenCertificates) => nodes::manager(0).to_string(),
            _ => self.id.to_string(),
        };
        let request = v1::WatchRequest { node, from_revision };
        let mut stream = client.watch(request).await?.into_inner();
        let (mut pending, mut snapshot) = (Vec::new(), false);
        while let Some(message) = stream.message().await? {
            if message.snapshot {
                pending.clear();
                snapshot = true;
            }
            let revision = Revision::new(message.revision);
            if revision < self.state().view.revision() {
                return Err(Status::unavailable("the manager lags"));
            }
            let changes = known_changes(message.changes);
            pending.extend(changes.map_err(|error| Status::internal(error.to_string()))?);
            if !message.more {
                self.take(revision, snapshot, std::mem::take(&mut pending));
                snapshot = false;
            }
        }
        Ok(())
    }

    fn take(&self, revision: Revision, snapshot: bool, mut changes: Vec<Change>) {
        let mut state = self.state();
        state.batches += 1;
        state.heard = true;
        if self.plant == Some(Plant::LostBatches) && state.batches.is_multiple_of(7) && !snapshot {
            changes.clear();
        }
        if snapshot {
            let objects = changes.into_iter().filter_map(|change| match change {
                Change::Put(object) => Some(object),
                Change::Delete(_) => None,
            });
            state.view = View::from_snapshot(revision, objects);
        } else {
            state.view.apply(revision, changes);
        }
        let managers = state.view.nodes().values().filter(|node| node.role == Role::Manager);
        let managers: BTreeSet<_> = managers.map(|node| node.id).collect();
        if !managers.is_empty() && managers != state.managers.iter().copied().collect() {
            state.managers = managers.into_iter().collect();
            state.prefer(self.id);
        }
    }

    async fn keep(self) {
        loop {
            time::sleep(KEEP_INTERVAL).await;
            let mut state = self.state();
            state.kept = state.view.clone();
        }
    }

    /// Publishes this node's key of each epoch, then that it is ready for it.
    async fn report(self, links: SimLinks) {
        loop {
            time::sleep(REPORTS).await;
            if self.plant == Some(Plant::MuteWorkers) {
                continue;
            }
            let (manager, due) = {
                let state = self.state();
                (state.managers[state.next % state.managers.len()], state.due(self.id))
            };
            let mut client = ReportsClient::new(links.to(manager));
            for (epoch, public) in due {
                let (node, known) = (self.id.to_string(), public.is_some());
                let public = public.unwrap_or_else(rand::random).to_vec();
                // What does not get through is due again.
                let _ = if known {
                    let request = v1::ReportReadyRequest { node, epoch, public };
                    client.report_ready(request).await.map(drop)
                } else {
                    let request = v1::PublishKeyRequest { node, epoch, public };
                    client.publish_key(request).await.map(drop)
                };
            }
        }
    }
}

impl State {
    /// Asks the node's own manager first; the others are spread over the nodes.
    fn prefer(&mut self, own: NodeId) {
        let start = own.to_u128() % self.managers.len() as u128;
        self.managers.rotate_left(start as usize);
        self.managers.sort_by_key(|id| *id != own);
        self.next = 0;
    }

    /// Epochs that this node has to publish a key for, or with a key, to say that it is ready for.
    fn due(&self, own: NodeId) -> Vec<(u64, Option<[u8; 32]>)> {
        let waiting = self.view.key_epochs().values().filter(|e| e.state != EpochState::Retired);
        let due =
            waiting.filter_map(|epoch| match self.view.node_keys().get(&(epoch.epoch, own)) {
                None => Some((epoch.epoch.get(), None)),
                Some(key) if !key.ready => Some((epoch.epoch.get(), Some(key.public))),
                Some(_) => None,
            });
        due.collect()
    }
}
