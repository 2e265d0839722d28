//! Numbers from a seed.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and a finalizer per number, good enough to
/// spread load, and no secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shuffle(u64);

impl Shuffle {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Leaves a random choice of at most `count` items, in random order.
    pub(crate) fn choose<T>(mut self, items: &mut Vec<T>, count: usize) {
        let len = items.len();
        for place in 0..count.min(len) {
            items.swap(place, place + self.below(len - place));
        }
        items.truncate(count);
    }

    /// A number below `bound`, by multiplication (Lemire 2019): biased by less than 2^-32 for what
    /// fits memory here.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * bound as u128) >> 64) as usize
    }
}

/// The finalizer of SplitMix64: each input bit changes each output bit with probability one half.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_comes_first_equally_often() {
        let mut first = [0_u32; 10];
        for seed in 0..10_000 {
            let mut items: Vec<usize> = (0..10).collect();
            Shuffle::new(seed).choose(&mut items, 10);
            first[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, (0..10).collect::<Vec<_>>());
        }
        // Standard deviation is 30.
        assert!(first.iter().all(|n| (850..1150).contains(n)), "{first:?}");
    }

    #[test]
    fn a_choice_is_of_different_items() {
        let mut items: Vec<u8> = (0..100).collect();
        Shuffle::new(7).choose(&mut items, 10);
        assert_eq!(items.len(), 10);
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), 10);
    }
}
