//! A store on its medium: tables in a redb file, and the log in segments beside it.
//!
//! ```text
//!   writes ──┬── vote, snapshot ──► tables: a transaction
//!            ├── entries ─────────► log: a frame
//!            └── purge ───────────► once the snapshot that replaces it is there: tables first, then the
//!                                   log: what is gone was not needed
//! ```

use std::{
    fs, io,
    ops::RangeBounds,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay_api::internal::v1 as wire;

use super::{
    Owner,
    error::StoreError,
    journal::{Changes, Journal},
    medium::Disk,
    segments::{Beside, Segments, sync_name},
    tables::{Row, Tables},
};
use crate::raft::types::{Entry, LogId, Vote};

#[derive(Debug)]
pub(super) struct File {
    tables: Tables,
    journal: Journal,
    /// Raft needs the entries up to this one no more, but the snapshot that replaces them is not
    /// there: it has the log purged while it writes one that it received.
    unneeded: Mutex<Option<LogId>>,
    /// What it is on, if not in files of the machine.
    disk: Option<Arc<dyn Disk>>,
}

/// One change of the store.
#[derive(Debug)]
pub(super) enum Write {
    Vote(Vote),
    /// How far the log is committed: only a hint for the next start.
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    /// Deletes the entries from this index on.
    Truncate(u64),
    /// Deletes the entries up to this one, and remembers that they were there.
    Purge(LogId),
    /// A piece of a snapshot that does not count yet.
    Piece {
        generation: u64,
        number: u32,
        data: bytes::Bytes,
    },
    /// The snapshot whose pieces were written counts now.
    Snapshot(Box<wire::StoredSnapshot>),
}

impl Write {
    /// It appends entries that do not follow those before `next`.
    pub(super) fn begins_behind(&self, next: u64) -> bool {
        let Self::Append(entries) = self else { return false };
        entries.first().is_some_and(|first| first.log_id.index > next)
    }

    /// It is written to the log, in one frame with others of its kind.
    pub(super) const fn is_of_log(&self) -> bool {
        matches!(self, Self::Committed(_) | Self::Append(_) | Self::Truncate(_))
    }
}

impl File {
    pub(super) fn open(path: &Path, owner: &Owner) -> Result<Self, StoreError> {
        Self::open_by(path, owner, |builder| builder.create(path), Box::new(Beside::new(path)))
    }

    /// `create` opens the tables at `path`, or makes them; the log is in `segments`.
    pub(super) fn open_by(
        path: &Path,
        owner: &Owner,
        create: impl FnOnce(&redb::Builder) -> Result<redb::Database, redb::DatabaseError>,
        segments: Box<dyn Segments>,
    ) -> Result<Self, StoreError> {
        make_private(path)
            .map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        Self::opened(Tables::open(path, owner, create)?, segments, None)
    }

    /// Opens the store on `disk`; errors name it by `path`.
    pub(super) fn open_on(
        disk: &Arc<dyn Disk>,
        path: &Path,
        owner: &Owner,
    ) -> Result<Self, StoreError> {
        let tables = Tables::open(path, owner, |builder| disk.open(builder))?;
        Self::opened(tables, disk.segments(), Some(Arc::clone(disk)))
    }

    fn opened(
        tables: Tables,
        segments: Box<dyn Segments>,
        disk: Option<Arc<dyn Disk>>,
    ) -> Result<Self, StoreError> {
        let purged = tables.purged()?.map(|purged| purged.index);
        let (store, range, records) = (tables.store(), tables.segments()?, tables.records());
        let journal = Journal::open(segments, store, range, purged, records)?;
        Ok(Self { tables, journal, unneeded: Mutex::default(), disk })
    }

    /// Carries out `writes` in their order.
    pub(super) fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        for run in writes.chunk_by(|one, next| one.is_of_log() == next.is_of_log()) {
            if run.first().is_some_and(Write::is_of_log) {
                self.write_log(run)?;
            } else {
                self.write_tables(run)?;
            }
        }
        Ok(())
    }

    fn write_log(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        for write in writes {
            match write {
                Write::Committed(committed) => self.journal.set_committed(*committed),
                Write::Append(entries) => changes.append(entries),
                Write::Truncate(from) => changes.truncate(*from),
                _ => {}
            }
        }
        if changes.is_empty() { Ok(()) } else { self.append(&changes) }
    }

    fn append(&self, changes: &Changes) -> Result<(), StoreError> {
        if let Some(range) = self.journal.wants_segment() {
            self.journal.make_segment(range)?;
            self.tables.write(&[Row::Segments(range)])?;
            self.journal.use_segments(range);
        }
        self.journal.append(changes, self.tables.records())
    }

    fn write_tables(&self, writes: &[Write]) -> Result<(), StoreError> {
        let purge = writes.iter().filter_map(|write| match write {
            Write::Purge(upto) => Some(*upto),
            _ => None,
        });
        let rows = writes.iter().filter_map(|write| match write {
            Write::Vote(vote) => Some(Row::Vote(*vote)),
            Write::Piece { generation, number, data } => {
                Some(Row::Piece { generation: *generation, number: *number, data })
            }
            Write::Snapshot(stored) => Some(Row::Snapshot(stored)),
            _ => None,
        });
        let rows = rows.collect::<Vec<_>>();
        if !rows.is_empty() {
            self.tables.write(&rows)?;
        }
        let mut unneeded = self.unneeded();
        *unneeded = purge.chain(*unneeded).max();
        let Some(upto) = *unneeded else { return Ok(()) };
        if self.tables.snapshot_index()? < Some(upto.index) {
            self.journal.forget(upto.index);
            return Ok(());
        }
        let range = self.journal.after_purge(upto.index);
        self.tables.write(&[Row::Purged(upto), Row::Segments(range)])?;
        *unneeded = None;
        self.journal.purge(upto.index, range)
    }

    /// Whether a snapshot is to fill the gap between the log on the disk and what follows.
    pub(super) fn awaits_snapshot(&self) -> bool {
        self.unneeded().is_some()
    }

    /// The index that the log on the disk goes on with.
    pub(super) fn next_index(&self) -> u64 {
        self.journal.next_index()
    }

    fn unneeded(&self) -> MutexGuard<'_, Option<LogId>> {
        self.unneeded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what may wait until now. Nobody learns from an error that it did not know.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        if self.journal.is_behind() { self.append(&Changes::default()) } else { Ok(()) }
    }

    /// A number that no other snapshot's pieces have.
    pub(super) fn next_generation(&self) -> u64 {
        self.tables.next_generation()
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>, StoreError> {
        self.tables.vote()
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.journal.committed()
    }

    pub(super) fn purged(&self) -> Result<Option<LogId>, StoreError> {
        match *self.unneeded() {
            Some(upto) => Ok(Some(upto)),
            None => self.tables.purged(),
        }
    }

    pub(super) fn last_entry(&self) -> Result<Option<Entry>, StoreError> {
        self.journal.last(self.tables.records())
    }

    pub(super) fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.for_each_entry(range, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    /// Takes the entries in `range` one by one.
    pub(super) fn for_each_entry(
        &self,
        range: impl RangeBounds<u64>,
        take: impl FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.journal.for_each(range, self.tables.records(), take)
    }

    /// The last entry that the snapshot replaces.
    pub(super) fn snapshot_index(&self) -> Result<Option<u64>, StoreError> {
        self.tables.snapshot_index()
    }

    /// The last snapshot that was written whole.
    pub(super) fn snapshot(&self) -> Result<Option<(wire::SnapshotMeta, Vec<u8>)>, StoreError> {
        self.tables.snapshot()
    }

    /// What it is on, if not in files of the machine.
    pub(super) fn disk(&self) -> Option<&Arc<dyn Disk>> {
        self.disk.as_ref()
    }

    pub(super) fn path(&self) -> &Path {
        self.tables.path()
    }
}

/// Makes the file, if there is none, so that only its owner can read it: it holds the CA's key.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => sync_name(path),
    }
}
