//! What only managers run: the raft core, and the API on TCP 2377. It starts and stops with the
//! node's role.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use overlay_cluster::{
    ca::{NodeTls, TlsIncoming},
    control::{Control, ControlConfig, ControlError},
    server::{Api, Verdicts},
    state::RotationPolicy,
};
use overlay_types::NodeId;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::{NodeError, config::Addresses, disk::Disk};

/// Control connections that the system keeps for us while we have not accepted them.
const BACKLOG: u32 = 1024;

/// How long a run that just ended may take to close the state file.
const LINGER: Duration = Duration::from_secs(5);

/// The control plane of a manager. Dropping it ends what it serves.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    control: Control,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

/// What gossip tells the control plane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) verdicts: watch::Sender<Verdicts>,
    pub(crate) alive: watch::Sender<BTreeSet<NodeId>>,
}

impl ControlPlane {
    /// Answers nodes and joiners, and leads when it is this manager's turn.
    pub(crate) fn serve(
        control: Control,
        tls: Arc<NodeTls>,
        socket: SocketAddr,
        heard: &Heard,
    ) -> Result<Self, NodeError> {
        let listener = listen(socket)
            .map_err(|source| NodeError::Listen { address: socket.to_string(), source })?;
        let incoming = TlsIncoming::new(listener, tls);
        let api = Api::new(control.clone(), heard.verdicts.subscribe());
        let (leader, alive) = (control.clone(), heard.alive.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { leader.lead(alive).await });
        let stop = watch::Sender::new(false);
        let mut stopping = stop.subscribe();
        tasks.spawn(async move {
            let stopped = async move {
                // An error means that the control plane is gone, which is a stop as well.
                let _ = stopping.wait_for(|stop| *stop).await;
            };
            if let Err(error) = api.serve(incoming, stopped).await {
                tracing::error!(%error, "the management API ended");
            }
        });
        Ok(Self { control, stop, tasks: Mutex::new(tasks) })
    }

    /// The raft core and the applied state.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Takes no new calls, ends those that are under way, and closes the state.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.control.stop().await;
    }
}

/// Opens the state of a manager and starts its raft core.
#[expect(clippy::disallowed_methods, reason = "the shell that waits for the state file")]
pub(crate) async fn start_control(
    disk: &Disk,
    tls: &Arc<NodeTls>,
    addresses: Addresses,
    rotation: RotationPolicy,
    create: bool,
) -> Result<Control, NodeError> {
    let patience = Instant::now();
    let config = ControlConfig {
        node: tls.identity().node,
        tls: Arc::clone(tls),
        store: disk.path("state"),
        create,
        advertise: addresses.control.ip(),
        rotation,
        snapshot_after: 10_000,
    };
    loop {
        match Control::start(config.clone()).await {
            // The last run may still be closing it.
            Err(ControlError::Store(error)) if error.is_in_use() && patience.elapsed() < LINGER => {
                tokio::task::yield_now().await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Listens also where a connection of the last run still lingers.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
