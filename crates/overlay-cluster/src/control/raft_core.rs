//! A raft core on its state file, from the opening of the file to the first error.

use core::ops::Range;
use std::sync::Arc;

use openraft::{Config as RaftConfig, SnapshotPolicy, error::Fatal};
use overlay_types::NodeId;

use super::{ControlConfig, ControlError, proposals::Proposals, read_index::ReadIndex};
use crate::raft::{
    replica::Replica,
    store::{Durable, Growth, Store, StoreError},
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
    pub(super) proposals: Proposals,
    pub(super) peers: Peers,
    pub(super) growth: Arc<Growth>,
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
        let growth = machine.growth();
        let raft = Raft::new(settings.node, config, peers.clone(), log, machine).await;
        let raft = raft.map_err(ControlError::raft)?;
        tokio::spawn(keep_log_short(raft.clone(), Arc::clone(&growth)));
        let (reads, proposals) = (ReadIndex::start(raft.clone()), Proposals::start(raft.clone()));
        Ok(Self { raft, reads, proposals, peers, growth, durable })
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

/// Has a snapshot made when one is due by the size of the log, until the core ends. By the number
/// of entries raft does it itself.
async fn keep_log_short(raft: Raft, growth: Arc<Growth>) {
    let mut metrics = raft.server_metrics();
    loop {
        tokio::select! {
            () = growth.due() => {
                // One that is being made counts; it is due again if it came too late.
                if raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}
