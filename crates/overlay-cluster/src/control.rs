//! A manager: raft core, applied state and connections to the other managers.
//!
//! ```text
//!   write ──► leader? ──yes──► raft ──► log of a quorum ──► apply ──► answer
//!               └─no─► Propose to the leader, again after a change of leader
//!   read ───► log id that the leader says is current ──► wait until it is applied ──► look
//! ```

mod attempt;
mod error;
mod figures;
mod leader;
mod linearize;
mod membership;
mod proposals;
mod raft_core;
mod read_index;
mod supervise;
#[cfg(test)]
mod tests;
mod touch;
mod world;
mod write;

use core::{fmt, net::IpAddr, time::Duration};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use overlay_api::status::{Reason, with_reason};
use overlay_crypto::at_rest::DataKey;
use overlay_types::{NodeId, UnixMillis};
use tokio::{sync::watch, task::JoinHandle};
use tonic::Status;

pub use error::{ControlError, rejection_status};
pub use figures::Figures;
pub use touch::Touch;
pub use world::{World, now};

use self::raft_core::{Core, OpenStore, Settings};

use crate::{
    ca::{NodeTls, tls::Whereabouts},
    raft::{
        replica::Replica,
        store::{self, Owner, StoreError},
        transport::Peers,
        types::{Member, Raft},
    },
    state::RotationPolicy,
};

/// How a manager runs.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Who it is.
    pub node: NodeId,
    /// Its credentials; they name cluster and node too.
    pub tls: Arc<NodeTls>,
    /// Its state file.
    pub store: PathBuf,
    /// Seals what is in the state file.
    pub key: DataKey,
    /// The state file may be made: at init and join only. A voter that forgot its log would break
    /// what was acknowledged.
    pub create: bool,
    /// The address that it advertises; connections to other managers leave from there.
    pub advertise: IpAddr,
    /// How long a key rotation waits.
    pub rotation: RotationPolicy,
    /// Log entries between two snapshots. Default 10 000, as in swarmkit.
    pub snapshot_after: u64,
}

/// A running manager. Clones are handles to the same one.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    node: NodeId,
    settings: Settings,
    open: Box<OpenStore>,
    core: watch::Sender<Arc<Core>>,
    /// Why the state file could not be opened again, since the core failed.
    refused: Mutex<Option<String>>,
    replica: Arc<Replica>,
    rotation: RotationPolicy,
    whereabouts: Whereabouts,
    clock: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    stop: watch::Sender<bool>,
    touch: watch::Sender<Touch>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    /// The core that runs, or the one that ran last.
    fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core.borrow())
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the store and starts the raft core. It answers other managers once
    /// [`Api::serve`](crate::server::Api::serve) runs, and takes part in no election before it is a
    /// member.
    pub async fn start(config: ControlConfig) -> Result<Self, ControlError> {
        if !config.create && !config.store.exists() {
            return Err(StoreError::Missing { path: config.store }.into());
        }
        Self::start_in(World::of(&config), config).await
    }

    /// Starts in this world instead of the machine's. What is at the store's path does not matter
    /// then; messages name it.
    pub async fn start_in(world: World, config: ControlConfig) -> Result<Self, ControlError> {
        let cluster = config.tls.identity().cluster;
        let owner = Owner { cluster, node: config.node, key: config.key.clone() };
        let (medium, path) = (world.medium.clone(), config.store.clone());
        let open = move |replica| store::open(&medium, &path, &owner, replica);
        Self::start_on(Box::new(open), world, config).await
    }

    async fn start_on(
        open: Box<OpenStore>,
        world: World,
        config: ControlConfig,
    ) -> Result<Self, ControlError> {
        let settings = Settings::new(&config)?;
        let store = open(None)?;
        let (log, _, replica) = &store;
        let replica = Arc::clone(replica);
        let peers = Peers::new(world.links, log.durable());
        let core = Core::start(&settings, &peers, store).await?;
        let inner = Arc::new(Inner {
            node: config.node,
            settings,
            open,
            core: watch::Sender::new(Arc::new(core)),
            refused: Mutex::default(),
            replica,
            rotation: config.rotation,
            whereabouts: config.tls.whereabouts().clone(),
            clock: world.clock,
            stop: watch::Sender::new(false),
            // What it applied before it started may be less than what was acknowledged.
            touch: watch::Sender::new(Touch::Unknown),
            supervisor: Mutex::default(),
        });
        let supervised = supervise::run(Arc::downgrade(&inner), inner.stop.subscribe());
        *inner.supervisor() = Some(tokio::spawn(supervised));
        Ok(Self(inner))
    }

    /// Makes this node the only member of a new raft group.
    pub async fn form(&self, member: Member) -> Result<(), ControlError> {
        let members = std::collections::BTreeMap::from([(self.0.node, member)]);
        self.raft().initialize(members).await.map_err(ControlError::raft)?;
        // There was nothing before it.
        self.0.touch.send_replace(Touch::In);
        Ok(())
    }

    /// Stops the raft core; the store is closed when the last handle is gone.
    pub async fn stop(&self) {
        self.0.stop.send_replace(true);
        let supervisor = self.0.supervisor().take();
        if let Some(supervisor) = supervisor
            && let Err(error) = supervisor.await
        {
            tracing::warn!(%error, "the task that watches the raft core did not end cleanly");
        }
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "raft core did not stop cleanly");
        }
    }

    /// Who this manager is.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// The time of day, as commands carry it.
    pub fn now(&self) -> UnixMillis {
        (self.0.clock)()
    }

    /// The applied state.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.0.replica
    }

    /// Why this manager takes no part in its cluster for now: its state file and what is wrong with
    /// it. `None` if it takes part. After an error of the disk it tries again by itself; a
    /// damaged file, or a panic, stays.
    pub fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    /// Waits until this manager has a vote, for `patience` at most. Says whether it has.
    pub async fn wait_for_vote(&self, patience: Duration) -> bool {
        let node = self.0.node;
        let votes = self.raft().wait(Some(patience));
        let condition = |metrics: &openraft::RaftMetrics<NodeId, Member>| {
            metrics.membership_config.voter_ids().any(|voter| voter == node)
        };
        votes.metrics(condition, "this manager votes").await.is_ok()
    }

    /// Whether the raft group has the node as a voter or learner, as far as this manager knows.
    pub fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.raft().metrics().borrow().clone();
        metrics.membership_config.membership().nodes().any(|(id, _)| *id == node)
    }

    /// The manager that leads, as far as this one knows.
    pub async fn leader(&self) -> Option<NodeId> {
        self.raft().current_leader().await
    }

    /// Does what falls to the leader while this manager leads: moves key epochs on, and makes
    /// voters of managers that joined. And looks whether a leader answers while another one does.
    /// Runs until the manager stops.
    pub async fn lead(&self, alive: watch::Receiver<BTreeSet<NodeId>>) {
        tokio::join!(leader::run(self, alive), touch::run(self));
    }

    /// Follows whether a leader answers this manager, this one or another.
    pub fn touch(&self) -> watch::Receiver<Touch> {
        self.0.touch.subscribe()
    }

    /// How long a key rotation waits.
    pub(crate) fn rotation(&self) -> RotationPolicy {
        self.0.rotation
    }

    /// Where nodes are, as far as this one knows.
    pub(crate) fn whereabouts(&self) -> &Whereabouts {
        &self.0.whereabouts
    }

    pub(crate) fn raft(&self) -> Raft {
        self.0.core().raft.clone()
    }

    /// The raft core has ended.
    fn unavailable(&self, error: impl ToString) -> Status {
        let reason = self.failure().unwrap_or_else(|| error.to_string());
        let message = format!("this manager takes no part in its cluster now: {reason}");
        with_reason(Reason::ManagerOut, message)
    }
}
