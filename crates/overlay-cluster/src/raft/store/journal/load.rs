//! Opening the log: every frame is opened once, and the end is mended.

use std::{io, sync::Mutex};

use overlay_types::SpecError;
use redb::StorageBackend;

use super::{Journal, Range, Spot, StoreId, Writing, decode};
use crate::raft::{
    codec::{self, Malformed},
    store::{
        error::StoreError,
        record::Records,
        segment::{self, End, Frame, Rest},
        segments::Segments,
    },
};

impl Journal {
    /// Opens the segments in `range`, whose entries up to `purged` do not count any more, and deletes
    /// all others that are there.
    pub(in crate::raft::store) fn open(
        folder: Box<dyn Segments>,
        store: StoreId,
        range: Range,
        purged: Option<u64>,
        records: &Records,
    ) -> Result<Self, StoreError> {
        let writing = Writing { segments: range, end: End::default(), committed: None };
        let (index, writing) = (Mutex::default(), Mutex::new(writing));
        let journal = Self { folder, store, index, writing };
        let found = journal.folder.numbers().map_err(|source| journal.error(range.last, source))?;
        for number in range.first..=range.last {
            if !found.contains(&number) {
                let why = SpecError::new("segment", number, "the file is gone");
                return Err(journal.damaged(number, &why));
            }
            journal.load(number, number == range.last, records)?;
        }
        journal.check(purged)?;
        for stray in found.into_iter().filter(|found| !(range.first..=range.last).contains(found)) {
            let removed = journal.folder.remove(stray);
            removed.map_err(|source| journal.error(stray, source))?;
        }
        Ok(journal)
    }

    /// Reads a segment, and mends the end of the last one.
    fn load(&self, number: u64, last: bool, records: &Records) -> Result<(), StoreError> {
        let io = |source| self.error(number, source);
        let file = self.folder.open(number).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).unwrap_or(usize::MAX)];
        file.read(0, &mut bytes).map_err(io)?;
        let mut malformed = None;
        let mut ends = false;
        let (newest, offset, rest) = segment::scan(&bytes, |frame, record| {
            let Ok(content) = records.open(self.place(number, frame.offset), record) else {
                ends = true;
                return false;
            };
            if !ends && malformed.is_none() {
                malformed = self.take(number, frame, &content).err();
            }
            true
        });
        if let Some(why) = malformed {
            return Err(self.damaged(number, &why));
        }
        if rest == Rest::Damaged || rest == Rest::Torn && !last {
            let why = SpecError::new("offset", offset, "what is there does not open");
            return Err(self.damaged(number, &why));
        }
        if last {
            let end = mend(&*file, &bytes, newest, offset, rest).map_err(io)?;
            let mut writing = self.writing();
            writing.end = end;
            writing.committed = self.index().committed;
        }
        self.index().segments.insert(number, file.into());
        Ok(())
    }

    /// Takes what a frame holds into the index.
    fn take(&self, segment: u64, frame: Frame, content: &[u8]) -> Result<(), Malformed> {
        let message = decode(content)?;
        let committed = codec::optional_log_id(message.committed)?;
        let entries = message.entries.into_iter().map(codec::entry_from_wire);
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let mut index = self.index();
        index.committed = committed.or(index.committed);
        index.note(message.truncated_from, &entries, Spot { segment, frame });
        Ok(())
    }

    /// Whether the entries behind `purged` are all there.
    fn check(&self, purged: Option<u64>) -> Result<(), StoreError> {
        let mut index = self.index();
        let first = purged.map_or(0, |purged| purged + 1);
        index.entries = index.entries.split_off(&first);
        for (expected, (found, spot)) in (first..).zip(&index.entries) {
            if expected != *found {
                let why = SpecError::new("entry", expected, "it is missing");
                return Err(self.damaged(spot.segment, &why));
            }
        }
        Ok(())
    }
}

/// Cuts off a torn frame. And writes the last one again: when its sync failed, the system may take it
/// for written, which only the disk can tell.
fn mend(
    file: &dyn StorageBackend,
    bytes: &[u8],
    newest: Option<Frame>,
    offset: u64,
    rest: Rest,
) -> io::Result<End> {
    let mut space = bytes.len() as u64;
    if rest == Rest::Torn {
        file.set_len(offset)?;
        space = offset;
    }
    if let Some(newest) = newest {
        let again = usize::try_from(newest.offset).unwrap_or(usize::MAX);
        let behind = usize::try_from(offset.min(space)).unwrap_or(usize::MAX);
        file.write(newest.offset, &bytes[again..behind])?;
    }
    file.sync_data()?;
    Ok(End { offset, space })
}
