//! The redb file: tables, and records with checksums.
//!
//! | table      | key              | record                                              |
//! |------------|------------------|-----------------------------------------------------|
//! | `meta`     | name             | `StoreHeader`, `Vote`, `LogId`, `StoredSnapshot`    |
//! | `log`      | index            | `Entry`                                             |
//! | `snapshot` | generation, part | a piece of the snapshot                             |
//!
//! Each record starts with the CRC-32C of the rest: redb checks the pages that it writes, and this
//! finds what changes on the disk afterwards.

use std::{
    ops::RangeBounds,
    path::{Path, PathBuf},
};

use overlay_api::internal::v1 as wire;
use overlay_types::{ClusterId, NodeId, SpecError};
use prost::Message;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::error::StoreError;
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

/// Bytes of a snapshot in one record: redb copies a record into one run of pages.
const PIECE: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    database: Database,
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
    Snapshot {
        meta: Box<wire::SnapshotMeta>,
        data: bytes::Bytes,
    },
}

impl File {
    pub(super) fn open(path: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|source| database_error(path, source))?;
        let file = Self { path: path.to_owned(), database };
        match file.read_meta::<wire::StoreHeader>(HEADER_KEY)? {
            Some(header) => file.check(&header, cluster, node)?,
            None => file.write_header(cluster, node)?,
        }
        Ok(file)
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
        // How far the log is committed is found out again after a crash.
        let lazy = writes.iter().all(|write| matches!(write, Write::Committed(_)));
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
        let records = (|| {
            let table = self.database.begin_read()?.open_table(LOG)?;
            let mut records = Vec::new();
            for item in table.range(range)? {
                let (index, record) = item?;
                records.push((index.value(), record.value().to_vec()));
            }
            Ok::<_, redb::Error>(records)
        })()
        .map_err(|source| self.error(source))?;
        records.iter().map(|(index, record)| self.open_entry(*index, record)).collect()
    }

    fn open_entry(&self, index: u64, record: &[u8]) -> Result<Entry, StoreError> {
        open_message(record)
            .and_then(codec::entry_from_wire)
            .map_err(|why| StoreError::damaged(&self.path, format!("log entry {index}"), &why))
    }

    /// The last snapshot that was written whole.
    pub(super) fn snapshot(&self) -> Result<Option<(wire::SnapshotMeta, Vec<u8>)>, StoreError> {
        let Some(stored) = self.read_meta::<wire::StoredSnapshot>(SNAPSHOT_KEY)? else {
            return Ok(None);
        };
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
        let meta = stored.meta.unwrap_or_default();
        Ok(Some((meta, data)))
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
        Write::Snapshot { meta, data } => put_snapshot(tx, meta, data),
    }
}

fn put_snapshot(
    tx: &WriteTransaction,
    meta: &wire::SnapshotMeta,
    data: &[u8],
) -> Result<(), redb::Error> {
    let mut table = tx.open_table(SNAPSHOT)?;
    let newest = table.last()?.map_or(0, |(key, _)| key.value().0);
    let generation = newest + 1;
    let mut pieces = 0;
    for piece in data.chunks(PIECE) {
        table.insert((generation, pieces), seal_record(piece).as_slice())?;
        pieces += 1;
    }
    table.retain_in(..(generation, 0), |_, _| false)?;
    drop(table);
    let stored = wire::StoredSnapshot {
        meta: Some(meta.clone()),
        generation,
        pieces,
        length: data.len() as u64,
    };
    put_meta(tx, SNAPSHOT_KEY, &stored)
}

fn put_meta(tx: &WriteTransaction, key: &str, message: &impl Message) -> Result<(), redb::Error> {
    let record = seal_record(&message.encode_to_vec());
    tx.open_table(META)?.insert(key, record.as_slice())?;
    Ok(())
}

fn database_error(path: &Path, source: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_owned(), source: Box::new(source.into()) }
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
