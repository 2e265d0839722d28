//! Hashing for tables and flows: a folded multiply, seeded where strangers choose the keys.

use core::hash::{BuildHasher, Hasher};

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of the 128-bit product, folded: every input bit reaches every output bit.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ ODD) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    (product >> 64) as u64 ^ product as u64
}

/// Makes [`FoldHasher`]s from a seed. Endpoints choose the keys of the flow table, so that one's
/// seed must be random.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seed(pub(super) u64);

impl BuildHasher for Seed {
    type Hasher = FoldHasher;

    fn build_hasher(&self) -> FoldHasher {
        FoldHasher(self.0)
    }
}

/// State of one hash.
#[derive(Debug)]
pub(super) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Addresses of four, six and sixteen octets are what the tables are keyed by.
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        match *rest {
            [] => {}
            [a, b, c, d] => self.write_u32(u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f] => self.write_u64(u64::from_le_bytes([a, b, c, d, e, f, 0, 0])),
            _ => rest.iter().for_each(|octet| self.write_u8(*octet)),
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = mix(self.0 ^ value as u64, (value >> 64) as u64);
    }

    /// Lengths of arrays and numbers of variants, the same for most keys.
    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.rotate_left(7) ^ value as u64;
    }

    fn write_isize(&mut self, value: isize) {
        self.write_usize(value.cast_unsigned());
    }
}
