//! What runs while the node is in a cluster.

use core::ops::Range;
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use overlay_api::v1::{self, keys_client::KeysClient, reports_client::ReportsClient};
use overlay_cluster::{
    ca::{NodeTls, PeerIdentity, TrustedRoots, join::limit::JoinCounts, tls::HandshakeCounts},
    control::{Control, now},
    server::Verdicts,
};
use overlay_crypto::keyring::RingKeys;
use overlay_dataplane::kernel::Tally;
use overlay_gossip::{
    GossipError, Identity,
    io::{GossipHandle, GossipSettings, Members, incarnation},
};
use overlay_types::{DataplaneKind, NodeId, Role, UnixMillis, View};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tonic::Status;

use crate::{
    Config, NodeError,
    absence::Absent,
    agent::{self, Viewer},
    announce::{Announcer, Host},
    config::Addresses,
    control_plane::{ControlPlane, Heard},
    dataplane::{Choice, NodeDataplane, NodeGateway, NodeMesh, Site},
    disk::Disk,
    keys::{Keys, Report},
    liveness::{self, Judge},
    managers::Managers,
    mesh_endpoint::MeshEndpoint,
    place::{self, Place},
    ports::Ports,
    probe::task::Prober,
    reconcile::{Reconciler, Shared},
    renewal::Renewal,
    resolvers::Resolvers,
    role::RoleFollower,
    roots::RootFollower,
    vanished,
};

/// A node in its cluster. Dropping it stops everything that runs.
pub(crate) struct Member {
    pub(crate) managers: Managers,
    pub(crate) viewer: Viewer,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) gossip: Arc<GossipHandle>,
    pub(crate) disk: Disk,
    tls: Arc<NodeTls>,
    renewal: Renewal,
    control_plane: ControlPlane,
    tasks: Mutex<JoinSet<()>>,
}

/// What a member is started from.
pub(crate) struct Start<'a> {
    pub(crate) config: &'a Config,
    pub(crate) choice: &'a Choice,
    pub(crate) addresses: Addresses,
    pub(crate) disk: Disk,
    /// The node's credentials. There is one of these, so that a renewal reaches everything.
    pub(crate) tls: Arc<NodeTls>,
    /// What is known of the cluster: at least itself, the managers and the gossip ring.
    pub(crate) view: View,
    /// What the node runs while it is a manager.
    pub(crate) control_plane: ControlPlane,
    /// Its raft core, if that runs already.
    pub(crate) control: Option<Control>,
    /// The node was in no cluster a moment ago: a manager's state may be made.
    pub(crate) fresh: bool,
}

impl Member {
    /// Starts everything.
    pub(crate) async fn start(start: Start<'_>) -> Result<Self, NodeError> {
        let Start { config, choice, addresses, disk, tls, view, control_plane, control, fresh } =
            start;
        let identity = tls.identity();
        let (netns_dir, data_path) = (config.netns_dir(), addresses.data_path);
        let (cluster, holder) = (view.cluster().cloned(), choice.holder.clone());
        let site = Site { traces: config.traces(), data_path, cluster, holder };
        // On a user node this removes what is in the directory of namespaces, which the next looks at.
        let mesh = NodeMesh::start(choice.carriers.plain, config.mesh(), &Handle::current())?;
        let dataplane = NodeDataplane::start(choice.carriers, site).await?;
        let gateway = NodeGateway::start(config.gateway_trace(), config.gateway()?)?;
        let mtu = config.mtu(addresses.data_path)?;
        let gossip = Arc::new(start_gossip(&disk, identity.node, addresses, &view)?);
        let managers = control_plane.managers().clone();
        managers.learn(&view);
        let viewer = Viewer::new(view);
        let ports = Ports::open(disk.clone())?;
        let (node, carriers) = (identity.node, choice.carriers);
        let resolvers = Resolvers::new(viewer.names(), config.names());
        let in_kernel = choice.carriers.plain == DataplaneKind::Kernel;
        let tally = in_kernel.then(|| Tally::new(netns_dir));
        let parts = (dataplane, gateway, mesh, tally);
        let shared = Shared::new(viewer.clone(), node, carriers, mtu, ports, resolvers, parts);
        let shared = Arc::new(shared);
        let keys = Keys::new(identity.cluster, identity.node, rand::random());
        let (reconciler, reports) =
            Reconciler::start(Arc::clone(&shared), keys).map_err(|source| NodeError::File {
                path: "thread overlay-reconcile".into(),
                source,
            })?;
        if identity.role == Role::Manager {
            let control = match control {
                Some(control) => control,
                None => control_plane.open(fresh).await?,
            };
            control_plane.serve(control)?;
        }
        let member = Self {
            renewal: Renewal::new(Arc::clone(&tls), disk.clone(), managers.clone()),
            managers,
            viewer,
            shared,
            reconciler: Arc::new(reconciler),
            gossip,
            disk,
            tls,
            control_plane,
            tasks: Mutex::default(),
        };
        member.spawn_tasks(addresses, reports, Host::new(config, choice, addresses.data_path));
        Ok(member)
    }

    /// Who the node is, in the role that it has now.
    pub(crate) fn identity(&self) -> PeerIdentity {
        self.tls.identity()
    }

    /// From when to when its certificate is valid.
    pub(crate) fn validity(&self) -> Range<UnixMillis> {
        self.tls.validity()
    }

    /// The roots that it trusts.
    pub(crate) fn roots(&self) -> Arc<TrustedRoots> {
        self.tls.roots()
    }

    /// What gossip says of each node.
    pub(crate) fn verdicts(&self) -> Verdicts {
        self.control_plane.heard().verdicts.borrow().clone()
    }

    /// The raft core and the applied state, while the node is a manager.
    pub(crate) fn control(&self) -> Option<Control> {
        self.control_plane.control()
    }

    /// What happened to those who called its control plane, while the node is a manager.
    pub(crate) fn callers(&self) -> Option<(HandshakeCounts, JoinCounts)> {
        self.control_plane.callers()
    }

    fn spawn_tasks(&self, addresses: Addresses, reports: mpsc::Receiver<Report>, host: Host) {
        let (node, managers, viewer) = (self.identity().node, &self.managers, &self.viewer);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(agent::run(node, managers.clone(), viewer.clone()));
        tasks.spawn(agent::keep(self.disk.clone(), viewer.clone()));
        tasks.spawn(self.renewal.clone().run());
        let follower = RoleFollower {
            viewer: viewer.clone(),
            renewal: self.renewal.clone(),
            control_plane: self.control_plane.clone(),
            disk: self.disk.clone(),
        };
        tasks.spawn(follower.run());
        tasks.spawn(RootFollower::new(viewer.clone(), self.renewal.clone()).run());
        tasks.spawn(send_reports(node, managers.clone(), reports));
        let place = Place { node, addresses, viewer: viewer.clone(), managers: managers.clone() };
        tasks.spawn(place.report());
        let mesh = MeshEndpoint { node, viewer: viewer.clone(), managers: managers.clone() };
        tasks.spawn(mesh.keep());
        tasks.spawn(place::listen(self.gossip.addresses(), self.tls.whereabouts().clone()));
        tasks.spawn(follow_view(
            viewer.clone(),
            Arc::clone(&self.reconciler),
            Arc::clone(&self.gossip),
            node,
        ));
        let prober = Prober {
            node,
            viewer: viewer.clone(),
            managers: managers.clone(),
            shared: Arc::clone(&self.shared),
            progress: self.reconciler.progress(),
        };
        tasks.spawn(prober.run());
        let (shared, reconciler) = (Arc::clone(&self.shared), Arc::clone(&self.reconciler));
        let (managers, viewer) = (managers.clone(), viewer.clone());
        tasks.spawn(Announcer { node, managers, viewer, host, shared, reconciler }.run());
        let managers = &self.managers;
        let (shared, reconciler) = (Arc::clone(&self.shared), Arc::clone(&self.reconciler));
        tasks.spawn(vanished::release(managers.clone(), shared, reconciler));
        let absent = Absent {
            members: self.gossip.members(),
            verdicts: self.control_plane.heard().verdicts.subscribe(),
            viewer: self.viewer.clone(),
            shared: Arc::clone(&self.shared),
            reconciler: Arc::clone(&self.reconciler),
            from: addresses.listen,
        };
        tasks.spawn(absent.keep());
        tasks.spawn(follow_members(Judged {
            members: self.gossip.members(),
            managers: managers.clone(),
            viewer: self.viewer.clone(),
            shared: Arc::clone(&self.shared),
            reconciler: Arc::clone(&self.reconciler),
            heard: self.control_plane.heard().clone(),
        }));
    }

    /// Gets a new certificate.
    pub(crate) async fn renew(&self) -> Result<(), NodeError> {
        self.renewal.renew().await
    }

    /// Waits until this node, which was demoted, is a worker. Says whether it is.
    pub(crate) async fn relieved(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.control_plane.stopped()).await.is_ok()
    }

    /// Takes the credentials that are on the disk now.
    pub(crate) fn reload(&self) -> Result<(), NodeError> {
        let credentials = self.disk.credentials(now())?.ok_or(NodeError::NoCluster)?;
        Ok(self.tls.replace(&credentials)?)
    }

    /// Stops everything at once and tells nobody: to other nodes it is a host that lost power.
    pub(crate) async fn halt(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.control_plane.stop().await;
    }

    /// Stops what runs: answers calls that are under way, tells the other nodes, keeps the view.
    pub(crate) async fn stop(self: Arc<Self>) {
        self.halt().await;
        if let Err(error) = self.disk.keep_view(|| self.viewer.read(View::clone)) {
            tracing::error!(%error, "the view is not kept");
        }
        // Calls that are still under way hold the member; then the silence has to tell.
        if let Some(gossip) = Arc::into_inner(self).and_then(|m| Arc::into_inner(m.gossip))
            && let Err(error) = gossip.leave().await
        {
            tracing::warn!(%error, "the other nodes were not told");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that persists incarnations")]
fn start_gossip(
    disk: &Disk,
    node: NodeId,
    addresses: Addresses,
    view: &View,
) -> Result<GossipHandle, NodeError> {
    let path = disk.path("incarnation");
    let incarnation = incarnation::reserve(&path, SystemTime::now())?;
    let keys = view.gossip_keys().and_then(RingKeys::from_replicated);
    let keys = keys.ok_or_else(|| NodeError::Damaged {
        path: disk.path("view"),
        reason: "it has no gossip key".to_owned(),
        hint: "move the data directory away and join again",
    })?;
    let settings = GossipSettings {
        listen: SocketAddr::new(addresses.listen, addresses.gossip.port()),
        identity: Identity::new(node, incarnation, addresses.gossip),
        keys,
        config: overlay_gossip::GossipConfig::default(),
        seed: rand::random(),
    };
    Ok(GossipHandle::start(settings)?)
}

/// What the view says reaches the dataplane and gossip.
async fn follow_view(
    viewer: Viewer,
    reconciler: Arc<Reconciler>,
    gossip: Arc<GossipHandle>,
    own: NodeId,
) {
    let mut revision = viewer.revision();
    let mut told = Told::default();
    loop {
        reconciler.wake();
        let tell = viewer.read(|view| Told::from_view(view, own));
        if told.differences(&tell, &gossip).await.is_err() || revision.changed().await.is_err() {
            return;
        }
        told = tell;
    }
}

/// What gossip is told from the view.
#[derive(Default)]
struct Told {
    addresses: BTreeSet<SocketAddr>,
    keys: Option<RingKeys>,
    removed: BTreeSet<NodeId>,
}

impl Told {
    fn from_view(view: &View, own: NodeId) -> Self {
        let others = view.nodes().values().filter(|node| node.id != own);
        let removed = view.cluster().map(|cluster| cluster.removed_nodes.keys().copied());
        Self {
            addresses: others.map(|node| node.gossip).collect(),
            keys: view.gossip_keys().and_then(RingKeys::from_replicated),
            removed: removed.into_iter().flatten().collect(),
        }
    }

    /// Tells gossip where `new` differs.
    async fn differences(&self, new: &Self, gossip: &GossipHandle) -> Result<(), GossipError> {
        if new.addresses != self.addresses {
            gossip.set_members_hint(new.addresses.iter().copied().collect()).await?;
        }
        if let Some(keys) = &new.keys
            && new.keys != self.keys
        {
            gossip.set_keys(keys.clone()).await?;
        }
        if new.removed != self.removed
            && let Err(error) = gossip.set_removed(new.removed.clone()).await
        {
            // The managers refuse removed nodes all the same, and the key turns.
            tracing::error!(%error, "gossip does not refuse the nodes that were removed");
        }
        Ok(())
    }
}

/// What follows from who is dead.
struct Judged {
    members: watch::Receiver<Members>,
    managers: Managers,
    viewer: Viewer,
    shared: Arc<Shared>,
    reconciler: Arc<Reconciler>,
    heard: Heard,
}

/// What gossip says reaches names, the dataplane and the control plane.
#[expect(clippy::disallowed_methods, reason = "the shell that reads the clock for the judge")]
async fn follow_members(judged: Judged) {
    let Judged { mut members, managers, viewer, shared, reconciler, heard } = judged;
    let mut judge = Judge::default();
    let mut revision = viewer.revision();
    loop {
        let nodes = viewer.read(|view| view.nodes().keys().copied().collect());
        let now = Instant::now();
        let (judgement, wake) = judge.judge(&nodes, &members.borrow_and_update(), now);
        let dead = liveness::dead(&judgement);
        viewer.set_dead(&dead);
        managers.avoid(&dead);
        let running = liveness::running(&judgement);
        *shared.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        heard.alive.send_replace(liveness::alive(&judgement));
        heard.verdicts.send_replace(judgement);
        reconciler.wake();
        let wake = wake.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        let news = async {
            tokio::select! {
                changed = members.changed() => changed,
                changed = revision.changed() => changed,
            }
        };
        if let Ok(Err(_)) = tokio::time::timeout(wake, news).await {
            return;
        }
    }
}

/// What the key rotation reports reaches a manager. What does not is reported again.
async fn send_reports(node: NodeId, managers: Managers, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        if let Err(status) = send_report(node, &managers, report).await {
            tracing::debug!(?report, reason = status.message(), "report not delivered");
        }
    }
}

async fn send_report(node: NodeId, managers: &Managers, report: Report) -> Result<(), Status> {
    let channel = managers.channel().await?;
    let node = node.to_string();
    match report {
        Report::PublicKey { epoch, public } => {
            let request =
                v1::PublishKeyRequest { node, epoch: epoch.get(), public: public.to_vec() };
            ReportsClient::new(channel).publish_key(request).await.map(drop)
        }
        Report::Ready { epoch, public } => {
            let request =
                v1::ReportReadyRequest { node, epoch: epoch.get(), public: public.to_vec() };
            ReportsClient::new(channel).report_ready(request).await.map(drop)
        }
        Report::Rotate => {
            let request = v1::RotateKeysRequest::default();
            KeysClient::new(channel).rotate_keys(request).await.map(drop)
        }
    }
}
