//! Damage to bytes, the same in every run.

/// Longest case: a whole UDP datagram, and a bit too long for one.
const MAX_LEN: usize = 66_000;

/// Bytes that sit at the borders of length fields, flags and text.
const BORDERS: [u8; 12] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff, b'/', b':', b'-', b'.'];

/// An endless supply of damaged samples.
pub(crate) struct Mutations<'a> {
    samples: &'a [Vec<u8>],
    random: SplitMix64,
}

impl<'a> Mutations<'a> {
    /// Damages `samples`, of which there must be one.
    pub(crate) fn new(samples: &'a [Vec<u8>], seed: u64) -> Self {
        Self { samples, random: SplitMix64(seed) }
    }

    fn random_bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.random.byte()).collect()
    }

    fn sample(&mut self) -> &'a [u8] {
        &self.samples[self.random.below(self.samples.len())]
    }

    fn damage(&mut self, case: &mut Vec<u8>) {
        let at = self.random.below(case.len() + 1);
        match self.random.below(8) {
            0 => case.truncate(at),
            1 => case.insert(at, self.random.byte()),
            2 => case.extend(self.random_bytes(at)),
            3 => {
                let other = self.sample();
                let from = self.random.below(other.len() + 1);
                case.truncate(at);
                case.extend_from_slice(&other[from..]);
            }
            4 => case.extend_from_within(at..),
            _ if at == case.len() => {}
            5 => case[at] ^= 1 << self.random.below(8),
            6 => case[at] = BORDERS[self.random.below(BORDERS.len())],
            _ => drop(case.remove(at)),
        }
        case.truncate(MAX_LEN);
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    /// One case in eight is random from end to end, the others are samples with up to four damages.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.random.below(8) == 0 {
            let len = self.random.below(200);
            return Some(self.random_bytes(len));
        }
        let mut case = self.sample().to_vec();
        for _ in 0..=self.random.below(4) {
            self.damage(&mut case);
        }
        Some(case)
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
