//! What a manager can be measured by.

use core::time::Duration;

use super::Control;

/// Figures of a manager's raft core and watches, as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The raft term.
    pub term: u64,
    /// This manager leads.
    pub leads: bool,
    /// Managers that vote.
    pub voters: u64,
    /// Index of the last entry in the log.
    pub last_index: u64,
    /// Index of the last entry that the state includes.
    pub applied_index: u64,
    /// Index of the last entry that the snapshot on disk includes.
    pub snapshot_index: u64,
    /// Size of the last snapshot that it made since its start.
    pub snapshot_bytes: u64,
    /// How long that took, until it was on the disk.
    pub snapshot_time: Duration,
    /// Watches that this manager serves.
    pub watches: u64,
}

impl Control {
    /// Figures of this manager.
    pub fn figures(&self) -> Figures {
        let metrics = self.raft().metrics().borrow().clone();
        let made = self.0.core().growth.last();
        Figures {
            term: metrics.current_term,
            leads: metrics.current_leader == Some(self.node()),
            voters: metrics.membership_config.voter_ids().count() as u64,
            last_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.map_or(0, |log_id| log_id.index),
            snapshot_index: metrics.snapshot.map_or(0, |log_id| log_id.index),
            snapshot_bytes: made.bytes,
            snapshot_time: made.time,
            watches: self.replica().watches() as u64,
        }
    }
}
