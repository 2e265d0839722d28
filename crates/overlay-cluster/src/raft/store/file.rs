//! The redb file: tables, and records with checksums.
//!
//! | table      | key              | record                                              |
//! |------------|------------------|-----------------------------------------------------|
//! | `meta`     | name             | `StoreHeader`, `Vote`, `LogId`, `StoredSnapshot`    |
//! | `log`      | index            | `Entry`                                             |
//! | `snapshot` | generation, part | a piece of the snapshot                             |
//!
//! Each record starts with the CRC-32C of the rest. At open redb checks every page that it wrote, and
//! then every record is read once: what is damaged is found before any of it is used (R05).
//!
//! A snapshot is written piece by piece, so that log entries get in between, and counts once its
//! `StoredSnapshot` is there. Pieces without one, from a crash, are deleted at open.

use std::{
    fs, io,
    ops::RangeBounds,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use overlay_api::internal::v1 as wire;
use overlay_types::{ClusterId, NodeId, SpecError};
use prost::Message;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableHandle,
    WriteTransaction,
};

use super::{error::StoreError, medium::Disk};
use crate::raft::{
    codec::{self, Malformed},
    types::{Entry, LogId, Vote},
};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const SNAPSHOT: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("snapshot");

const HEADER_KEY: &str = "header";
const VOTE_KEY: &str = "vote";
const COMMITTED_KEY: &str = "committed";
const PURGED_KEY: &str = "purged";
const SNAPSHOT_KEY: &str = "snapshot";

/// Format of the file. A release reads its own and older ones.
const FORMAT: u32 = 1;

#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    database: Database,
    /// What it is on, if not in a file of the machine.
    disk: Option<Arc<dyn Disk>>,
    /// The last generation of snapshot pieces that was begun.
    generation: AtomicU64,
}

/// One change of the file; several share a transaction.
#[derive(Debug)]
pub(super) enum Write {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<(u64, Vec<u8>)>),
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

impl File {
    pub(super) fn open(path: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, StoreError> {
        Self::open_by(path, cluster, node, |builder| builder.create(path))
    }

    /// `create` opens the file at `path`, or makes it.
    pub(super) fn open_by(
        path: &Path,
        cluster: ClusterId,
        node: NodeId,
        create: impl FnOnce(&redb::Builder) -> Result<Database, redb::DatabaseError>,
    ) -> Result<Self, StoreError> {
        make_private(path)
            .map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        Self::opened(path, None, create)?.checked_as_of(cluster, node)
    }

    /// Opens the database on `disk`; errors name it by `path`.
    pub(super) fn open_on(
        disk: &Arc<dyn Disk>,
        path: &Path,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Self, StoreError> {
        let file = Self::opened(path, Some(Arc::clone(disk)), |builder| disk.open(builder))?;
        file.checked_as_of(cluster, node)
    }

    fn opened(
        path: &Path,
        disk: Option<Arc<dyn Disk>>,
        create: impl FnOnce(&redb::Builder) -> Result<Database, redb::DatabaseError>,
    ) -> Result<Self, StoreError> {
        let database = create(Database::builder().set_check_integrity_on_open(true))
            .map_err(|source| database_error(path, source))?;
        Ok(Self { path: path.to_owned(), database, disk, generation: AtomicU64::new(0) })
    }

    /// Checks that it is the file of this node, and sound; a new one becomes its.
    fn checked_as_of(self, cluster: ClusterId, node: NodeId) -> Result<Self, StoreError> {
        let file = self;
        match file.read_meta::<wire::StoreHeader>(HEADER_KEY)? {
            Some(header) => file.check(&header, cluster, node)?,
            None if file.is_blank()? => file.write_header(cluster, node)?,
            None => return Err(StoreError::NotAStore { path: file.path }),
        }
        file.verify()?;
        Ok(file)
    }

    /// Whether the database was just made.
    fn is_blank(&self) -> Result<bool, StoreError> {
        let tables = || {
            let tx = self.database.begin_read()?;
            Ok::<_, redb::Error>(tx.list_tables()?.map(|t| t.name().to_owned()).next())
        };
        tables().map(|first| first.is_none()).map_err(|source| self.error(source))
    }

    /// Reads every record, and checks that snapshot and log make one history.
    fn verify(&self) -> Result<(), StoreError> {
        let damaged = |record: &str, reason: String| {
            let (path, record) = (self.path.clone(), record.to_owned());
            Err(StoreError::Damaged { path, record, reason })
        };
        self.vote()?;
        self.committed()?;
        let purged = self.purged()?;
        let stored = self.stored_snapshot()?;
        let last = stored.as_ref().and_then(|s| s.meta.as_ref()?.last_log_id.as_ref());
        if let Some(purged) = purged
            && last.is_none_or(|last| last.index < purged.index)
        {
            let reason = format!("it lacks log entries up to {}, which are purged", purged.index);
            return damaged(SNAPSHOT_KEY, reason);
        }
        let first = purged.map_or(0, |purged| purged.index + 1);
        let mut next = first;
        self.for_each_entry(first.., |entry| {
            if entry.log_id.index != next {
                return damaged("log", format!("entry {next} is missing"));
            }
            next += 1;
            Ok(())
        })?;
        self.forget_pieces(stored.map(|s| s.generation))
    }

    /// Deletes the pieces of snapshots that were never finished.
    fn forget_pieces(&self, kept: Option<u64>) -> Result<(), StoreError> {
        self.generation.store(kept.unwrap_or(0), Ordering::Relaxed);
        self.transaction(Durability::Immediate, |tx| {
            tx.open_table(SNAPSHOT)?.retain(|(generation, _), _| Some(generation) == kept)?;
            Ok(())
        })
    }

    /// A number that no other snapshot's pieces have.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn check(
        &self,
        header: &wire::StoreHeader,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<(), StoreError> {
        let path = self.path.clone();
        if header.format > FORMAT {
            return Err(StoreError::Format { path, found: header.format, known: FORMAT });
        }
        for (what, found, expected) in [
            ("cluster", &header.cluster, cluster.to_string()),
            ("node", &header.node, node.to_string()),
        ] {
            if *found != expected {
                let found = found.clone();
                return Err(StoreError::Foreign { path, what, found, expected });
            }
        }
        Ok(())
    }

    fn write_header(&self, cluster: ClusterId, node: NodeId) -> Result<(), StoreError> {
        let header = wire::StoreHeader {
            format: FORMAT,
            cluster: cluster.to_string(),
            node: node.to_string(),
        };
        self.transaction(Durability::Immediate, |tx| {
            tx.open_table(LOG)?;
            tx.open_table(SNAPSHOT)?;
            put_meta(tx, HEADER_KEY, &header)
        })
    }

    fn error(&self, source: impl Into<redb::Error>) -> StoreError {
        database_error(&self.path, source)
    }

    fn transaction(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let run = || {
            let mut tx = self.database.begin_write()?;
            tx.set_durability(durability)?;
            work(&tx)?;
            tx.commit()?;
            Ok::<_, redb::Error>(())
        };
        run().map_err(|source| self.error(source))
    }

    /// Carries out `writes` in one transaction.
    pub(super) fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        // How far the log is committed is found out again after a crash, and a piece does not count
        // before its snapshot does.
        let lazy = |write: &Write| matches!(write, Write::Committed(_) | Write::Piece { .. });
        let lazy = writes.iter().all(lazy);
        let durability = if lazy { Durability::None } else { Durability::Immediate };
        self.transaction(durability, |tx| writes.iter().try_for_each(|write| carry_out(tx, write)))
    }

    fn read_meta<M: Message + Default>(&self, key: &'static str) -> Result<Option<M>, StoreError> {
        let record = (|| {
            let tx = self.database.begin_read()?;
            match tx.open_table(META) {
                Ok(table) => Ok(table.get(key)?.map(|record| record.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(redb::Error::from(error)),
            }
        })()
        .map_err(|source| self.error(source))?;
        record
            .map(|record| open_message(&record))
            .transpose()
            .map_err(|why| StoreError::damaged(&self.path, key, &why))
    }

    fn checked<T>(&self, what: &'static str, value: Result<T, Malformed>) -> Result<T, StoreError> {
        value.map_err(|why| StoreError::damaged(&self.path, what, &why))
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>, StoreError> {
        let message = self.read_meta::<wire::Vote>(VOTE_KEY)?;
        let vote = message.map(|message| codec::vote_from_wire(Some(message))).transpose();
        self.checked(VOTE_KEY, vote)
    }

    pub(super) fn committed(&self) -> Result<Option<LogId>, StoreError> {
        self.checked(COMMITTED_KEY, codec::optional_log_id(self.read_meta(COMMITTED_KEY)?))
    }

    pub(super) fn purged(&self) -> Result<Option<LogId>, StoreError> {
        self.checked(PURGED_KEY, codec::optional_log_id(self.read_meta(PURGED_KEY)?))
    }

    pub(super) fn last_entry(&self) -> Result<Option<Entry>, StoreError> {
        let record = (|| {
            let table = self.database.begin_read()?.open_table(LOG)?;
            let last =
                table.last()?.map(|(index, record)| (index.value(), record.value().to_vec()));
            Ok::<_, redb::Error>(last)
        })()
        .map_err(|source| self.error(source))?;
        record.map(|(index, record)| self.open_entry(index, &record)).transpose()
    }

    pub(super) fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.for_each_entry(range, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    fn for_each_entry(
        &self,
        range: impl RangeBounds<u64>,
        mut take: impl FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let open = || Ok::<_, redb::Error>(self.database.begin_read()?.open_table(LOG)?);
        let table = open().map_err(|source| self.error(source))?;
        for item in table.range(range).map_err(|source| self.error(source))? {
            let (index, record) = item.map_err(|source| self.error(source))?;
            take(self.open_entry(index.value(), record.value())?)?;
        }
        Ok(())
    }

    fn open_entry(&self, index: u64, record: &[u8]) -> Result<Entry, StoreError> {
        open_message(record)
            .and_then(codec::entry_from_wire)
            .and_then(|entry| match entry.log_id.index {
                found if found == index => Ok(entry),
                found => Err(SpecError::new("index", found, "it is that of another entry")),
            })
            .map_err(|why| StoreError::damaged(&self.path, format!("log entry {index}"), &why))
    }

    fn stored_snapshot(&self) -> Result<Option<wire::StoredSnapshot>, StoreError> {
        self.read_meta(SNAPSHOT_KEY)
    }

    /// The last snapshot that was written whole.
    pub(super) fn snapshot(&self) -> Result<Option<(wire::SnapshotMeta, Vec<u8>)>, StoreError> {
        let Some(stored) = self.stored_snapshot()? else { return Ok(None) };
        let mut data = Vec::new();
        for piece in 0..stored.pieces {
            let record = (|| {
                let table = self.database.begin_read()?.open_table(SNAPSHOT)?;
                let record = table.get((stored.generation, piece))?.map(|r| r.value().to_vec());
                Ok::<_, redb::Error>(record)
            })()
            .map_err(|source| self.error(source))?;
            let open = record
                .as_deref()
                .ok_or_else(|| SpecError::new("piece", piece, "it is missing"))
                .and_then(open_record)
                .map_err(|why| StoreError::damaged(&self.path, "snapshot", &why))?;
            data.extend_from_slice(open);
        }
        if data.len() as u64 != stored.length {
            let why = SpecError::new("length", data.len(), format!("it had {}", stored.length));
            return Err(StoreError::damaged(&self.path, "snapshot", &why));
        }
        let meta = stored.meta.unwrap_or_default();
        Ok(Some((meta, data)))
    }

    /// What it is on, if not in a file of the machine.
    pub(super) fn disk(&self) -> Option<&Arc<dyn Disk>> {
        self.disk.as_ref()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn carry_out(tx: &WriteTransaction, write: &Write) -> Result<(), redb::Error> {
    match write {
        Write::Vote(vote) => put_meta(tx, VOTE_KEY, &codec::vote_to_wire(*vote)),
        Write::Committed(Some(log_id)) => {
            put_meta(tx, COMMITTED_KEY, &codec::log_id_to_wire(*log_id))
        }
        Write::Committed(None) => {
            tx.open_table(META)?.remove(COMMITTED_KEY)?;
            Ok(())
        }
        Write::Append(entries) => {
            let mut table = tx.open_table(LOG)?;
            for (index, record) in entries {
                table.insert(index, record.as_slice())?;
            }
            Ok(())
        }
        Write::Truncate(from) => {
            tx.open_table(LOG)?.retain_in(*from.., |_, _| false)?;
            Ok(())
        }
        Write::Purge(upto) => {
            tx.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
            put_meta(tx, PURGED_KEY, &codec::log_id_to_wire(*upto))
        }
        Write::Piece { generation, number, data } => {
            let record = seal_record(data);
            tx.open_table(SNAPSHOT)?.insert((*generation, *number), record.as_slice())?;
            Ok(())
        }
        Write::Snapshot(stored) => put_snapshot(tx, stored),
    }
}

/// Makes the file, if there is none, so that only its owner can read it: it holds the CA's key.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            // Its name, too, survives a power loss.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        }
    }
}

/// Replaces the snapshot, unless the one that counts is newer: one that was built slowly must not
/// undo one that was received meanwhile.
fn put_snapshot(tx: &WriteTransaction, new: &wire::StoredSnapshot) -> Result<(), redb::Error> {
    let last = |stored: &wire::StoredSnapshot| {
        stored.meta.as_ref().and_then(|meta| Some(meta.last_log_id.as_ref()?.index))
    };
    let old = tx.open_table(META)?.get(SNAPSHOT_KEY)?.map(|record| record.value().to_vec());
    // One that cannot be read was found at open; here it is replaced.
    let old = old.and_then(|record| open_message::<wire::StoredSnapshot>(&record).ok());
    let mut table = tx.open_table(SNAPSHOT)?;
    let pieces = (new.generation, 0)..(new.generation + 1, 0);
    let complete = table.range(pieces.clone())?.count() == new.pieces as usize;
    if !complete || old.is_some_and(|old| last(&old) > last(new)) {
        table.retain_in(pieces, |_, _| false)?;
        return Ok(());
    }
    table.retain_in(..(new.generation, 0), |_, _| false)?;
    drop(table);
    put_meta(tx, SNAPSHOT_KEY, new)
}

fn put_meta(tx: &WriteTransaction, key: &str, message: &impl Message) -> Result<(), redb::Error> {
    let record = seal_record(&message.encode_to_vec());
    tx.open_table(META)?.insert(key, record.as_slice())?;
    Ok(())
}

fn database_error(path: &Path, source: impl Into<redb::Error>) -> StoreError {
    let path = path.to_owned();
    match source.into() {
        redb::Error::Corrupted(reason) => {
            StoreError::Damaged { path, record: "a page".to_owned(), reason }
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            StoreError::NotAStore { path }
        }
        source => StoreError::Database { path, source: Box::new(source) },
    }
}

/// An entry as it is stored.
pub(super) fn seal_entry(entry: &Entry) -> Vec<u8> {
    seal_record(&codec::entry_to_wire(entry).encode_to_vec())
}

fn seal_record(content: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(4 + content.len());
    record.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
    record.extend_from_slice(content);
    record
}

fn open_record(record: &[u8]) -> Result<&[u8], Malformed> {
    match record.split_first_chunk() {
        Some((sum, content)) if u32::from_be_bytes(*sum) == crc32c::crc32c(content) => Ok(content),
        _ => Err(SpecError::new("checksum", "", "it is not that of the content")),
    }
}

fn open_message<M: Message + Default>(record: &[u8]) -> Result<M, Malformed> {
    M::decode(open_record(record)?)
        .map_err(|error| SpecError::new("record", "", format!("it cannot be decoded: {error}")))
}
