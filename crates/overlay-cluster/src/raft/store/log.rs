//! The log: recent entries in memory, all of them in the file.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    error::StoreError,
    file::{File, Write, seal_entry},
    tail::Tail,
    writer::{Done, Writer},
};
use crate::raft::types::{Entry, LogId, StorageError, TypeConfig, Vote};

/// The log of a manager.
#[derive(Clone, Debug)]
pub struct LogStore {
    file: Arc<File>,
    writer: Writer,
    tail: Arc<Mutex<Tail>>,
}

impl LogStore {
    pub(super) fn new(file: Arc<File>, writer: Writer, tail: Arc<Mutex<Tail>>) -> Self {
        Self { file, writer, tail }
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
        written.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.file.vote();
        vote.map_err(|error| StorageIOError::read_vote(&io::Error::other(error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        // Nobody waits for it: it is only a hint for the next start.
        let (reply, _) = oneshot::channel();
        self.writer
            .submit(Write::Committed(committed), Done::Reply(reply))
            .map_err(|error| StorageIOError::write(&io::Error::other(error)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.file.committed().map_err(read_error)
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
        let mut records = Vec::new();
        for entry in entries {
            records.push((entry.log_id.index, seal_entry(&entry)));
            self.tail().append(entry);
        }
        self.writer
            .submit(Write::Append(records), Done::Flushed(callback))
            .map_err(|error| StorageIOError::write_logs(&io::Error::other(error)).into())
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
