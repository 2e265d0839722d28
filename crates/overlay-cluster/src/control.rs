//! A manager: raft core, applied state and connections to the other managers.
//!
//! ```text
//!   write ──► leader? ──yes──► raft ──► log of a quorum ──► apply ──► answer
//!               └─no─► Propose to the leader, again after a change of leader
//!   read ───► log id that the leader says is current ──► wait until it is applied ──► look
//! ```

mod error;
mod figures;
mod leader;
mod membership;
mod proposals;
mod raft_core;
mod read_index;
mod supervise;
#[cfg(test)]
mod tests;
mod touch;
mod world;

use core::{fmt, net::IpAddr, time::Duration};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use overlay_api::{
    internal::v1 as wire,
    status::{Reason, reason, with_reason},
};
use overlay_crypto::at_rest::DataKey;
use overlay_types::{NodeId, RequestId, UnixMillis};
use prost::Message;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tonic::{Code, Status};

pub use error::{ControlError, rejection_status};
pub use figures::Figures;
pub use world::{World, now};

use self::raft_core::{Core, OpenStore, Settings};

use crate::{
    ca::{NodeTls, tls::Whereabouts},
    raft::{
        codec,
        replica::Replica,
        store::{self, Owner, StoreError},
        transport::Peers,
        types::{LogId, Member, Raft},
    },
    state::{Action, Command, Response, RotationPolicy},
};

/// How long a write or read looks for a leader. Elections end within two seconds; a caller that
/// waited five hears that there is no quorum.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Wait before the same leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

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
    in_touch: watch::Sender<bool>,
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
            in_touch: watch::Sender::new(true),
            supervisor: Mutex::default(),
        });
        let supervised = supervise::run(Arc::downgrade(&inner), inner.stop.subscribe());
        *inner.supervisor() = Some(tokio::spawn(supervised));
        Ok(Self(inner))
    }

    /// Makes this node the only member of a new raft group.
    pub async fn form(&self, member: Member) -> Result<(), ControlError> {
        let members = std::collections::BTreeMap::from([(self.0.node, member)]);
        match self.raft().initialize(members).await {
            Ok(()) => Ok(()),
            Err(error) => Err(ControlError::raft(error)),
        }
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
    pub fn in_touch(&self) -> watch::Receiver<bool> {
        self.0.in_touch.subscribe()
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

    /// Writes, through whoever leads. Applied once, however often it is tried here or by the
    /// caller with the same `request`.
    pub async fn write(&self, request: RequestId, action: Action) -> Result<Response, Status> {
        // A leader of an older release would not see what it does not know.
        self.0
            .replica
            .read(|state| state.check_level(&action))
            .map_err(|r| rejection_status(&r))?;
        let command = Command { request, at: self.now(), action };
        let patience = Patience::new();
        loop {
            // A leader that lost its quorum never answers.
            let here = timeout_at(patience.0, self.write_here(command.clone())).await;
            match here.unwrap_or(Err(Attempt::NoLeader)) {
                Ok(response) => return Ok(response),
                Err(Attempt::Refused(status)) => return Err(status),
                Err(Attempt::Elsewhere(leader)) => {
                    let there = timeout_at(patience.0, self.propose_to(leader, &command)).await;
                    match there.unwrap_or_else(|_| Err(not_leader())) {
                        Err(status) if status.code() == Code::Unavailable => {}
                        Err(status) if is_barred(&status) => return Err(no_manager(&status)),
                        answer => return answer,
                    }
                }
                Err(Attempt::NoLeader) => {}
            }
            patience.pause(&self.raft()).await?;
        }
    }

    /// Writes if this node leads.
    pub(crate) async fn propose_as_leader(&self, mut command: Command) -> Result<Response, Status> {
        command.at = self.now();
        match self.write_here(command).await {
            Ok(response) => Ok(response),
            Err(Attempt::Refused(status)) => Err(status),
            Err(Attempt::Elsewhere(_) | Attempt::NoLeader) => Err(not_leader()),
        }
    }

    async fn write_here(&self, command: Command) -> Result<Response, Attempt> {
        match self.0.core().proposals.write(command).await {
            Ok(outcome) => outcome.map_err(|r| Attempt::Refused(rejection_status(&r))),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(Attempt::forward(to.leader_id, to.leader_node))
            }
            Err(error) => Err(Attempt::Refused(self.unavailable(error))),
        }
    }

    async fn propose_to(
        &self,
        (leader, member): (NodeId, Member),
        command: &Command,
    ) -> Result<Response, Status> {
        let mut client = self.0.core().peers.client(leader, &member).ok_or_else(not_leader)?;
        let command = wire::Command::from(command).encode_to_vec();
        let answer = client.propose(wire::ProposeRequest { command }).await?.into_inner();
        Response::try_from(answer.response.unwrap_or_default())
            .map_err(|error| Status::internal(format!("answer of the leader: {error}")))
    }

    /// Waits until this manager's state includes every write that was acknowledged before.
    pub async fn linearize(&self) -> Result<(), Status> {
        let patience = Patience::new();
        let current = loop {
            match self.read_index_here().await {
                Ok(log_id) => break log_id,
                Err(Attempt::Refused(status)) => return Err(status),
                Err(Attempt::Elsewhere(leader)) => match self.ask_read_index(leader).await {
                    Ok(log_id) => break log_id,
                    Err(status) if status.code() == Code::Unavailable => {}
                    Err(status) if is_barred(&status) => return Err(no_manager(&status)),
                    Err(status) => return Err(status),
                },
                Err(Attempt::NoLeader) => {}
            }
            patience.pause(&self.raft()).await?;
        };
        let mut progress = self.0.replica.progress();
        let applied = progress.wait_for(|applied| *applied >= current);
        match tokio::time::timeout(LEADER_PATIENCE, applied).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(with_reason(
                Reason::ManagerLags,
                "this manager lags behind the others; ask another",
            )),
        }
    }

    pub(crate) async fn read_index_as_leader(&self) -> Result<Option<LogId>, Status> {
        match self.read_index_here().await {
            Ok(log_id) => Ok(log_id),
            Err(Attempt::Refused(status)) => Err(status),
            Err(Attempt::Elsewhere(_) | Attempt::NoLeader) => Err(not_leader()),
        }
    }

    async fn read_index_here(&self) -> Result<Option<LogId>, Attempt> {
        match self.0.core().reads.get().await {
            Ok(read) => Ok(read),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
                Err(Attempt::forward(to.leader_id, to.leader_node))
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(Attempt::NoLeader)
            }
            Err(error) => Err(Attempt::Refused(self.unavailable(error))),
        }
    }

    async fn ask_read_index(
        &self,
        (leader, member): (NodeId, Member),
    ) -> Result<Option<LogId>, Status> {
        let mut client = self.0.core().peers.client(leader, &member).ok_or_else(not_leader)?;
        let answer = client.read_index(wire::ReadIndexRequest {}).await?.into_inner();
        codec::optional_log_id(answer.log_id)
            .map_err(|error| Status::internal(format!("answer of the leader: {error}")))
    }
}

/// Why this node did not answer by itself.
enum Attempt {
    Refused(Status),
    Elsewhere((NodeId, Member)),
    NoLeader,
}

impl Attempt {
    fn forward(leader: Option<NodeId>, member: Option<Member>) -> Self {
        leader.zip(member).map_or(Self::NoLeader, Self::Elsewhere)
    }
}

/// The leader lets this node in no more.
fn is_barred(status: &Status) -> bool {
    let barred =
        [Reason::NodeRemoved, Reason::NotManager, Reason::CertificateExpired, Reason::FormerRoot];
    reason(status).is_some_and(|reason| barred.contains(&reason))
}

/// It is no fault of who asked this node: another manager answers.
fn no_manager(status: &Status) -> Status {
    let message = format!("this node is no manager any more ({})", status.message());
    with_reason(Reason::ManagerOut, message)
}

fn not_leader() -> Status {
    with_reason(Reason::NoLeader, "this manager does not lead (any more)")
}

/// When a call stops looking for a leader.
struct Patience(Instant);

impl Patience {
    fn new() -> Self {
        Self(Instant::now() + LEADER_PATIENCE)
    }

    /// Waits for news of the raft core, or a little.
    async fn pause(&self, raft: &Raft) -> Result<(), Status> {
        let mut metrics = raft.server_metrics();
        metrics.mark_unchanged();
        let _ = tokio::time::timeout(RETRY_PAUSE, metrics.changed()).await;
        if Instant::now() < self.0 {
            return Ok(());
        }
        Err(with_reason(
            Reason::NoLeader,
            "no manager leads: too few of them can be reached; bring one back. A write may still be \
             applied: repeat it with the same request id",
        ))
    }
}
