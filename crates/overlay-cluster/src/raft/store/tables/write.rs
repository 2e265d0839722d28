//! Changes of the file.

use overlay_api::internal::v1 as wire;
use redb::{Durability, ReadableTable, WriteTransaction};

use super::{COMMITTED_KEY, File, LOG, META, PURGED_KEY, SNAPSHOT, SNAPSHOT_KEY, VOTE_KEY};
use crate::raft::{
    codec,
    store::{error::StoreError, record::Place},
    types::{LogId, Vote},
};

/// One change of the file; several share a transaction.
#[derive(Debug)]
pub(in crate::raft::store) enum Write {
    Vote(Vote),
    Committed(Option<LogId>),
    /// Indexes, and records that [`File::records`] sealed.
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
    /// Carries out `writes` in one transaction.
    pub(in crate::raft::store) fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        // How far the log is committed is found out again after a crash, and a piece does not count
        // before its snapshot does.
        let lazy = |write: &Write| matches!(write, Write::Committed(_) | Write::Piece { .. });
        let lazy = writes.iter().all(lazy);
        let durability = if lazy { Durability::None } else { Durability::Immediate };
        let carry_out = |tx: &_| writes.iter().try_for_each(|write| self.carry_out(tx, write));
        self.transaction(durability, carry_out)
    }

    fn carry_out(&self, tx: &WriteTransaction, write: &Write) -> Result<(), redb::Error> {
        match write {
            Write::Vote(vote) => self.put_meta(tx, VOTE_KEY, &codec::vote_to_wire(*vote)),
            Write::Committed(Some(log_id)) => {
                self.put_meta(tx, COMMITTED_KEY, &codec::log_id_to_wire(*log_id))
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
                self.put_meta(tx, PURGED_KEY, &codec::log_id_to_wire(*upto))
            }
            Write::Piece { generation, number, data } => {
                let record = self.records.seal(Place::Piece(*generation, *number), data);
                tx.open_table(SNAPSHOT)?.insert((*generation, *number), record.as_slice())?;
                Ok(())
            }
            Write::Snapshot(stored) => self.put_snapshot(tx, stored),
        }
    }

    /// Replaces the snapshot, unless the one that counts is newer: one that was built slowly must
    /// not undo one that was received meanwhile.
    fn put_snapshot(
        &self,
        tx: &WriteTransaction,
        new: &wire::StoredSnapshot,
    ) -> Result<(), redb::Error> {
        let last = |stored: &wire::StoredSnapshot| {
            stored.meta.as_ref().and_then(|meta| Some(meta.last_log_id.as_ref()?.index))
        };
        let old = tx.open_table(META)?.get(SNAPSHOT_KEY)?.map(|record| record.value().to_vec());
        let open = |record: Vec<u8>| self.records.open_message(Place::Meta(SNAPSHOT_KEY), &record);
        // One that cannot be read was found at open; here it is replaced.
        let old: Option<wire::StoredSnapshot> = old.and_then(|record| open(record).ok());
        let mut table = tx.open_table(SNAPSHOT)?;
        let pieces = (new.generation, 0)..(new.generation + 1, 0);
        let complete = table.range(pieces.clone())?.count() == new.pieces as usize;
        if !complete || old.is_some_and(|old| last(&old) > last(new)) {
            table.retain_in(pieces, |_, _| false)?;
            return Ok(());
        }
        table.retain_in(..(new.generation, 0), |_, _| false)?;
        drop(table);
        self.put_meta(tx, SNAPSHOT_KEY, new)
    }

    fn put_meta(
        &self,
        tx: &WriteTransaction,
        key: &'static str,
        message: &impl prost::Message,
    ) -> Result<(), redb::Error> {
        let record = self.records.seal_message(Place::Meta(key), message);
        tx.open_table(META)?.insert(key, record.as_slice())?;
        Ok(())
    }
}
