//! A set of up to 2^24 numbers as a hierarchical bitmap, allocated in chunks as it fills.
//!
//! ```text
//! full    one bit per chunk: no number of it is missing     (64 words for an IPv4 /8)
//!  └ chunk.full    one bit per word: all ones               (1 word)
//!     └ chunk.words    one bit per number                   (64 words)
//! ```
//!
//! A search looks at the rest of one word, of one summary word, and at most at the 64 words of
//! `full`: the same few steps whether the set is empty or lacks one number. A chunk is three loads
//! away at any fill, which is what keeps a full /8 as fast as an empty one.

use serde::{Serialize, Serializer};

/// Largest number of bits of a member.
pub(crate) const MAX_BITS: u32 = 24;
const CHUNK_BITS: u32 = 12;
const CHUNK_LEN: u16 = 1 << CHUNK_BITS;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    /// `None` where no member is.
    chunks: Vec<Option<Box<Chunk>>>,
    full: Vec<u64>,
    len: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    full: u64,
    len: u16,
    words: [u64; 64],
}

/// Serialised chunk: its number, which words are neither empty nor full, which are full, and the
/// former in order.
pub(crate) type ChunkRepr = (u32, u64, u64, Vec<u64>);

impl Bitmap {
    /// The empty set of numbers of `bits` bits.
    pub(crate) fn new(bits: u32) -> Self {
        debug_assert!(bits <= MAX_BITS);
        let chunks = 1_usize << bits.saturating_sub(CHUNK_BITS);
        Self { chunks: vec![None; chunks], full: vec![0; chunks.div_ceil(64)], len: 0 }
    }

    /// The set that serialised to `chunks`; the error says what no serialiser writes.
    pub(crate) fn restore(bits: u32, chunks: Vec<ChunkRepr>) -> Result<Self, &'static str> {
        let mut set = Self::new(bits);
        let mut next = 0;
        for (number, mixed, full, words) in chunks {
            if number < next || number as usize >= set.chunks.len() {
                return Err("chunks are out of order or beyond the subnet");
            }
            next = number + 1;
            let chunk = Chunk::restore(mixed, full, &words)?;
            set.len += u32::from(chunk.len);
            set.full[number as usize / 64] |= u64::from(chunk.len == CHUNK_LEN) << (number % 64);
            set.chunks[number as usize] = Some(Box::new(chunk));
        }
        if set.iter().last().is_some_and(|last| last >> bits != 0) {
            return Err("an address is beyond the subnet");
        }
        Ok(set)
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        let (chunk, word, bit) = locate(number);
        let chunk = self.chunks.get(chunk).and_then(Option::as_ref);
        chunk.is_some_and(|c| c.words[word] & bit != 0)
    }

    /// Adds `number`; whether it was missing.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let (at, word, bit) = locate(number);
        let chunk = self.chunks[at].get_or_insert_with(|| Box::new(Chunk::EMPTY));
        if chunk.words[word] & bit != 0 {
            return false;
        }
        chunk.words[word] |= bit;
        chunk.full |= u64::from(chunk.words[word] == u64::MAX) << word;
        chunk.len += 1;
        self.len += 1;
        self.full[at / 64] |= u64::from(chunk.len == CHUNK_LEN) << (at % 64);
        true
    }

    /// Takes `number` out; whether it was a member.
    pub(crate) fn remove(&mut self, number: u32) -> bool {
        let (at, word, bit) = locate(number);
        let Some(chunk) = self.chunks.get_mut(at).and_then(Option::as_mut) else { return false };
        if chunk.words[word] & bit == 0 {
            return false;
        }
        chunk.words[word] &= !bit;
        chunk.full &= !(1 << word);
        chunk.len -= 1;
        self.len -= 1;
        self.full[at / 64] &= !(1 << (at % 64));
        if chunk.len == 0 {
            self.chunks[at] = None;
        }
        true
    }

    /// Lowest number at or above `from` that is missing.
    pub(crate) fn next_missing(&self, from: u32) -> Option<u32> {
        let (chunk, _, _) = locate(from);
        let within = (from % u32::from(CHUNK_LEN)) as usize;
        if let Some(found) = self.missing_in(chunk, within) {
            return Some(found);
        }
        let open = next_zero(&self.full, chunk + 1)?;
        self.missing_in(open, 0)
    }

    /// The members in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let chunks = (0_u32..).zip(&self.chunks);
        let words = chunks.filter_map(|(at, c)| Some((at << CHUNK_BITS, c.as_ref()?)));
        let words = words.flat_map(|(base, c)| (base..).step_by(64).zip(c.words));
        words.flat_map(|(base, word)| ones(word).map(move |bit| base + bit))
    }

    fn missing_in(&self, at: usize, from: usize) -> Option<u32> {
        let within = match self.chunks.get(at)? {
            None => from,
            Some(chunk) => chunk.next_missing(from)?,
        };
        Some(((at << CHUNK_BITS) + within) as u32)
    }
}

impl Chunk {
    const EMPTY: Self = Self { full: 0, len: 0, words: [0; 64] };

    fn restore(mixed: u64, full: u64, words: &[u64]) -> Result<Self, &'static str> {
        if mixed & full != 0 || mixed | full == 0 || mixed.count_ones() as usize != words.len() {
            return Err("a chunk's masks and words disagree");
        }
        if words.iter().any(|word| matches!(*word, 0 | u64::MAX)) {
            return Err("a chunk's word should have been a mask bit");
        }
        let mut chunk = Self { full, ..Self::EMPTY };
        for word in ones(full) {
            chunk.words[word as usize] = u64::MAX;
        }
        for (word, bits) in ones(mixed).zip(words) {
            chunk.words[word as usize] = *bits;
        }
        chunk.len = chunk.words.iter().map(|word| word.count_ones() as u16).sum();
        Ok(chunk)
    }

    fn repr(&self, number: u32) -> ChunkRepr {
        let mixed = (0..64).filter(|&w| !matches!(self.words[w], 0 | u64::MAX));
        let mixed = mixed.fold(0, |mask, word| mask | 1 << word);
        (number, mixed, self.full, ones(mixed).map(|word| self.words[word as usize]).collect())
    }

    fn next_missing(&self, from: usize) -> Option<usize> {
        let word = from / 64;
        let ahead = u64::MAX << (from % 64);
        let rest = !self.words[word] & ahead;
        // No branch on `rest`: in a nearly full chunk nobody can predict it, and the misses would
        // cost more than all else here. Shifted in two steps, as `word + 1` may be 64.
        let open = (!self.full & (u64::MAX << word << 1)) | u64::from(rest != 0) << word;
        if open == 0 {
            return None;
        }
        let found = open.trailing_zeros() as usize;
        let ahead = ahead | u64::from(found == word).wrapping_sub(1);
        Some(found * 64 + (!self.words[found] & ahead).trailing_zeros() as usize)
    }
}

impl Serialize for Bitmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A `Vec`, because formats without markers need the length first.
        let chunks = (0..).zip(&self.chunks);
        let chunks: Vec<_> = chunks.filter_map(|(at, c)| Some(c.as_ref()?.repr(at))).collect();
        chunks.serialize(serializer)
    }
}

/// Chunk, word and bit of a number.
fn locate(number: u32) -> (usize, usize, u64) {
    ((number >> CHUNK_BITS) as usize, (number >> 6) as usize % 64, 1 << (number % 64))
}

/// Position of the lowest zero bit at or above `from`.
fn next_zero(words: &[u64], from: usize) -> Option<usize> {
    let mut below = (1 << (from % 64)) - 1;
    for (at, word) in words.iter().enumerate().skip(from / 64) {
        let zeros = !(word | below);
        if zeros != 0 {
            return Some(at * 64 + zeros.trailing_zeros() as usize);
        }
        below = 0;
    }
    None
}

/// Positions of the one bits, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}
