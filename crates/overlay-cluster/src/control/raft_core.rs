//! A raft core on its state file, from the opening of the file to the first error.

use core::ops::Range;
use std::sync::Arc;

use openraft::{Config as RaftConfig, SnapshotPolicy, error::Fatal};
use overlay_types::NodeId;

use super::{ControlConfig, ControlError, read_index::ReadIndex};
use crate::raft::{
    replica::Replica,
    store::{Durable, Store, StoreError},
    transport::Peers,
    types::Raft,
};

/// Between two heartbeats of a leader, in milliseconds.
const HEARTBEAT_MS: u64 = 100;
/// How long a manager hears no leader before it stands for election, in milliseconds: at least four
/// heartbeats, and long enough apart that two managers rarely stand at once.
const ELECTION_TIMEOUT_MS: Range<u64> = 400..800;
/// Most log entries that are kept behind a snapshot, for followers that lag a little.
const MAX_KEPT: u64 = 1000;

/// Opens the state file, for a new replica or for the one of the last core.
pub(super) type OpenStore = dyn Fn(Option<Arc<Replica>>) -> Result<Store, StoreError> + Send + Sync;

/// A raft core and what lives as long as it.
pub(super) struct Core {
    pub(super) raft: Raft,
    pub(super) reads: ReadIndex,
    pub(super) peers: Peers,
    durable: Durable,
}

/// What every core of a manager is started with.
pub(super) struct Settings {
    node: NodeId,
    raft: Arc<RaftConfig>,
}

impl Settings {
    pub(super) fn new(config: &ControlConfig) -> Result<Self, ControlError> {
        // Drawn here, because no seed of ours reaches what openraft draws from.
        let election_timeout = rand::random_range(ELECTION_TIMEOUT_MS);
        let raft = RaftConfig {
            cluster_name: config.tls.identity().cluster.to_string(),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: election_timeout,
            election_timeout_max: election_timeout + 1,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_after),
            max_in_snapshot_log_to_keep: config.snapshot_after.min(MAX_KEPT),
            enable_tick: true,
            ..RaftConfig::default()
        };
        let raft = Arc::new(raft.validate().map_err(ControlError::raft)?);
        Ok(Self { node: config.node, raft })
    }
}

impl Core {
    /// Starts on `store`; `peers` are told how far its log is on the disk.
    pub(super) async fn start(
        settings: &Settings,
        peers: &Peers,
        (log, machine, _): Store,
    ) -> Result<Self, ControlError> {
        let durable = log.durable();
        let peers = peers.with(durable.clone());
        let config = Arc::clone(&settings.raft);
        let raft = Raft::new(settings.node, config, peers.clone(), log, machine).await;
        let raft = raft.map_err(ControlError::raft)?;
        let reads = ReadIndex::start(raft.clone());
        Ok(Self { raft, reads, peers, durable })
    }

    /// Why it cannot go on, if that is so.
    pub(super) fn failure(&self) -> Option<String> {
        if let Some(error) = self.durable.failure() {
            return Some(error.to_string());
        }
        match &self.raft.metrics().borrow().running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}
