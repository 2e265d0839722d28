//! The state machine: applies committed entries to the replica, and makes and takes snapshots.

use std::{io, sync::Arc};

use bytes::Bytes;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError, storage::RaftStateMachine,
};

use overlay_api::internal::v1 as wire;
use tokio::time::Instant;

use super::{
    error::StoreError,
    file::{File, Write},
    growth::{Growth, Made},
    medium::aside,
    writer::Writer,
};
use crate::{
    raft::{
        codec,
        replica::{Applied, Replica},
        types::{
            Entry, LogId, Outcome, Snapshot, SnapshotMeta, StorageError, StoredMembership,
            TypeConfig,
        },
    },
    state::{State, wire::WireError},
};

/// Bytes of a snapshot in one record: redb copies a record into one run of pages, and log entries
/// wait while one is written.
pub(super) const PIECE: usize = 1 << 20;

/// Applies what is committed.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) file: Arc<File>,
    pub(super) writer: Writer,
    replica: Arc<Replica>,
    growth: Arc<Growth>,
}

impl Machine {
    pub(super) fn new(file: Arc<File>, writer: Writer, replica: Arc<Replica>) -> Self {
        Self { file, writer, replica, growth: Arc::default() }
    }

    /// How much log there is behind the last snapshot.
    pub fn growth(&self) -> Arc<Growth> {
        Arc::clone(&self.growth)
    }

    pub(super) async fn store(&self, meta: &SnapshotMeta, data: Bytes) -> Result<(), StorageError> {
        let written = self.write_pieces(meta, data).await;
        written
            .map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error).into())
    }

    /// One piece at a time: what the log has to write meanwhile goes first.
    async fn write_pieces(&self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let generation = self.file.next_generation();
        let (length, mut rest, mut pieces) = (data.len() as u64, data, 0);
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(PIECE));
            self.writer.write(Write::Piece { generation, number: pieces, data }).await?;
            pieces += 1;
        }
        let meta = Some(codec::snapshot_meta_to_wire(meta));
        let stored = wire::StoredSnapshot { meta, generation, pieces, length };
        self.writer.write(Write::Snapshot(Box::new(stored))).await
    }
}

/// The state that the file's snapshot holds; an empty one without a snapshot.
pub(super) fn load(file: &File) -> Result<Applied, StoreError> {
    let Some((meta, data)) = file.snapshot()? else { return Ok(Applied::default()) };
    let damaged = |why| StoreError::damaged(file.path(), "snapshot", &why);
    let meta = codec::snapshot_meta_from_wire(Some(meta)).map_err(damaged)?;
    applied(&meta, &data).map_err(|why| StoreError::Damaged {
        path: file.path().to_owned(),
        record: "snapshot".to_owned(),
        reason: why.to_string(),
    })
}

/// Has a replica take the file's snapshot, if that is ahead: a disk that failed may have written it whole.
pub(super) fn catch_up(replica: &Replica, file: &File) -> Result<(), StoreError> {
    let last = replica.lock().last.map(|last| last.index);
    if file.snapshot_index()? > last {
        replica.install(load(file)?);
    }
    Ok(())
}

fn applied(meta: &SnapshotMeta, data: &[u8]) -> Result<Applied, WireError> {
    Ok(Applied {
        state: State::decode(data)?,
        last: meta.last_log_id,
        membership: meta.last_membership.clone(),
    })
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.replica.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        if let Some(last) = entries.last().map(|entry| entry.log_id) {
            // The log of a leader runs ahead of its disk; what is applied does not.
            let durable = self.writer.durable().reach(last.index).await;
            durable.map_err(|error| StorageIOError::apply(last, &error))?;
        }
        self.growth.grow(entries.iter().map(codec::bytes_of).sum());
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            let outcome = match entry.payload {
                EntryPayload::Blank => self.replica.apply(entry.log_id, &[]),
                EntryPayload::Normal(batch) => self.replica.apply(entry.log_id, batch.commands()),
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembership::new(Some(entry.log_id), membership);
                    self.replica.apply_membership(stored);
                    Vec::new()
                }
            };
            outcomes.push(outcome);
        }
        self.replica.publish_progress();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Bytes>,
    ) -> Result<(), StorageError> {
        let applied = applied(meta, &snapshot).map_err(|why| {
            StorageIOError::read_snapshot(Some(meta.signature()), &io::Error::other(why))
        })?;
        self.store(meta, *snapshot).await?;
        self.replica.install(applied);
        self.growth.begin();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let read_error = |why| StorageIOError::read_snapshot(None, &io::Error::other(why));
        // A large snapshot takes longer to read than a heartbeat may wait.
        let file = Arc::clone(&self.file);
        let read = aside(move || file.snapshot()).await;
        let read = read.map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        let Some((meta, data)) = read.map_err(read_error)? else { return Ok(None) };
        let meta = codec::snapshot_meta_from_wire(Some(meta))
            .map_err(|why| StorageIOError::read_snapshot(None, &io::Error::other(why)))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(data.into()) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        // A large state takes longer to copy, and much longer to encode, than a heartbeat may wait.
        // Only the copying keeps writes from being applied.
        let replica = Arc::clone(&self.replica);
        let began = Instant::now();
        self.growth.begin();
        let encoded = aside(move || {
            let Applied { state, last, membership } = replica.lock().clone();
            (state.encode(), last, membership)
        });
        let encoded = encoded.await;
        let (data, last, membership) =
            encoded.map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        let id = last.map_or_else(|| "empty".to_owned(), |id| format!("{}", id.index));
        let meta = SnapshotMeta { last_log_id: last, last_membership: membership, snapshot_id: id };
        self.store(&meta, data.clone()).await?;
        self.growth.made(Made { bytes: data.len() as u64, time: began.elapsed() });
        Ok(Snapshot { meta, snapshot: Box::new(data) })
    }
}
