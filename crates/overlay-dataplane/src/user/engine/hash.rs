//! Hashing for tables and flows: a folded multiply, seeded where strangers choose the keys.

use core::hash::{BuildHasher, Hasher};

use crate::wire::read_array;

/// 2^64 / golden ratio, and the second word of wyhash's default secret: bits without a pattern.
const SECRET: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xe703_7ed1_a0b4_28db];

/// Both halves of the 128-bit product, folded: every input bit reaches every output bit.
#[inline]
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ SECRET[0]) * u128::from(b ^ SECRET[1]);
    (product >> 64) as u64 ^ product as u64
}

/// Makes [`FoldHasher`]s from a seed. Endpoints choose the keys of the flow table, so that one's
/// seed must be random.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seed(pub(super) u64);

impl BuildHasher for Seed {
    type Hasher = FoldHasher;

    #[inline]
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher(self.0)
    }
}

/// State of one hash.
#[derive(Debug)]
pub(super) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        // Addresses of four, six and sixteen octets are what the tables are keyed by.
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        match *rest {
            [] => {}
            [_, _, _, _] => self.write_u32(u32::from_le_bytes(read_array(rest, 0))),
            [_, _, _, _, _, _] => {
                let [low, high] = [read_array(rest, 0), read_array(rest, 2)];
                let (low, high) = (u32::from_le_bytes(low), u32::from_le_bytes(high));
                self.write_u64(u64::from(low) << 32 | u64::from(high));
            }
            _ => rest.iter().for_each(|octet| self.write_u8(*octet)),
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.0 = mix(self.0 ^ value as u64, (value >> 64) as u64);
    }

    /// Lengths of arrays and numbers of variants, the same for most keys.
    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.rotate_left(7) ^ value as u64;
    }

    #[inline]
    fn write_isize(&mut self, value: isize) {
        self.write_usize(value.cast_unsigned());
    }
}
