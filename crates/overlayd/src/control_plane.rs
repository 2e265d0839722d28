//! What only managers run: the raft core, and the API on TCP 2377. It starts and stops with the
//! node's role.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay_cluster::{
    ca::{
        NodeTls, TlsIncoming,
        join::limit::JoinCounts,
        tls::{HandshakeCounters, HandshakeCounts},
    },
    control::{Control, ControlConfig},
    server::{Api, Verdicts},
    state::RotationPolicy,
};
use overlay_types::NodeId;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::{
    NodeError, config::Addresses, disk::Disk, lock, managers::Managers, state_file::once_closed,
};

/// Control connections that the system keeps for us while we have not accepted them.
const BACKLOG: u32 = 1024;

/// The control plane of a node, which runs while the node is a manager. Clones are handles to the
/// same one; dropping the last ends what it serves.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    tls: Arc<NodeTls>,
    addresses: Addresses,
    managers: Managers,
    rotation: RotationPolicy,
    heard: Heard,
    running: Mutex<Option<Running>>,
    serving: watch::Sender<bool>,
}

/// What gossip tells the control plane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) verdicts: watch::Sender<Verdicts>,
    pub(crate) alive: watch::Sender<BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct Running {
    control: Control,
    api: Api,
    handshakes: Arc<HandshakeCounters>,
    tasks: JoinSet<()>,
}

impl ControlPlane {
    /// One that does not run yet.
    pub(crate) fn new(
        disk: Disk,
        tls: Arc<NodeTls>,
        addresses: Addresses,
        rotation: RotationPolicy,
    ) -> Self {
        let (running, serving) = (Mutex::default(), watch::Sender::default());
        let heard = Heard::default();
        let managers = Managers::new(tls.identity().node, Arc::clone(&tls), addresses.control);
        Self(Arc::new(Inner { disk, tls, addresses, managers, rotation, heard, running, serving }))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The raft core and the applied state, while it runs.
    pub(crate) fn control(&self) -> Option<Control> {
        self.running().as_ref().map(|running| running.control.clone())
    }

    /// What happened to callers, while it runs.
    pub(crate) fn callers(&self) -> Option<(HandshakeCounts, JoinCounts)> {
        let running = self.running();
        running.as_ref().map(|running| (running.handshakes.read(), running.api.join_counts()))
    }

    /// Whom the node asks: itself while it is a manager.
    pub(crate) fn managers(&self) -> &Managers {
        &self.0.managers
    }

    /// What gossip is to tell it.
    pub(crate) fn heard(&self) -> &Heard {
        &self.0.heard
    }

    /// Opens the state, or makes it, and starts the raft core.
    pub(crate) async fn open(&self, create: bool) -> Result<Control, NodeError> {
        let Inner { disk, tls, addresses, rotation, .. } = &*self.0;
        let config = ControlConfig {
            node: tls.identity().node,
            tls: Arc::clone(tls),
            store: disk.path("state"),
            key: disk.vault().key()?,
            create,
            advertise: addresses.control.ip(),
            rotation: *rotation,
            snapshot_after: 10_000,
        };
        once_closed(|| async { Ok(Control::start(config.clone()).await?) }).await
    }

    /// Answers nodes and joiners, and leads when it is this manager's turn.
    pub(crate) fn serve(&self, control: Control) -> Result<(), NodeError> {
        let Inner { tls, addresses, managers, heard, .. } = &*self.0;
        let socket = SocketAddr::new(addresses.listen, addresses.control.port());
        let listener = listen(socket)
            .map_err(|source| NodeError::Listen { address: socket.to_string(), source })?;
        let incoming = TlsIncoming::new(listener, Arc::clone(tls));
        let handshakes = incoming.counters();
        let api = Api::new(control.clone(), heard.verdicts.subscribe());
        let serving = api.clone();
        let (locked, disk) = (control.clone(), self.0.disk.clone());
        let (leader, alive) = (control.clone(), heard.alive.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { leader.lead(alive).await });
        tasks.spawn(lock::follow(locked, disk));
        tasks.spawn(async move {
            if let Err(error) = serving.serve(incoming, std::future::pending()).await {
                tracing::error!(%error, "the management API ended");
            }
        });
        managers.serve_here(Some(api.own_channel(Arc::clone(tls), addresses.control)));
        *self.running() = Some(Running { control, api, handshakes, tasks });
        self.0.serving.send_replace(true);
        Ok(())
    }

    /// Ends what it serves and closes the state.
    pub(crate) async fn stop(&self) {
        self.0.managers.serve_here(None);
        let running = self.running().take();
        if let Some(Running { control, mut tasks, .. }) = running {
            tasks.shutdown().await;
            control.stop().await;
        }
        self.0.serving.send_replace(false);
    }

    /// Waits until it does not run.
    pub(crate) async fn stopped(&self) {
        let mut serving = self.0.serving.subscribe();
        // Its sender lives as long as this handle.
        let _ = serving.wait_for(|serving| !serving).await;
    }
}

/// Listens also where a connection of the last run still lingers.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
