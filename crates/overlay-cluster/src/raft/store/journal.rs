//! The log's entries on the disk, and which of them is where.
//!
//! ```text
//!   state         redb: vote, snapshot, and which segments there are
//!   state.log-7   segment: frames of entries, each sealed for its place
//!   state.log-8   the last segment: frames are appended here
//! ```
//!
//! What redb would take several pages and two flushes for is one write and one sync here. Each frame
//! holds what was written together; where it begins again with an index that is there already, it
//! replaces all from there on.

mod changes;
mod load;

use std::{
    collections::BTreeMap,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay_api::internal::v1 as wire;
use overlay_types::SpecError;
use prost::Message;
use redb::StorageBackend;

use super::{
    error::StoreError,
    record::{Place, Records},
    segment::{self, End, Frame},
    segments::Segments,
};
use crate::raft::{
    codec::{self, Malformed},
    types::{Entry, LogId},
};

pub(super) use changes::Changes;

/// Parts that the space of a segment is made in. A sync of bytes in new space has to wait for the file
/// system's own journal too, which takes twice the time; a whole segment at once would take longer
/// than an entry may wait.
const SPACES: u64 = 8;

/// Tells the segments of a store from those of another one that was at its path before.
pub(super) type StoreId = [u8; 16];

/// Which segments a store has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) first: u64,
    /// Smaller than `first`: none.
    pub(super) last: u64,
}

impl Range {
    pub(super) const NONE: Self = Self { first: 1, last: 0 };
}

/// The segments of a store, and an index of what they hold.
#[derive(Debug)]
pub(super) struct Journal {
    folder: Box<dyn Segments>,
    store: StoreId,
    index: Mutex<Index>,
    writing: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Index {
    segments: BTreeMap<u64, Arc<dyn StorageBackend>>,
    entries: BTreeMap<u64, Spot>,
    /// The index that the log on the disk goes on with.
    next: u64,
    /// How far the log is committed. On the disk with the next frame, or when the store is closed:
    /// after a crash it is found out again.
    committed: Option<LogId>,
}

/// Where an entry is. Those that were written together share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Spot {
    segment: u64,
    frame: Frame,
}

/// The end that is written, by one thread.
#[derive(Debug)]
struct Writing {
    segments: Range,
    end: End,
    /// What the last frame says is committed.
    committed: Option<LogId>,
}

impl Journal {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, segment: u64, source: io::Error) -> StoreError {
        StoreError::Log { path: self.folder.path(segment), source }
    }

    fn damaged(&self, segment: u64, why: &Malformed) -> StoreError {
        StoreError::damaged(&self.folder.path(segment), "the log", why)
    }

    fn place(&self, segment: u64, offset: u64) -> Place {
        Place::Frame { store: self.store, segment, offset }
    }

    /// The segments that there have to be, when the next frame needs another one.
    pub(super) fn wants_segment(&self) -> Option<Range> {
        let Writing { segments, end, .. } = *self.writing();
        let room = segments.first <= segments.last && end.offset < self.folder.size();
        (!room).then_some(Range { last: segments.last + 1, ..segments })
    }

    /// Makes the last segment of `range`. It is used once the store knows of it.
    pub(super) fn make_segment(&self, range: Range) -> Result<(), StoreError> {
        let io = |source| self.error(range.last, source);
        let file = self.folder.open(range.last).map_err(io)?;
        // What a crash left of one that the store never knew of.
        file.set_len(0).map_err(io)?;
        self.index().segments.insert(range.last, file.into());
        Ok(())
    }

    /// The store knows of the segments in `range` now.
    pub(super) fn use_segments(&self, range: Range) {
        let mut writing = self.writing();
        if range.last != writing.segments.last {
            writing.end = End::default();
        }
        writing.segments = range;
    }

    /// Writes `changes`, and waits until they are on the disk.
    pub(super) fn append(&self, changes: &Changes, records: &Records) -> Result<(), StoreError> {
        let mut writing = self.writing();
        let segment = writing.segments.last;
        let (committed, file) = {
            let index = self.index();
            (index.committed, index.segments.get(&segment).map(Arc::clone))
        };
        let file = file.ok_or(StoreError::Closed)?;
        let message = wire::LogFrame {
            truncated_from: changes.truncate,
            entries: changes.entries.iter().map(codec::entry_to_wire).collect(),
            committed: committed.map(codec::log_id_to_wire),
        };
        let record = records.seal_message(self.place(segment, writing.end.offset), &message);
        let space = self.folder.size() / SPACES;
        let frame = segment::write(&*file, &mut writing.end, space, &record)
            .map_err(|source| self.error(segment, source))?;
        writing.committed = committed;
        self.index().note(changes.truncate, &changes.entries, Spot { segment, frame });
        Ok(())
    }

    /// The index that the log on the disk goes on with.
    pub(super) fn next_index(&self) -> u64 {
        self.index().next
    }

    pub(super) fn set_committed(&self, committed: Option<LogId>) {
        self.index().committed = committed;
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.index().committed
    }

    /// Whether more is committed than the disk says.
    pub(super) fn is_behind(&self) -> bool {
        let (writing, index) = (self.writing(), self.index());
        writing.committed != index.committed && writing.segments.first <= writing.segments.last
    }

    /// The segments that remain when the entries up to `upto` are not needed any more.
    pub(super) fn after_purge(&self, upto: u64) -> Range {
        let range = self.writing().segments;
        let index = self.index();
        let needed = index.entries.range(upto.saturating_add(1)..).next();
        Range {
            first: needed.map_or(range.last, |(_, spot)| spot.segment).max(range.first),
            ..range
        }
    }

    /// Forgets the entries up to `upto`, which stay on the disk.
    pub(super) fn forget(&self, upto: u64) {
        let mut index = self.index();
        index.entries = index.entries.split_off(&upto.saturating_add(1));
    }

    /// Forgets the entries up to `upto`, and deletes the segments before those in `range`, which are
    /// those that the store knows of now.
    pub(super) fn purge(&self, upto: u64, range: Range) -> Result<(), StoreError> {
        self.use_segments(range);
        self.forget(upto);
        let gone = {
            let mut index = self.index();
            index.next = index.next.max(upto.saturating_add(1));
            let kept = index.segments.split_off(&range.first);
            std::mem::replace(&mut index.segments, kept)
        };
        for number in gone.into_keys() {
            self.folder.remove(number).map_err(|source| self.error(number, source))?;
        }
        Ok(())
    }

    /// Takes the entries in `range` one by one.
    pub(super) fn for_each(
        &self,
        range: impl RangeBounds<u64>,
        records: &Records,
        mut take: impl FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let spots: Vec<(u64, Spot)> =
            self.index().entries.range(range).map(|(index, spot)| (*index, *spot)).collect();
        for together in spots.chunk_by(|(_, one), (_, other)| one == other) {
            let Some((first, spot)) = together.first().copied() else { continue };
            let wanted = first..first + together.len() as u64;
            for entry in self.read(spot, records)? {
                if wanted.contains(&entry.log_id.index) {
                    take(entry)?;
                }
            }
        }
        Ok(())
    }

    /// The last entry.
    pub(super) fn last(&self, records: &Records) -> Result<Option<Entry>, StoreError> {
        let last = self.index().entries.last_key_value().map(|(index, _)| *index);
        let Some(last) = last else { return Ok(None) };
        let mut found = None;
        self.for_each(last..=last, records, |entry| {
            found = Some(entry);
            Ok(())
        })?;
        Ok(found)
    }

    /// The entries of a frame.
    fn read(&self, spot: Spot, records: &Records) -> Result<Vec<Entry>, StoreError> {
        let Spot { segment, frame } = spot;
        let file = self.index().segments.get(&segment).map(Arc::clone);
        // It was purged meanwhile.
        let Some(file) = file else { return Ok(Vec::new()) };
        let record = segment::read(&*file, frame).map_err(|source| self.error(segment, source))?;
        let content = records.open(self.place(segment, frame.offset), &record);
        let message = content.and_then(|content| decode(&content));
        let entries =
            message.and_then(|m| m.entries.into_iter().map(codec::entry_from_wire).collect());
        entries.map_err(|why| self.damaged(segment, &why))
    }
}

impl Index {
    /// These entries are at `spot`, in place of what was at their indexes and behind.
    fn note(&mut self, truncate: Option<u64>, entries: &[Entry], spot: Spot) {
        let begin = entries.first().map(|entry| entry.log_id.index);
        if let Some(from) = [truncate, begin].into_iter().flatten().min() {
            self.entries.split_off(&from);
            self.next = from;
        }
        self.entries.extend(entries.iter().map(|entry| (entry.log_id.index, spot)));
        self.next = entries.last().map_or(self.next, |last| last.log_id.index + 1);
    }
}

fn decode(content: &[u8]) -> Result<wire::LogFrame, Malformed> {
    wire::LogFrame::decode(content)
        .map_err(|error| SpecError::new("frame", "", format!("it cannot be decoded: {error}")))
}
