//! Changes of the tables.

use overlay_api::internal::v1 as wire;
use redb::{Durability, ReadableTable, WriteTransaction};

use super::{META, PURGED_KEY, SEGMENTS_KEY, SNAPSHOT, SNAPSHOT_KEY, Tables, VOTE_KEY, last_index};
use crate::raft::{
    codec,
    store::{error::StoreError, journal::Range, record::Place},
    types::{LogId, Vote},
};

/// One change of the tables; several share a transaction.
#[derive(Debug)]
pub(in crate::raft::store) enum Row<'a> {
    Vote(Vote),
    /// The log's entries up to this one are gone.
    Purged(LogId),
    /// Which segments the log is in.
    Segments(Range),
    /// A piece of a snapshot that does not count yet.
    Piece {
        generation: u64,
        number: u32,
        data: &'a [u8],
    },
    /// The snapshot whose pieces were written counts now.
    Snapshot(&'a wire::StoredSnapshot),
}

impl Tables {
    /// Carries out `rows` in one transaction.
    pub(in crate::raft::store) fn write(&self, rows: &[Row<'_>]) -> Result<(), StoreError> {
        // A piece does not count before its snapshot does.
        let lazy = rows.iter().all(|row| matches!(row, Row::Piece { .. }));
        let durability = if lazy { Durability::None } else { Durability::Immediate };
        let carry_out = |tx: &_| rows.iter().try_for_each(|row| self.carry_out(tx, row));
        self.transaction(durability, carry_out)
    }

    fn carry_out(&self, tx: &WriteTransaction, row: &Row<'_>) -> Result<(), redb::Error> {
        match row {
            Row::Vote(vote) => self.put_meta(tx, VOTE_KEY, &codec::vote_to_wire(*vote)),
            Row::Purged(upto) => self.put_meta(tx, PURGED_KEY, &codec::log_id_to_wire(*upto)),
            Row::Segments(Range { first, last }) => {
                let message = wire::LogSegments { first: *first, last: *last };
                self.put_meta(tx, SEGMENTS_KEY, &message)
            }
            Row::Piece { generation, number, data } => {
                let record = self.records.seal(Place::Piece(*generation, *number), data);
                tx.open_table(SNAPSHOT)?.insert((*generation, *number), record.as_slice())?;
                Ok(())
            }
            Row::Snapshot(stored) => self.put_snapshot(tx, stored),
        }
    }

    /// Replaces the snapshot, unless the one that counts is newer: one that was built slowly must
    /// not undo one that was received meanwhile.
    fn put_snapshot(
        &self,
        tx: &WriteTransaction,
        new: &wire::StoredSnapshot,
    ) -> Result<(), redb::Error> {
        let old = tx.open_table(META)?.get(SNAPSHOT_KEY)?.map(|record| record.value().to_vec());
        let open = |record: Vec<u8>| self.records.open_message(Place::Meta(SNAPSHOT_KEY), &record);
        // One that cannot be read was found at open; here it is replaced.
        let old: Option<wire::StoredSnapshot> = old.and_then(|record| open(record).ok());
        let mut table = tx.open_table(SNAPSHOT)?;
        let pieces = (new.generation, 0)..(new.generation + 1, 0);
        let complete = table.range(pieces.clone())?.count() == new.pieces as usize;
        if !complete || old.is_some_and(|old| last_index(&old) > last_index(new)) {
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
