//! A set of 128-bit numbers as disjoint runs: for subnets that are far larger than memory.
//!
//! Addresses handed out in order are one run, a requested one elsewhere is a run of its own, so
//! memory grows with the addresses in use and never with the subnet.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// First number of each run, and its last. Runs neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Runs {
    runs: BTreeMap<u128, u128>,
    len: u128,
}

impl Runs {
    /// The set that serialised to `runs`; the error says what no serialiser writes.
    pub(crate) fn restore(bits: u32, runs: Vec<(u128, u128)>) -> Result<Self, &'static str> {
        let mut set = Self::default();
        let mut lowest = 0;
        for (first, last) in runs {
            if first < lowest || last < first {
                return Err("runs are out of order or touch");
            }
            if last >> bits != 0 {
                return Err("an address is beyond the subnet");
            }
            // No overflow: bits < 128, as the check above needs.
            lowest = last + 2;
            set.len += last - first + 1;
            set.runs.insert(first, last);
        }
        Ok(set)
    }

    pub(crate) fn len(&self) -> u128 {
        self.len
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.run_of(number).is_some()
    }

    /// Adds `number`; whether it was missing.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        let below = self.runs.range(..=number).next_back().map(|(first, last)| (*first, *last));
        let first = match below {
            Some((_, last)) if last >= number => return false,
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let last = self.runs.remove(&(number + 1)).unwrap_or(number);
        self.runs.insert(first, last);
        self.len += 1;
        true
    }

    /// Takes `number` out; whether it was a member.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.run_of(number) else { return false };
        if first == number {
            self.runs.remove(&first);
        } else {
            self.runs.insert(first, number - 1);
        }
        if last > number {
            self.runs.insert(number + 1, last);
        }
        self.len -= 1;
        true
    }

    /// Lowest number at or above `from` that is missing.
    pub(crate) fn next_missing(&self, from: u128) -> u128 {
        self.run_of(from).map_or(from, |(_, last)| last + 1)
    }

    /// The members in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u128> {
        self.runs.iter().flat_map(|(first, last)| *first..=*last)
    }

    fn run_of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.runs.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.runs)
    }
}
