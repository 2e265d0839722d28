//! A node: built from a configuration, run until it is told to stop, driven through its handle or
//! its unix socket.

mod cluster;

use core::{fmt, net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use overlay_api::v1;
use overlay_cluster::{
    control::{self, Figures},
    raft::transport::Channel,
};
use overlay_dataplane::{kernel::xfrm::holder::Holder, sa::SaSet, user::capture::Capture};
use overlay_service::{
    Answer, Question, Scope,
    dns::{Forwarder, Server},
    resolve,
};
use overlay_types::{Epoch, NetworkId, NodeId, Revision, RootId, View};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Config, NodeError,
    announce::mismatches,
    api,
    dataplane::{Choice, sweep, sweep_gateway, sweep_mesh},
    disk::Disk,
    keys::PeerKeys,
    lifecycle,
    listen::unix_listener,
    liveness,
    member::Member,
    metrics,
};

/// How long calls that are under way may take when the node stops. A watch would never end.
const DRAIN: Duration = Duration::from_secs(2);

/// Builds a [`Node`].
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    config: Config,
    holder: Option<(PathBuf, Vec<OsString>)>,
}

impl NodeBuilder {
    /// A program that calls [`hold`](crate::hold) when it is started with these arguments. By it a kernel
    /// with ESP goes on taking in what comes to encrypted networks while the node does not run.
    #[must_use]
    pub fn holder(self, program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        Self { holder: Some((program.into(), arguments)), ..self }
    }

    /// Opens the data directory, and chooses the dataplane by what this host has. Nothing runs yet.
    pub fn build(self) -> Result<Node, NodeError> {
        let Self { config, holder } = self;
        config.gateway()?;
        let mut choice = Choice::make(&config)?;
        let path = config.traces().holder;
        choice.holder = holder.map(|(program, arguments)| Holder { path, program, arguments });
        let disk = Disk::open(&config.data_dir)?;
        let inner = Inner {
            config,
            choice,
            disk,
            member: Mutex::default(),
            busy: tokio::sync::Mutex::default(),
            ready: watch::Sender::default(),
        };
        Ok(Node(NodeHandle(Arc::new(inner))))
    }
}

/// A node that does not run yet.
#[derive(Debug)]
pub struct Node(NodeHandle);

impl Node {
    /// Starts a node's configuration.
    pub const fn builder(config: Config) -> NodeBuilder {
        NodeBuilder { config, holder: None }
    }

    /// A handle, which works once the node runs.
    pub fn handle(&self) -> NodeHandle {
        self.0.clone()
    }

    /// Runs until `shutdown` resolves. A node that is in a cluster takes up where it stopped, also
    /// when no manager can be reached.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), NodeError> {
        let Self(handle) = self;
        let listener = unix_listener(&handle.0.config.socket)?;
        let mut figures = JoinSet::new();
        if let Some(address) = handle.0.config.metrics_addr {
            figures.spawn(metrics::serve(handle.clone(), metrics::listen(address).await?));
        }
        handle.resume().await?;
        // The system queues callers from now on; serving begins in this very turn.
        handle.0.ready.send_replace(true);
        let (begun, began) = tokio::sync::oneshot::channel();
        let shutdown = async move {
            shutdown.await;
            // Nobody listens when serving ended by itself.
            let _ = begun.send(());
        };
        let drained = async {
            // A sender that is gone never began to shut down.
            if began.await.is_err() {
                std::future::pending::<()>().await;
            }
            let _ = tokio::time::timeout(DRAIN, std::future::pending::<()>()).await;
        };
        let served = tokio::select! {
            served = api::serve(handle.clone(), listener, shutdown) => served,
            () = drained => Ok(()),
        };
        if let Some(member) = handle.take() {
            member.stop().await;
        }
        // Whoever starts the node again finds its addresses free.
        figures.shutdown().await;
        // It is gone if the folder was removed meanwhile.
        let _ = std::fs::remove_file(&handle.0.config.socket);
        served
    }
}

/// Drives a running node. Clones drive the same node.
#[derive(Clone)]
pub struct NodeHandle(Arc<Inner>);

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("socket", &self.0.config.socket).finish_non_exhaustive()
    }
}

struct Inner {
    config: Config,
    choice: Choice,
    disk: Disk,
    member: Mutex<Option<Arc<Member>>>,
    /// Held while the node joins or leaves a cluster.
    busy: tokio::sync::Mutex<()>,
    /// It answers on its socket, and what runs in its cluster, if it is in one, runs.
    ready: watch::Sender<bool>,
}

impl NodeHandle {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Member>>> {
        self.0.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn member(&self) -> Result<Arc<Member>, NodeError> {
        let locked = || {
            if self.is_locked() { NodeError::Locked } else { NodeError::NoCluster }
        };
        self.slot().clone().ok_or_else(locked)
    }

    fn take(&self) -> Option<Arc<Member>> {
        self.slot().take()
    }

    /// Starts what runs in a cluster, if the node is in one.
    async fn resume(&self) -> Result<(), NodeError> {
        let Inner { config, choice, disk, .. } = &*self.0;
        if disk.vault().is_locked() {
            tracing::warn!("this manager is locked; it waits for overlayctl unlock");
            return Ok(());
        }
        let Some(credentials) = disk.credentials(control::now())? else {
            // It left a cluster and ended before it had removed what it had.
            sweep_mesh(choice.carriers.plain, config.mesh());
            sweep(choice.carriers.plain, config).await;
            sweep_gateway(&config.gateway_trace(), config.gateway()?);
            return Ok(());
        };
        let member = lifecycle::resume(config, choice, disk, &credentials).await?;
        *self.slot() = Some(Arc::new(member));
        Ok(())
    }

    /// The unlock key is needed before the node takes up where it stopped.
    pub fn is_locked(&self) -> bool {
        self.0.disk.vault().is_locked()
    }

    /// Waits until the node has taken up where it stopped and its socket is there. Never resolves
    /// when that fails; [`Node::run`] says why.
    pub async fn ready(&self) {
        let mut ready = self.0.ready.subscribe();
        // Its sender lives as long as this handle.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Takes the certificate and key that are on the disk now, for connections that are made from
    /// now on.
    pub fn reload(&self) -> Result<(), NodeError> {
        self.member()?.reload()
    }

    /// Gets a new certificate from a manager now. Connections in use go on.
    pub async fn renew(&self) -> Result<(), NodeError> {
        self.member()?.renew().await
    }

    /// Roots of the CA that this node trusts, oldest first: one, unless they are being rotated.
    pub fn trusted_roots(&self) -> Result<Vec<RootId>, NodeError> {
        Ok(self.member()?.roots().ids().collect())
    }

    /// Figures of the raft core; `None` on a worker.
    pub fn figures(&self) -> Result<Option<Figures>, NodeError> {
        Ok(self.member()?.control().map(|control| control.figures()))
    }

    /// This node's id.
    pub fn node(&self) -> Result<NodeId, NodeError> {
        Ok(self.member()?.identity().node)
    }

    /// Looks at what the node knows of the replicated state.
    pub fn view<T>(&self, look: impl FnOnce(&View) -> T) -> Result<T, NodeError> {
        Ok(self.member()?.viewer.read(look))
    }

    /// Follows the revision of what the node knows.
    pub fn revision(&self) -> Result<watch::Receiver<Revision>, NodeError> {
        Ok(self.member()?.viewer.revision())
    }

    /// Epochs whose keys this node holds.
    pub fn key_epochs(&self) -> Result<BTreeSet<Epoch>, NodeError> {
        Ok(self.member()?.reconciler.progress().borrow().epochs.clone())
    }

    /// Nodes that gossip says are dead or have left.
    pub fn dead(&self) -> Result<BTreeSet<NodeId>, NodeError> {
        Ok(liveness::dead(&self.member()?.verdicts()))
    }

    /// What a name resolves to for an endpoint on these networks; `seed` decides the order.
    pub fn resolve(
        &self,
        networks: impl IntoIterator<Item = NetworkId>,
        question: Question<'_>,
        seed: u64,
    ) -> Result<Answer, NodeError> {
        let names = self.member()?.viewer.names();
        Ok(resolve(&names.current(), &Scope::new(networks), question, seed))
    }

    /// A name server for an endpoint on these networks. It answers on the sockets that it is
    /// given.
    pub fn names(
        &self,
        networks: impl IntoIterator<Item = NetworkId>,
        forwarder: Option<Forwarder>,
    ) -> Result<Server, NodeError> {
        let names = self.member()?.viewer.names();
        Ok(Server::new(names, Scope::new(networks), forwarder))
    }

    /// Shows every outer datagram to `capture`; `None` ends it.
    pub fn capture(&self, capture: Option<Capture>) -> Result<(), NodeError> {
        Ok(self.member()?.shared.dataplane().user().switch().capture(capture)?)
    }

    /// The associations of this node, with their keys: whoever has them reads what they protect.
    /// For debugging, as to have a dissector decrypt a capture.
    pub async fn security_associations(&self) -> Result<SaSet, NodeError> {
        let reconciler = Arc::clone(&self.member()?.reconciler);
        let sas = tokio::task::spawn_blocking(move || reconciler.sas()).await;
        sas.ok().flatten().ok_or(NodeError::NoCluster)
    }

    /// The data-path address of this node.
    pub fn data_path(&self) -> Result<IpAddr, NodeError> {
        Ok(self.0.config.addresses()?.data_path)
    }

    /// A channel to a manager, for any call of the API. It ends with the certificate that it was made
    /// with, or with that one's root: what goes on for long asks for another now and then.
    pub async fn managers(&self) -> Result<Channel, NodeError> {
        Ok(self.member()?.managers.channel().await?)
    }

    /// Stops everything at once and tells nobody: to other nodes it is a host that lost power.
    pub async fn halt(&self) {
        if let Some(member) = self.take() {
            member.halt().await;
        }
    }

    pub(crate) async fn status(&self) -> Result<v1::GetStatusResponse, NodeError> {
        let Choice { carriers, missing, .. } = &self.0.choice;
        let (dataplane, missing) =
            (v1::DataplaneKind::from(carriers.plain).into(), missing.clone());
        let Ok(member) = self.member() else {
            let locked = self.is_locked();
            return Ok(v1::GetStatusResponse { locked, dataplane, missing, ..Default::default() });
        };
        let mut counters = BTreeMap::new();
        for (reason, count) in member.shared.drops().await {
            counters.insert(format!("dataplane.dropped.{}", reason.name()), count);
        }
        for (event, count) in member.shared.counters.events() {
            counters.insert(format!("dataplane.{}", event.name()), count);
        }
        let names = member.shared.resolvers.figures();
        counters.insert("dns.resolvers".to_owned(), names.serving as u64);
        counters.insert("dns.resolvers_failed".to_owned(), names.failed as u64);
        counters.insert("dns.queries".to_owned(), names.counts.queries);
        for (outcome, count) in names.counts.outcomes() {
            counters.insert(format!("dns.{}", outcome.name()), count);
        }
        let gossip = member.gossip.counters().await?;
        counters.insert("gossip.datagrams_in".to_owned(), gossip.datagrams_in);
        counters.insert("gossip.datagrams_out".to_owned(), gossip.datagrams_out);
        for (reason, count) in gossip.drops() {
            counters.insert(format!("gossip.dropped.{}", reason.label()), count);
        }
        let identity = member.identity();
        let warnings = member.viewer.read(|view| mismatches(view, identity.node));
        let progress = member.reconciler.progress();
        let progress = progress.borrow();
        let lacks = progress.lacks.iter().cloned();
        let warnings = warnings.into_values().chain(lacks).collect();
        let revision = progress.revision.get();
        Ok(v1::GetStatusResponse {
            cluster: identity.cluster.to_string(),
            node: identity.node.to_string(),
            role: v1::Role::from(identity.role).into(),
            revision,
            counters,
            locked: false,
            dataplane,
            missing,
            warnings,
        })
    }

    pub(crate) fn peer_keys(&self) -> Result<v1::GetPeerKeysResponse, NodeError> {
        let progress = self.member()?.reconciler.progress();
        let peers = progress.borrow().peers.iter().map(PeerKeys::tell).collect();
        Ok(v1::GetPeerKeysResponse { peers })
    }
}
