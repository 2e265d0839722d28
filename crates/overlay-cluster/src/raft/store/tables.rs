//! The tables of a store's redb file: all but the log.
//!
//! | table      | key              | record                                                         |
//! |------------|------------------|----------------------------------------------------------------|
//! | `meta`     | name             | `StoreHeader`, `Vote`, `LogId`, `StoredSnapshot`, `LogSegments` |
//! | `snapshot` | generation, part | a piece of the snapshot                                        |
//!
//! Each record is sealed with the node's data key, for its place (C05); but for the header, which says
//! whose file it is and which key opens it, in clear after a CRC-32C. At open redb checks every page
//! that it wrote, and then every record is opened once: what is damaged is found before any of it is
//! used (R05).
//!
//! A snapshot is written piece by piece, so that log entries get in between, and counts once its
//! `StoredSnapshot` is there. Pieces without one, from a crash, are deleted at open.

mod write;

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use overlay_api::internal::v1 as wire;
use overlay_types::SpecError;
use prost::Message;
use redb::{
    Database, Durability, ReadableDatabase, TableDefinition, TableHandle, WriteTransaction,
};

use super::{
    Owner,
    error::StoreError,
    journal::{Range, StoreId},
    record::{Place, Records, checked_message, with_checksum},
};
use crate::raft::{
    codec::{self, Malformed},
    types::{LogId, Vote},
};

pub(super) use write::Row;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SNAPSHOT: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("snapshot");

const HEADER_KEY: &str = "header";
const VOTE_KEY: &str = "vote";
const PURGED_KEY: &str = "purged";
const SNAPSHOT_KEY: &str = "snapshot";
const SEGMENTS_KEY: &str = "segments";

/// Format of the file. A release reads its own and older ones.
const FORMAT: u32 = 1;

#[derive(Debug)]
pub(super) struct Tables {
    path: PathBuf,
    database: Database,
    records: Records,
    store: StoreId,
    /// The last generation of snapshot pieces that was begun.
    generation: AtomicU64,
}

impl Tables {
    /// Checks that the file is its owner's, and sound; a new one becomes its. `create` opens it, or makes
    /// it; messages name it by `path`.
    pub(super) fn open(
        path: &Path,
        owner: &Owner,
        create: impl FnOnce(&redb::Builder) -> Result<Database, redb::DatabaseError>,
    ) -> Result<Self, StoreError> {
        let database = create(Database::builder().set_check_integrity_on_open(true))
            .map_err(|source| database_error(path, source))?;
        let (records, generation) = (Records::new(&owner.key), AtomicU64::new(0));
        let (path, store) = (path.to_owned(), rand::random());
        let mut tables = Self { path, database, records, store, generation };
        match tables.header()? {
            Some(header) => tables.store = tables.check(&header, owner)?,
            None if tables.is_blank()? => tables.write_header(owner)?,
            None => return Err(StoreError::NotAStore { path: tables.path }),
        }
        tables.verify()?;
        Ok(tables)
    }

    /// Whether the database was just made.
    fn is_blank(&self) -> Result<bool, StoreError> {
        let tables = || {
            let tx = self.database.begin_read()?;
            Ok::<_, redb::Error>(tx.list_tables()?.map(|t| t.name().to_owned()).next())
        };
        tables().map(|first| first.is_none()).map_err(|source| self.error(source))
    }

    /// Reads every record, and checks that the snapshot has what the log has no more.
    fn verify(&self) -> Result<(), StoreError> {
        let damaged = |record: &str, reason: String| {
            let (path, record) = (self.path.clone(), record.to_owned());
            Err(StoreError::Damaged { path, record, reason })
        };
        self.vote()?;
        self.segments()?;
        let purged = self.purged()?;
        let stored = self.stored_snapshot()?;
        if let Some(purged) = purged
            && stored.as_ref().and_then(last_index) < Some(purged.index)
        {
            let reason = format!("it lacks log entries up to {}, which are purged", purged.index);
            return damaged(SNAPSHOT_KEY, reason);
        }
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

    fn check(&self, header: &wire::StoreHeader, owner: &Owner) -> Result<StoreId, StoreError> {
        let path = self.path.clone();
        if header.format > FORMAT {
            return Err(StoreError::Format { path, found: header.format, known: FORMAT });
        }
        for (what, found, expected) in [
            ("cluster", &header.cluster, owner.cluster.to_string()),
            ("node", &header.node, owner.node.to_string()),
        ] {
            if *found != expected {
                let found = found.clone();
                return Err(StoreError::Foreign { path, what, found, expected });
            }
        }
        if header.key_id != owner.key.id() {
            return Err(StoreError::OtherKey { path });
        }
        let id = header.id.as_slice().try_into();
        id.map_err(|_| SpecError::new("id", "", "it has not 16 bytes"))
            .map_err(|why| StoreError::damaged(&path, HEADER_KEY, &why))
    }

    fn write_header(&self, owner: &Owner) -> Result<(), StoreError> {
        let header = with_checksum(&wire::StoreHeader {
            format: FORMAT,
            cluster: owner.cluster.to_string(),
            node: owner.node.to_string(),
            key_id: owner.key.id().to_vec(),
            id: self.store.to_vec(),
        });
        self.transaction(Durability::Immediate, |tx| {
            tx.open_table(SNAPSHOT)?;
            tx.open_table(META)?.insert(HEADER_KEY, header.as_slice())?;
            Ok(())
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

    /// A record of the table `meta` as it stands there.
    fn meta_record(&self, key: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let tx = self.database.begin_read()?;
            match tx.open_table(META) {
                Ok(table) => Ok(table.get(key)?.map(|record| record.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(redb::Error::from(error)),
            }
        };
        read().map_err(|source| self.error(source))
    }

    fn header(&self) -> Result<Option<wire::StoreHeader>, StoreError> {
        let header = self.meta_record(HEADER_KEY)?.map(|record| checked_message(&record));
        self.checked(HEADER_KEY, header.transpose())
    }

    fn read_meta<M: Message + Default>(&self, key: &'static str) -> Result<Option<M>, StoreError> {
        let open = |record: Vec<u8>| self.records.open_message(Place::Meta(key), &record);
        self.checked(key, self.meta_record(key)?.map(open).transpose())
    }

    fn checked<T>(&self, what: &'static str, value: Result<T, Malformed>) -> Result<T, StoreError> {
        value.map_err(|why| StoreError::damaged(&self.path, what, &why))
    }

    pub(super) fn vote(&self) -> Result<Option<Vote>, StoreError> {
        let message = self.read_meta::<wire::Vote>(VOTE_KEY)?;
        let vote = message.map(|message| codec::vote_from_wire(Some(message))).transpose();
        self.checked(VOTE_KEY, vote)
    }

    pub(super) fn purged(&self) -> Result<Option<LogId>, StoreError> {
        self.checked(PURGED_KEY, codec::optional_log_id(self.read_meta(PURGED_KEY)?))
    }

    /// Which segments the log is in.
    pub(super) fn segments(&self) -> Result<Range, StoreError> {
        let message = self.read_meta::<wire::LogSegments>(SEGMENTS_KEY)?;
        Ok(message.map_or(Range::NONE, |wire::LogSegments { first, last }| Range { first, last }))
    }

    /// Tells the segments of this store's log from those of others.
    pub(super) const fn store(&self) -> StoreId {
        self.store
    }

    /// Seals what is written, and opens it.
    pub(super) const fn records(&self) -> &Records {
        &self.records
    }

    /// The last entry that the snapshot replaces.
    pub(super) fn snapshot_index(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.stored_snapshot()?.as_ref().and_then(last_index))
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
                .and_then(|record| {
                    self.records.open(Place::Piece(stored.generation, piece), record)
                })
                .map_err(|why| StoreError::damaged(&self.path, "snapshot", &why))?;
            data.extend_from_slice(&open);
        }
        if data.len() as u64 != stored.length {
            let why = SpecError::new("length", data.len(), format!("it had {}", stored.length));
            return Err(StoreError::damaged(&self.path, "snapshot", &why));
        }
        let meta = stored.meta.unwrap_or_default();
        Ok(Some((meta, data)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn last_index(stored: &wire::StoredSnapshot) -> Option<u64> {
    Some(stored.meta.as_ref()?.last_log_id.as_ref()?.index)
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
