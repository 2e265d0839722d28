//! Opening the log: every frame is opened once, and the end is mended.

use std::{
    io,
    sync::{Arc, Mutex},
};

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

/// A segment that was read.
struct Loaded {
    file: Arc<dyn StorageBackend>,
    bytes: Vec<u8>,
    /// The last frame that opens.
    newest: Option<Frame>,
    /// Where it ends.
    offset: u64,
    /// What is there.
    rest: Rest,
}

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
        let mut last = None;
        for number in range.first..=range.last {
            if !found.contains(&number) {
                let why = SpecError::new("segment", number, "the file is gone");
                return Err(journal.damaged(number, &why));
            }
            last = Some(journal.load(number, number == range.last, records)?);
        }
        journal.check(purged)?;
        let mut strays = found;
        strays.retain(|found| !(range.first..=range.last).contains(found));
        for stray in strays.iter().filter(|stray| **stray > range.last) {
            journal.check_stray(*stray, records)?;
        }
        // Nothing was changed so far.
        if let Some(last) = last {
            journal.begin_at(range.last, &last)?;
        }
        for stray in strays {
            let removed = journal.folder.remove(stray);
            removed.map_err(|source| journal.error(stray, source))?;
        }
        Ok(journal)
    }

    /// Reads a segment. Only the last one may have a torn frame.
    fn load(&self, number: u64, last: bool, records: &Records) -> Result<Loaded, StoreError> {
        let (file, bytes) = self.contents(number)?;
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
        self.index().segments.insert(number, Arc::clone(&file));
        Ok(Loaded { file, bytes, newest, offset, rest })
    }

    fn contents(&self, number: u64) -> Result<(Arc<dyn StorageBackend>, Vec<u8>), StoreError> {
        let io = |source| self.error(number, source);
        let file = self.folder.open(number).map_err(io)?;
        let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).unwrap_or(usize::MAX)];
        file.read(0, &mut bytes).map_err(io)?;
        Ok((file.into(), bytes))
    }

    /// Frames go behind those of the last segment.
    fn begin_at(&self, number: u64, last: &Loaded) -> Result<(), StoreError> {
        let end = mend(last).map_err(|source| self.error(number, source))?;
        let mut writing = self.writing();
        writing.end = end;
        writing.committed = self.index().committed;
        Ok(())
    }

    /// Refuses frames of this store in a segment that its tables do not know yet: they are told of a
    /// segment before anything is in it.
    fn check_stray(&self, number: u64, records: &Records) -> Result<(), StoreError> {
        let (_, bytes) = self.contents(number)?;
        let (newest, ..) = segment::scan(&bytes, |frame, record| {
            records.open(self.place(number, frame.offset), record).is_ok()
        });
        if newest.is_none() {
            return Ok(());
        }
        let why = SpecError::new("segment", number, "the state file beside it is older than it");
        Err(self.damaged(number, &why))
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
        index.next = index.next.max(first);
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
fn mend(last: &Loaded) -> io::Result<End> {
    let Loaded { file, bytes, newest, offset, rest } = last;
    let (offset, mut space) = (*offset, bytes.len() as u64);
    if *rest == Rest::Torn {
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
