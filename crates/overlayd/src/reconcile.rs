//! The loop that makes the dataplane what it should be: from the view, who is dead, how endpoints
//! are plugged in, and the keys. Runs on a thread of its own, because a dataplane may block.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock for the key rotation")]

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use overlay_cluster::control;
use overlay_dataplane::{
    Dataplane, Desired, Observed, Op,
    desired::{self, Local, Mesh, Network, PortKind, Uplinks},
    diff,
    kernel::Tally,
    sa::{PeerTraffic, SaSet},
    user::{
        engine::{Counters, DropReason},
        ports::MemoryPort,
    },
};
use overlay_types::{
    DataplaneKind, EndpointId, Epoch, Network as ReplicatedNetwork, NetworkId, NodeId, PortSpec,
    Revision, View,
};
use tokio::sync::{mpsc as async_mpsc, watch};

use crate::{
    adopt,
    agent::Viewer,
    clock::ClockWatch,
    dataplane::{Carriers, NodeDataplane, NodeGateway, NodeMesh, remove_all},
    keys::{Keys, PeerKeys, Report},
    mesh_endpoint,
    ports::{Port, Ports},
    resolvers::{self, Resolvers},
    rules::RulesWatch,
    vanished::Vanished,
};

/// Longest time between two full comparisons: what was changed by hand is put back within it.
const FULL_COMPARISON: Duration = Duration::from_secs(2);
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
    pub(crate) lacks: BTreeMap<EndpointId, String>,
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

/// What the loop works with, shared with those that change it.
pub(crate) struct Shared {
    pub(crate) viewer: Viewer,
    pub(crate) node: NodeId,
    pub(crate) carriers: Carriers,
    underlay_mtu: AtomicU16,
    pub(crate) ports: Ports,
    pub(crate) resolvers: Resolvers,
    pub(crate) dead: Mutex<BTreeSet<NodeId>>,
    /// Nodes that are known to run; of the others that are not dead nothing is known.
    pub(crate) running: Mutex<BTreeSet<NodeId>>,
    /// Those of the switch, to be read while a turn has the dataplane.
    pub(crate) counters: Arc<Counters>,
    dataplane: Mutex<NodeDataplane>,
    gateway: Mutex<NodeGateway>,
    mesh: Mutex<NodeMesh>,
    /// What the kernel dropped, on a node of its dataplane.
    tally: Option<Mutex<Tally>>,
}

/// What a turn makes.
struct Wanted {
    revision: Revision,
    desired: Desired,
    published: Published,
}

/// What is beside the dataplane.
#[derive(Default, PartialEq, Eq)]
struct Published {
    uplinks: Uplinks,
    mesh: Option<Mesh>,
    /// Endpoints of users, and how they are plugged in.
    plugged: BTreeMap<EndpointId, PortKind>,
}

impl Shared {
    pub(crate) fn new(
        viewer: Viewer,
        node: NodeId,
        carriers: Carriers,
        underlay_mtu: u16,
        ports: Ports,
        resolvers: Resolvers,
        (dataplane, gateway, mesh, tally): (NodeDataplane, NodeGateway, NodeMesh, Option<Tally>),
    ) -> Self {
        Self {
            viewer,
            node,
            carriers,
            underlay_mtu: AtomicU16::new(underlay_mtu),
            ports,
            resolvers,
            dead: Mutex::default(),
            running: Mutex::default(),
            counters: Arc::clone(dataplane.user().switch().counters()),
            dataplane: Mutex::new(dataplane),
            gateway: Mutex::new(gateway),
            mesh: Mutex::new(mesh),
            tally: tally.map(Mutex::new),
        }
    }

    pub(crate) fn dataplane(&self) -> MutexGuard<'_, NodeDataplane> {
        self.dataplane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gateway(&self) -> MutexGuard<'_, NodeGateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mesh(&self) -> MutexGuard<'_, NodeMesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_memory_port(&self, endpoint: EndpointId) -> Option<MemoryPort> {
        self.dataplane().user_mut().take_memory_port(endpoint)
    }

    /// Why this node cannot carry a network, or has no such ports on it, if that is so.
    pub(crate) fn refusal(&self, port: &Port, encrypted: bool) -> Option<String> {
        let esp = |view: &View| view.cluster().map(|cluster| cluster.esp);
        let esp = self.viewer.read(esp).unwrap_or_default();
        if encrypted && !self.carriers.carry(esp) {
            return Some(
                "ESP of this cluster travels as IP protocol 50, for which this node lacks CAP_NET_RAW; \
                 start overlayd with it"
                    .to_owned(),
            );
        }
        let kernel = self.carriers.of(encrypted) == DataplaneKind::Kernel;
        (kernel && *port == Port::Memory).then(|| {
            "interface \"\": the kernel carries this network on this node, and has no ports in memory; \
             name an interface, or start the node with --dataplane user"
                .to_owned()
        })
    }

    /// Why this node cannot publish these ports of an endpoint that is plugged in like this, if it cannot.
    pub(crate) fn publish_refusal(
        &self,
        port: &Port,
        published: &[PortSpec],
        network: &ReplicatedNetwork,
    ) -> Option<String> {
        let kind = port.clone().kind(self.carriers.of(network.spec.encrypted));
        self.gateway().refusal(published, network, &kind)
    }

    /// How often something was dropped, by the switch and by the kernel.
    pub(crate) async fn drops(self: &Arc<Self>) -> BTreeMap<DropReason, u64> {
        let mut drops: BTreeMap<_, _> = self.counters.drops().collect();
        let shared = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            let mut tally = shared.tally.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
            let looked = tally.look();
            looked
                .inspect_err(|error| tracing::warn!(%error, "the kernel's counters cannot be read"))
                .ok()
                .cloned()
        });
        for (reason, count) in looked.await.ok().flatten().unwrap_or_default() {
            *drops.entry(reason).or_default() += count;
        }
        drops
    }

    /// MTU of the data path, as the dataplane has it.
    pub(crate) fn underlay_mtu(&self) -> u16 {
        self.underlay_mtu.load(Ordering::Relaxed)
    }

    /// From the next turn on. Says whether it is another one.
    pub(crate) fn set_underlay_mtu(&self, mtu: u16) -> bool {
        self.underlay_mtu.swap(mtu, Ordering::Relaxed) != mtu
    }

    fn prune_ports(&self) {
        let pruned = self.viewer.read_heard(|view| self.ports.prune(view, self.node));
        if pruned == Some(true)
            && let Err(error) = self.ports.keep()
        {
            tracing::error!(%error, "ports of endpoints that are gone stay on the disk");
        }
    }

    fn wanted(&self, keys: &Keys, ports: BTreeMap<EndpointId, Port>) -> Wanted {
        let gate = self.gate();
        let dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.viewer.read(|view| {
            let kind = |(id, port): (EndpointId, Port)| {
                let network = view.networks().get(&view.endpoints().get(&id)?.network)?;
                Some((id, port.kind(self.carriers.of(network.spec.encrypted))))
            };
            let plugged: BTreeMap<_, _> = ports.into_iter().filter_map(kind).collect();
            let mut ports = plugged.clone();
            ports.extend(gate);
            let local = Local { node: self.node, ports, underlay_mtu: self.underlay_mtu() };
            let mut desired = desired::derive(view, &dead, &local);
            desired.sas = keys.sas().clone();
            // Another node has the peer's address: what is sealed for the one would go to the other.
            desired.sas.outbound.retain(|_, sa| !sa.address.is_unspecified());
            let uplinks = desired::uplinks(view, self.node, &plugged);
            let mesh = desired::derive_mesh(view, &dead, &local);
            let published = Published { uplinks, mesh, plugged };
            Wanted { revision: view.revision(), desired, published }
        })
    }

    /// How this node's place in the routing mesh is plugged in, if it has one that can be. May make a
    /// namespace, which nobody who writes the view shall wait for.
    fn gate(&self) -> Option<(EndpointId, PortKind)> {
        let place = |view: &View| {
            let place = mesh_endpoint::of(view, self.node)?;
            Some((place.id, view.networks().get(&place.network)?.spec.encrypted))
        };
        let (id, encrypted) = self.viewer.read(place)?;
        Some((id, self.mesh().gate(self.carriers.of(encrypted))?))
    }
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
        let worker = Worker {
            shared,
            keys,
            progress: publish,
            reports,
            vanished: Vanished::default(),
            done: Observed::default(),
            published: Published::default(),
            lacks: BTreeMap::new(),
            spared: false,
            told: BTreeSet::new(),
            stale,
            read_at: None,
        };
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

/// What the loop keeps from one turn to the next.
struct Worker {
    shared: Arc<Shared>,
    keys: Keys,
    progress: watch::Sender<Progress>,
    reports: async_mpsc::Sender<Report>,
    vanished: Vanished,
    /// What the last turn made of the dataplane, unless something was refused.
    done: Observed,
    /// What gateway and mesh were last made to be.
    published: Published,
    /// What endpoints lack beside what was published.
    lacks: BTreeMap<EndpointId, String>,
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
    fn run(mut self, wakes: &mpsc::Receiver<Wake>) {
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
            progress.lacks.clone_from(&self.lacks);
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
            failures = self.shared.gateway().turn(uplinks, heard, reads);
        }
        if reads || *mesh != self.published.mesh {
            let gate = mesh.as_ref().and_then(|mesh| self.shared.take_memory_port(mesh.endpoint));
            let by_mesh = self.shared.mesh().turn(mesh.as_ref(), plugged, gate, heard, now);
            for (endpoint, reason) in by_mesh.failures {
                failures.entry(endpoint).or_insert(reason);
            }
            self.lacks = by_mesh.lacks;
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
