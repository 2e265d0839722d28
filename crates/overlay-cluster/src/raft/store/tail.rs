//! The newest entries of the log, in memory.

use std::{collections::BTreeMap, ops::RangeBounds};

use crate::raft::{
    codec::bytes_of,
    types::{Entry, LogId},
};

/// Entries kept besides those that are not on the disk yet: what followers usually still need, so
/// that replication does not read the file.
const RECENT: usize = 4096;
/// Bytes of their commands that are kept besides, as they are stored; in memory they take three
/// times as much.
const RECENT_BYTES: usize = 16 << 20;

/// The newest entries, without gaps; whatever is not in here is on the disk.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: BTreeMap<u64, Entry>,
    /// Bytes of their commands.
    bytes: usize,
    /// Entries up to this index are on the disk.
    flushed: u64,
}

impl Tail {
    /// The index of the oldest entry in here, and the entries in `range`.
    pub(super) fn get(&self, range: impl RangeBounds<u64>) -> (Option<u64>, Vec<Entry>) {
        let first = self.entries.first_key_value().map(|(index, _)| *index);
        (first, self.entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    pub(super) fn newest(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id)
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.bytes += bytes_of(entry);
            let replaced = self.entries.insert(entry.log_id.index, entry.clone());
            self.forget(replaced.iter());
        }
    }

    /// Forgets the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        let gone = self.entries.split_off(&index);
        self.forget(gone.values());
        self.flushed = self.flushed.min(index.saturating_sub(1));
    }

    /// Forgets the entries up to `index`.
    pub(super) fn purge(&mut self, index: u64) {
        let kept = self.entries.split_off(&(index + 1));
        let gone = std::mem::replace(&mut self.entries, kept);
        self.forget(gone.values());
    }

    /// The entries up to `index` are on the disk: forgets those that are not recent.
    pub(super) fn flushed_up_to(&mut self, index: u64) {
        self.flushed = self.flushed.max(index);
        while self.entries.len() > RECENT || self.bytes > RECENT_BYTES {
            match self.entries.first_entry() {
                Some(oldest) if *oldest.key() <= self.flushed => {
                    let gone = oldest.remove();
                    self.forget([&gone]);
                }
                _ => break,
            }
        }
    }

    fn forget<'a>(&mut self, gone: impl IntoIterator<Item = &'a Entry>) {
        self.bytes -= gone.into_iter().map(bytes_of).sum::<usize>();
    }
}
