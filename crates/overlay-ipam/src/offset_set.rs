//! The taken addresses of one subnet, as distances from its first address.

use serde::{Deserialize, Serialize};

use crate::{
    bitmap::{self, Bitmap, ChunkRepr},
    runs::Runs,
};

/// A set of numbers with fewer than 128 bits.
///
/// Two forms, chosen by the size of the subnet: a bitmap has the same speed at any fill and costs
/// one bit per address of the chunks in use; runs cost some 40 bytes per gap, whatever the size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OffsetSet {
    Bitmap(Bitmap),
    Runs(Runs),
}

/// What an [`OffsetSet`] serialises to.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OffsetSetRepr {
    Bitmap(Vec<ChunkRepr>),
    Runs(Vec<(u128, u128)>),
}

impl OffsetSet {
    /// The empty set of numbers of `bits` bits.
    pub(crate) fn new(bits: u32) -> Self {
        if bits <= bitmap::MAX_BITS {
            Self::Bitmap(Bitmap::new(bits))
        } else {
            Self::Runs(Runs::default())
        }
    }

    /// The set that serialised to `repr`; the error says what is wrong with it.
    pub(crate) fn restore(bits: u32, repr: OffsetSetRepr) -> Result<Self, &'static str> {
        match (Self::new(bits), repr) {
            (Self::Bitmap(_), OffsetSetRepr::Bitmap(chunks)) => {
                Bitmap::restore(bits, chunks).map(Self::Bitmap)
            }
            (Self::Runs(_), OffsetSetRepr::Runs(runs)) => Runs::restore(bits, runs).map(Self::Runs),
            _ => Err("the form of the set does not fit the subnet's size"),
        }
    }

    pub(crate) fn len(&self) -> u128 {
        match self {
            Self::Bitmap(set) => set.len().into(),
            Self::Runs(set) => set.len(),
        }
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        match self {
            Self::Bitmap(set) => set.contains(number as u32),
            Self::Runs(set) => set.contains(number),
        }
    }

    /// Adds `number`; whether it was missing.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        match self {
            Self::Bitmap(set) => set.insert(number as u32),
            Self::Runs(set) => set.insert(number),
        }
    }

    /// Takes `number` out; whether it was a member.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        match self {
            Self::Bitmap(set) => set.remove(number as u32),
            Self::Runs(set) => set.remove(number),
        }
    }

    /// Lowest number of `from..=last` that is missing.
    pub(crate) fn next_missing(&self, from: u128, last: u128) -> Option<u128> {
        let found = match self {
            Self::Bitmap(set) => set.next_missing(from as u32)?.into(),
            Self::Runs(set) => set.next_missing(from),
        };
        (found <= last).then_some(found)
    }

    /// The members in ascending order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = u128> + '_> {
        match self {
            Self::Bitmap(set) => Box::new(set.iter().map(u128::from)),
            Self::Runs(set) => Box::new(set.iter()),
        }
    }
}
