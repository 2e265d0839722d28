//! Both forms of the set against a `BTreeSet`, across the borders of words, chunks and groups.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use crate::{bitmap::MAX_BITS, offset_set::OffsetSet};

/// 128 chunks: two words of the bit-per-chunk summary.
const BITS: u32 = 19;

fn both() -> [OffsetSet; 2] {
    let runs = OffsetSet::new(MAX_BITS + 1);
    assert!(matches!(runs, OffsetSet::Runs(_)));
    [OffsetSet::new(BITS), runs]
}

/// A stretch of numbers; it often begins or ends at a border.
fn stretch() -> impl Strategy<Value = (u128, u128)> {
    let border = prop_oneof![Just(64_u32), Just(4096), Just(1 << 18)];
    let start = (border, 0..128_u32, 0..3_u32).prop_map(|(size, n, past)| {
        (u128::from(size) * u128::from(n) + u128::from(past)).saturating_sub(1) % (1 << BITS)
    });
    let len = prop_oneof![4 => 1..70_u128, 2 => 4090..4100_u128, 1 => Just(1 << 18)];
    (start, len)
}

fn next_missing(model: &BTreeSet<u128>, from: u128, last: u128) -> Option<u128> {
    (from..=last).find(|number| !model.contains(number))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn agree_with_a_btreeset(
        steps in prop::collection::vec((any::<bool>(), stretch(), stretch()), 1..12),
    ) {
        let mut sets = both();
        let mut model = BTreeSet::new();
        for (insert, (start, len), (from, _)) in steps {
            for number in start..(start + len).min(1 << BITS) {
                let changed = if insert { model.insert(number) } else { model.remove(&number) };
                for set in &mut sets {
                    let got = if insert { set.insert(number) } else { set.remove(number) };
                    prop_assert_eq!(got, changed);
                }
            }
            for set in &sets {
                prop_assert_eq!(set.len(), model.len() as u128);
                for at in [from, start, start + len, start + len - 1] {
                    let at = at.min((1 << BITS) - 1);
                    prop_assert_eq!(set.contains(at), model.contains(&at));
                    for last in [at, start.max(at), (1 << BITS) - 1] {
                        prop_assert_eq!(set.next_missing(at, last), next_missing(&model, at, last));
                    }
                }
            }
        }
        for (set, bits) in sets.iter().zip([BITS, MAX_BITS + 1]) {
            prop_assert!(set.iter().eq(model.iter().copied()));
            let text = serde_json::to_string(set).unwrap();
            let copy = OffsetSet::restore(bits, serde_json::from_str(&text).unwrap());
            prop_assert_eq!(copy.as_ref(), Ok(set));
        }
    }
}

#[rstest]
#[case::word(64)]
#[case::chunk(4096)]
#[case::group(1 << 18)]
#[case::all(1 << BITS)]
fn a_full_block_is_skipped_and_opens_again(#[case] len: u128) {
    for mut set in both() {
        for number in 0..len {
            set.insert(number);
        }
        let last = (1 << BITS) - 1;
        let beyond = (len <= last).then_some(len);
        assert_eq!(set.next_missing(0, last), beyond);
        assert_eq!(set.next_missing(len - 1, last), beyond);
        set.remove(len - 1);
        assert_eq!(set.next_missing(0, last), Some(len - 1));
        set.insert(len - 1);
        assert_eq!(set.next_missing(0, last), beyond);
        for number in 0..len {
            assert!(set.remove(number));
        }
        // Nothing is left behind: what was emptied equals what never held anything.
        assert!(both().contains(&set));
    }
}
