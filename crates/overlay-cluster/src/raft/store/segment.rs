//! One file of the log: frames, one behind the other, in space that was made before.
//!
//! ```text
//!   frame = "olog" │ length of the record, 4 │ record │ zeros up to a multiple of 8
//! ```
//!
//! A frame is synced before the next one is written, and what was not written is zeros. So a frame that
//! does not open is one whose writing was cut short, if a part of it is zeros and none follows that
//! opens; else the file is damaged.

use std::io;

use redb::StorageBackend;

/// Begins each frame.
const MAGIC: [u8; 4] = *b"olog";
const HEADER: usize = 8;
const ALIGN: usize = 8;

/// A frame's place in its file: where it begins, and the length of its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// Where the next frame of a file goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct End {
    /// Behind the last frame.
    pub(super) offset: u64,
    /// The length of the file.
    pub(super) space: u64,
}

/// What follows the last frame of a file that opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Nothing.
    Blank,
    /// A frame whose writing was cut short.
    Torn,
    /// A frame that was written whole and does not open, or one that others follow which do.
    Damaged,
}

/// Takes the frames of a file one by one; `take` says whether it opens. Returns where they end, and
/// what is there.
pub(super) fn scan(
    bytes: &[u8],
    mut take: impl FnMut(Frame, &[u8]) -> bool,
) -> (Option<Frame>, u64, Rest) {
    let (mut last, mut at) = (None, 0);
    while let Some((frame, record)) = frame_at(bytes, at)
        && take(frame, record)
    {
        last = Some(frame);
        at += padded(record.len());
    }
    let rest = &bytes[at.min(bytes.len())..];
    let blank = rest.iter().all(|byte| *byte == 0);
    let whole = || frame_at(bytes, at).is_some_and(|(_, record)| is_whole(record));
    let opens_at =
        |later| frame_at(bytes, later).is_some_and(|(frame, record)| take(frame, record));
    let rest = if blank {
        Rest::Blank
    } else if whole() || (at..bytes.len()).step_by(ALIGN).skip(1).any(opens_at) {
        Rest::Damaged
    } else {
        Rest::Torn
    };
    (last, at as u64, rest)
}

fn frame_at(bytes: &[u8], at: usize) -> Option<(Frame, &[u8])> {
    let rest = bytes.get(at..)?.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length);
    let record = rest.get(..length as usize)?;
    Some((Frame { offset: at as u64, length }, record))
}

/// Whether all of a record was written, in parts of any length from its begin on, or of multiples of
/// [`ALIGN`] in any order. What is sealed has no such zeros in it, but for the count in the first
/// record of a run.
fn is_whole(record: &[u8]) -> bool {
    record.last().is_some_and(|last| *last != 0)
        && record.chunks_exact(ALIGN).all(|part| part != [0; ALIGN])
}

/// Bytes that a frame of such a record takes.
const fn padded(record: usize) -> usize {
    (HEADER + record).next_multiple_of(ALIGN)
}

/// Writes a record at `end`, syncs it, and moves `end` behind it. Where there is no room, so many bytes
/// of `space` are made behind it, by writing zeros.
pub(super) fn write(
    file: &dyn StorageBackend,
    end: &mut End,
    space: u64,
    record: &[u8],
) -> io::Result<Frame> {
    let length = u32::try_from(record.len()).map_err(io::Error::other)?;
    let behind = end.offset + padded(record.len()) as u64;
    let mut bytes = Vec::with_capacity(padded(record.len()));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(record);
    bytes.resize(padded(record.len()), 0);
    if behind > end.space {
        end.space = behind + space;
        file.set_len(end.space)?;
        bytes.resize(usize::try_from(end.space - end.offset).map_err(io::Error::other)?, 0);
    }
    file.write(end.offset, &bytes)?;
    file.sync_data()?;
    let frame = Frame { offset: end.offset, length };
    end.offset = behind;
    Ok(frame)
}

/// The record of a frame that is in the file.
pub(super) fn read(file: &dyn StorageBackend, frame: Frame) -> io::Result<Vec<u8>> {
    let mut record = vec![0; frame.length as usize];
    file.read(frame.offset + HEADER as u64, &mut record)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    /// Records that begin with their length, and are filled with a byte.
    fn opens(record: &[u8]) -> bool {
        record.split_first_chunk().is_some_and(|(length, rest)| {
            usize::from(u16::from_be_bytes(*length)) == record.len()
                && rest.iter().all(|byte| *byte == rest[0])
        })
    }

    fn contents(file: &InMemoryBackend) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read(0, &mut bytes).unwrap();
        bytes
    }

    fn written(lengths: &[usize]) -> (InMemoryBackend, Vec<Frame>, End) {
        let (file, mut end) = (InMemoryBackend::new(), End::default());
        let write = |(number, length): (usize, &usize)| {
            let mut record = vec![u8::try_from(number + 1).unwrap(); *length];
            record[..2].copy_from_slice(&u16::try_from(*length).unwrap().to_be_bytes());
            write(&file, &mut end, 4096, &record).unwrap()
        };
        let frames = lengths.iter().enumerate().map(write).collect();
        (file, frames, end)
    }

    fn frames(bytes: &[u8]) -> (Vec<Frame>, u64, Rest) {
        let mut found = Vec::new();
        let (last, end, rest) = scan(bytes, |frame, record| {
            let opens = opens(record);
            found.extend(opens.then_some(frame));
            opens
        });
        assert!(rest == Rest::Damaged || last == found.last().copied());
        (found, end, rest)
    }

    proptest! {
        #[test]
        fn r02_frames_come_back(lengths in prop::collection::vec(2_usize..3_000, 0..20)) {
            let (file, frames_written, end) = written(&lengths);
            let found = frames(&contents(&file));
            prop_assert_eq!(found, (frames_written.clone(), end.offset, Rest::Blank));
            for (frame, length) in frames_written.iter().zip(lengths) {
                let record = read(&file, *frame).unwrap();
                prop_assert!(record.len() == length && opens(&record));
            }
        }

        /// Whatever part of the last frame a crash leaves, the others are there.
        #[test]
        fn r02_a_torn_frame_is_the_last_one(
            lengths in prop::collection::vec(2_usize..2_000, 1..9),
            sectors: u64,
        ) {
            let (file, frames_written, end) = written(&lengths);
            let mut bytes = contents(&file);
            let last = *frames_written.last().unwrap();
            let range = usize::try_from(last.offset).unwrap()..usize::try_from(end.offset).unwrap();
            for (number, sector) in bytes[range].chunks_mut(512).enumerate() {
                if sectors >> (number % 64) & 1 == 0 {
                    sector.fill(0);
                }
            }
            let (found, _, rest) = frames(&bytes);
            let whole = found.len() == lengths.len();
            prop_assert_eq!(&found[..lengths.len() - 1], &frames_written[..lengths.len() - 1]);
            prop_assert!(rest == Rest::Blank || rest == Rest::Torn && !whole);
        }

        /// A frame that others follow was synced.
        #[test]
        fn r05_damage_before_the_last_frame_is_seen(
            lengths in prop::collection::vec(2_usize..500, 2..9),
            place: prop::sample::Index,
            bit in 0_u32..8,
        ) {
            let (file, frames_written, _) = written(&lengths);
            let mut bytes = contents(&file);
            let last = frames_written.last().unwrap().offset;
            let at = place.index(usize::try_from(last).unwrap());
            let (before, ..) = frames(&bytes);
            bytes[at] ^= 1 << bit;
            let (found, _, rest) = frames(&bytes);
            // Padding belongs to nobody.
            prop_assert!(rest == Rest::Damaged || found == before);
        }
    }

    /// All of it was written, so it may have been acknowledged.
    #[test]
    fn r05_damage_in_the_last_frame_is_seen() {
        let (file, frames_written, _) = written(&[100, 30, 700]);
        let Frame { offset, length } = *frames_written.last().unwrap();
        let record = usize::try_from(offset).unwrap() + HEADER;
        for at in record..record + length as usize {
            let mut bytes = contents(&file);
            bytes[at] ^= 0x10;
            assert_eq!(frames(&bytes).2, Rest::Damaged, "{at}");
        }
    }
}
