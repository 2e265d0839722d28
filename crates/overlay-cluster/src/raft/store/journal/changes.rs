//! What is written to the log at once.

use crate::raft::types::Entry;

/// What is written at once.
#[derive(Debug, Default)]
pub(in crate::raft::store) struct Changes {
    /// Entries from this index on are deleted first.
    pub(super) truncate: Option<u64>,
    /// Then these are appended.
    pub(super) entries: Vec<Entry>,
}

impl Changes {
    /// Behind those before, or in place of them from the first index on.
    pub(in crate::raft::store) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            let begin = first.log_id.index;
            self.entries.retain(|entry| entry.log_id.index < begin);
            self.entries.extend_from_slice(entries);
        }
    }

    pub(in crate::raft::store) fn truncate(&mut self, from: u64) {
        self.entries.retain(|entry| entry.log_id.index < from);
        self.truncate = Some(self.truncate.map_or(from, |earlier| earlier.min(from)));
    }

    pub(in crate::raft::store) const fn is_empty(&self) -> bool {
        self.truncate.is_none() && self.entries.is_empty()
    }
}
