//! The log: recent entries in memory, all of them on the disk.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    EntryPayload, LeaderId, LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use overlay_types::NodeId;

use super::{
    durable::Durable,
    error::StoreError,
    file::{File, Write},
    tail::Tail,
    writer::{Done, Writer},
};
use crate::raft::types::{Entry, LogId, StorageError, TypeConfig, Vote};

/// Entries that a leader may be ahead of its own disk. Beyond, its raft core waits, so that a disk
/// that stands still stops the heartbeats and another manager takes over.
pub(super) const MAX_AHEAD: u64 = 1024;

/// The log of a manager.
///
/// A leader's own entries count as appended at once, so that its followers write them while it
/// does, and so that one sync takes many. Nobody acts on them before they are on the leader's disk
/// too: they are applied, and followers hear that they are committed, once [`Durable`] has them.
/// What makes that right:
///
/// - Only commands are treated so. Entries that change the group, and the one that begins a term,
///   are on the disk before raft counts them.
/// - Only by the leader of the term that they are of. A follower's answer says that it has them on
///   its disk.
/// - A leader that restarts may have lost the last of its own entries, so it does not lead on in
///   its term, where it could make different ones with the same ids: it forgets that it led.
#[derive(Clone, Debug)]
pub struct LogStore {
    node: NodeId,
    file: Arc<File>,
    writer: Writer,
    tail: Arc<Mutex<Tail>>,
    /// The term that this node leads.
    leads: Option<LeaderId<NodeId>>,
}

impl LogStore {
    pub(super) fn new(
        node: NodeId,
        file: Arc<File>,
        writer: Writer,
        tail: Arc<Mutex<Tail>>,
    ) -> Self {
        Self { node, file, writer, tail, leads: None }
    }

    /// How much of the log is on the disk.
    pub fn durable(&self) -> Durable {
        self.writer.durable().clone()
    }

    /// Whether raft may count the entry before it is on the disk.
    fn may_run_ahead(&self, entry: &Entry) -> bool {
        matches!(entry.payload, EntryPayload::Normal(_))
            && self.leads == Some(entry.log_id.leader_id)
            && entry.log_id.index < self.writer.durable().below() + MAX_AHEAD
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self, range: impl RangeBounds<u64> + Clone) -> Result<Vec<Entry>, StoreError> {
        let (first, recent) = self.tail().get(range.clone());
        let covered = match (first, range.start_bound()) {
            (Some(first), Bound::Included(start)) => first <= *start,
            (Some(first), Bound::Excluded(start)) => first <= start.saturating_add(1),
            _ => false,
        };
        if covered {
            return Ok(recent);
        }
        let mut older = self.file.entries(range)?;
        if let Some(first) = first {
            older.retain(|entry| entry.log_id.index < first);
        }
        older.extend(recent);
        Ok(older)
    }
}

fn read_error(error: StoreError) -> StorageError {
    StorageIOError::read_logs(&io::Error::other(error)).into()
}

fn write_error(error: Arc<StoreError>) -> StorageError {
    StorageIOError::write_logs(&io::Error::other(error)).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(range).map_err(read_error)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id = self.file.purged().map_err(read_error)?;
        let last = match self.tail().newest() {
            Some(log_id) => Some(log_id),
            None => self.file.last_entry().map_err(read_error)?.map(|entry| entry.log_id),
        };
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = self.writer.write(Write::Vote(*vote)).await;
        self.leads = Some(vote.leader_id).filter(|id| vote.committed && id.node_id == self.node);
        written.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.file.vote();
        vote.map_err(|error| StorageIOError::read_vote(&io::Error::other(error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        // Nobody waits for it: it is only a hint for the next start.
        self.writer
            .submit(Write::Committed(committed), Done::Unasked)
            .map_err(|error| StorageIOError::write(&io::Error::other(error)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.file.committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let ahead = entries.iter().all(|entry| self.may_run_ahead(entry));
        self.tail().append(&entries);
        let last = entries.last().map(|entry| entry.log_id.index);
        let write = Write::Append(entries);
        if !ahead {
            return self.writer.submit(write, Done::Flushed(callback)).map_err(write_error);
        }
        if let Some(last) = last {
            self.writer.mark().ran_ahead(last);
        }
        self.writer.submit(write, Done::Unasked).map_err(write_error)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let written = self.writer.write(Write::Truncate(log_id.index)).await;
        // What was queued before is written by now, so nothing raises the mark again.
        self.tail().truncate(log_id.index);
        written.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let written = self.writer.write(Write::Purge(log_id)).await;
        self.tail().purge(log_id.index);
        written.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
