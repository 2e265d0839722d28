//! The loop itself: one look at everything, again and again.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock for the key rotation")]

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use overlay_cluster::control;
use overlay_dataplane::{
    Dataplane, Desired, Observed, Op, desired::Network, diff, sa::PeerTraffic,
};
use overlay_types::{EndpointId, NetworkId, NodeId};
use tokio::sync::{mpsc as async_mpsc, watch};

use super::{
    Progress, Wake,
    shared::{Published, Shared, Wanted},
};
use crate::{
    adopt,
    clock::ClockWatch,
    dataplane::{NodeDataplane, remove_all},
    keys::{Keys, Report},
    mesh_endpoint, resolvers,
    vanished::Vanished,
};

/// Longest time between two full comparisons: what was changed by hand is put back within it.
const FULL_COMPARISON: Duration = Duration::from_secs(2);

/// What the loop keeps from one turn to the next.
pub(super) struct Worker {
    shared: Arc<Shared>,
    keys: Keys,
    progress: watch::Sender<Progress>,
    reports: async_mpsc::Sender<Report>,
    vanished: Vanished,
    /// What the last turn made of the dataplane, unless something was refused.
    done: Observed,
    /// What gateway and mesh were last made to be.
    published: Published,
    /// What endpoints go without of the way out.
    gateway_lacks: Vec<String>,
    /// And of the mesh.
    mesh_lacks: Vec<String>,
    /// The last turn left something for when a manager is heard.
    spared: bool,
    /// What was refused in the last turn, and logged.
    told: BTreeSet<String>,
    /// Something was refused or done by others: what is known may not be what there is.
    stale: Arc<AtomicBool>,
    /// When all was last read.
    read_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        keys: Keys,
        progress: watch::Sender<Progress>,
        reports: async_mpsc::Sender<Report>,
        stale: Arc<AtomicBool>,
    ) -> Self {
        Self {
            shared,
            keys,
            progress,
            reports,
            vanished: Vanished::default(),
            done: Observed::default(),
            published: Published::default(),
            gateway_lacks: Vec::new(),
            mesh_lacks: Vec::new(),
            spared: false,
            told: BTreeSet::new(),
            stale,
            read_at: None,
        }
    }

    /// Turns whenever it is woken, until it is stopped.
    pub(super) fn run(mut self, wakes: &mpsc::Receiver<Wake>) {
        let mut clock = ClockWatch::default();
        loop {
            if let Some(jump) = clock.look(control::now(), Instant::now()) {
                tracing::warn!(%jump, "the time of day jumped; certificates and key rotation go by it");
            }
            let wait = self.turn();
            match wakes.recv_timeout(wait) {
                Ok(Wake::Look) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                // Whoever asked waits.
                Ok(Wake::Show(answer)) => drop(answer.send(self.keys.sas().clone())),
                Ok(Wake::Clear(answer)) => {
                    let networks = remove_all(&mut *self.shared.dataplane()).map(drop);
                    let gateway = self.shared.gateway().clear();
                    let mesh = self.shared.mesh().clear(&self.published.plugged);
                    // Whoever asked waits.
                    let _ = answer.send(networks.and(gateway).and(mesh));
                    return;
                }
                Ok(Wake::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Has the keys know who runs, and what the dataplane was heard and used for; returns what it carried.
    fn notice(&mut self, shared: &Shared, now: Instant) -> BTreeMap<NodeId, PeerTraffic> {
        self.keys.see(&shared.running.lock().unwrap_or_else(PoisonError::into_inner), now);
        let dataplane = shared.dataplane();
        let (came, used) = dataplane.noticed();
        self.keys.notice(came, used);
        self.keys.succeed(dataplane.predecessors());
        dataplane.traffic()
    }

    /// One look at everything. Returns when to look again.
    fn turn(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        let now = Instant::now();
        let traffic = self.notice(&shared, now);
        let (due, wait) = shared.viewer.read(|view| {
            self.keys.follow(view, control::now(), now);
            self.keys.step(view, now)
        });
        shared.prune_ports();
        let mut ports = shared.ports.all();
        let (gone, released) = self.vanished.look(&mut ports, now);
        // Before the view is read: one that comes meanwhile is not what is compared.
        let heard = shared.viewer.read_heard(|_| ()).is_some();
        let Wanted { revision, desired, published } = shared.wanted(&self.keys, ports);
        let reads = self.is_to_read(now, heard);
        let mut dataplane = shared.dataplane();
        let observed =
            if reads { dataplane.observe() } else { Ok(core::mem::take(&mut self.done)) };
        let mut refused = match observed {
            Ok(observed) => {
                let ops = self.changes(&desired, &observed, heard);
                self.apply(&mut dataplane, ops)
            }
            Err(error) => {
                tracing::error!(%error, "the dataplane cannot be read");
                self.stale.store(true, Ordering::Release);
                return FULL_COMPARISON;
            }
        };
        drop(dataplane);
        // Whose operation was refused by what is known is looked at as it is, at once.
        let again = !reads && !self.told.is_empty();
        if reads || published != self.published {
            self.publish(published, (reads, heard), now, &mut refused);
        }
        if self.spared || !refused.endpoints.is_empty() || !self.told.is_empty() {
            self.stale.store(true, Ordering::Release);
        }
        let seats = shared.viewer.read(|view| resolvers::seats(view, &desired));
        let look_at_names = shared.resolvers.follow(&seats, now);
        for id in gone {
            let reason = "its network namespace has ended";
            refused.endpoints.entry(id).or_insert_with(|| reason.to_owned());
        }
        let locals = desired.networks.values().flat_map(|network| network.locals.keys()).copied();
        let place = shared.viewer.read(|view| mesh_endpoint::of(view, shared.node).map(|e| e.id));
        let locals = locals.filter(|id| Some(*id) != place);
        let plugged = locals.filter(|id| !refused.endpoints.contains_key(id)).collect();
        self.done = desired.into();
        self.progress.send_modify(|progress| {
            progress.revision = revision;
            progress.failures = refused.endpoints;
            progress.lacks = [&self.gateway_lacks[..], &self.mesh_lacks].concat();
            (progress.plugged, progress.released) = (plugged, released);
            progress.epochs = self.keys.epochs().collect();
            *(if reads { &mut progress.comparison } else { &mut progress.change }) = now.elapsed();
            progress.peers = self.keys.peers(&traffic);
        });
        for report in due {
            if refused.receive && matches!(report, Report::Ready { .. }) {
                // Peers would send what cannot be opened here.
                continue;
            }
            // No room: it is repeated.
            let _ = self.reports.try_send(report);
        }
        let due = self.read_at.map_or(now, |read| read + FULL_COMPARISON);
        let full = if again { Duration::ZERO } else { due.saturating_duration_since(now) };
        wait.unwrap_or(full).min(look_at_names).min(full)
    }

    /// What failed before is in a turn that reads.
    fn publish(
        &mut self,
        published: Published,
        (reads, heard): (bool, bool),
        now: Instant,
        refused: &mut Refused,
    ) {
        let Published { uplinks, mesh, plugged } = &published;
        let mut failures = BTreeMap::new();
        if reads || *uplinks != self.published.uplinks {
            let by_gateway = self.shared.gateway().turn(uplinks, heard, reads);
            (failures, self.gateway_lacks) = (by_gateway.failures, by_gateway.lacks);
        }
        if reads || *mesh != self.published.mesh {
            let gate = mesh.as_ref().and_then(|mesh| self.shared.take_memory_port(mesh.endpoint));
            let by_mesh = self.shared.mesh().turn(mesh.as_ref(), plugged, gate, heard, now);
            for (endpoint, reason) in by_mesh.failures {
                failures.entry(endpoint).or_insert(reason);
            }
            self.mesh_lacks = by_mesh.lacks;
        }
        for (endpoint, reason) in failures {
            refused.endpoints.entry(endpoint).or_insert(reason);
        }
        self.published = published;
    }

    /// Whether this turn reads the dataplane. Between two full comparisons, what was last made of it is
    /// what there is, unless something was refused or others changed rules: so a change costs what it is
    /// about, and not what there is.
    fn is_to_read(&mut self, now: Instant, heard: bool) -> bool {
        let stale = self.stale.swap(false, Ordering::Acquire);
        let fresh = self.read_at.is_some_and(|read| now < read + FULL_COMPARISON);
        let reads = stale || !fresh || !heard;
        if reads {
            self.read_at = Some(now);
        }
        reads
    }

    fn changes(&mut self, desired: &Desired, observed: &Observed, heard: bool) -> Vec<Op> {
        let mut ops = diff(desired, observed);
        let count = ops.len();
        if !heard {
            adopt::spare(&mut ops, desired, observed);
        }
        let was_spared = core::mem::replace(&mut self.spared, ops.len() < count);
        let quiet = !was_spared && self.told.is_empty();
        if quiet && !ops.is_empty() && self.done.networks == desired.networks {
            let differ =
                |(id, network): &(&NetworkId, &Network)| observed.networks.get(id) != Some(network);
            let networks: Vec<_> = desired.networks.iter().filter(differ).map(|n| n.0).collect();
            if !networks.is_empty() {
                tracing::warn!(?networks, "somebody changed the dataplane; it is put back");
            }
        }
        ops
    }

    fn apply(&mut self, dataplane: &mut NodeDataplane, ops: Vec<Op>) -> Refused {
        let subjects: Vec<Subject> = ops.iter().map(subject).collect();
        let mut refused = Refused::default();
        let mut told = BTreeSet::new();
        for (subject, result) in subjects.into_iter().zip(dataplane.apply(ops)) {
            let Err(error) = result else { continue };
            let text = format!("{subject:?}: {error}");
            if !self.told.contains(&text) {
                tracing::error!(%error, ?subject, "the dataplane refuses a change");
            }
            told.insert(text);
            match subject {
                Subject::Endpoint(endpoint) => {
                    refused.endpoints.insert(endpoint, error.to_string());
                }
                Subject::Receive => refused.receive = true,
                Subject::Other => {}
            }
        }
        self.told = told;
        refused
    }
}

/// What the dataplane refused in one turn.
#[derive(Default)]
struct Refused {
    /// Why an endpoint was not plugged in.
    endpoints: BTreeMap<EndpointId, String>,
    /// Whether a receive association is missing.
    receive: bool,
}

/// What an operation that was refused means to others.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Endpoint(EndpointId),
    Receive,
    Other,
}

fn subject(op: &Op) -> Subject {
    match op {
        Op::PutLocal(_, endpoint, _) => Subject::Endpoint(*endpoint),
        Op::AddInboundSa(_) => Subject::Receive,
        _ => Subject::Other,
    }
}
