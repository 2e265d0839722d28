//! Numbers that must not be mistaken for one another.

use core::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::SpecError;

/// The number that `text` writes in decimal digits and nothing else: no sign, no space. The one rule
/// for numbers in specs, names and flags.
pub fn from_digits<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// VXLAN network identifier: 24 bits (RFC 7348 §5).
///
/// Overlay networks use [`Vni::MIN_OVERLAY`] and above; lower values are left to hand-made tunnels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// Lowest VNI of an overlay network.
    pub const MIN_OVERLAY: u32 = 4096;
    /// Highest VNI.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The VNI with this number, if it has at most 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// A VNI that an overlay network may use: 4096-16777215.
    pub fn for_overlay(number: u32) -> Result<Self, SpecError> {
        match Self::new(number) {
            Some(vni) if number >= Self::MIN_OVERLAY => Ok(vni),
            _ => Err(SpecError::new("vni", number, "a VNI is 4096-16777215")),
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = SpecError;

    fn try_from(number: u32) -> Result<Self, SpecError> {
        Self::new(number).ok_or_else(|| SpecError::new("vni", number, "a VNI has 24 bits"))
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl FromStr for Vni {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let number = from_digits(text)
            .ok_or_else(|| SpecError::new("vni", text, "a VNI is a number, 4096-16777215"))?;
        Self::for_overlay(number)
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// ESP security parameters index (RFC 4303 §2.1). Values up to 255 are reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Spi(NonZeroU32);

impl Spi {
    /// Lowest SPI that is not reserved.
    pub const MIN: u32 = 256;

    /// The SPI with this number, if it is not reserved.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).filter(|n| n.get() >= Self::MIN).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for Spi {
    type Error = SpecError;

    fn try_from(number: u32) -> Result<Self, SpecError> {
        Self::new(number)
            .ok_or_else(|| SpecError::new("spi", number, "SPIs 0-255 are reserved (RFC 4303 §2.1)"))
    }
}

impl From<Spi> for u32 {
    fn from(spi: Spi) -> Self {
        spi.get()
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.get())
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
        )]
        pub struct $name(u64);

        impl $name {
            /// The first value.
            pub const ZERO: Self = Self(0);

            /// The value with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The value after this one.
            ///
            /// # Panics
            /// After 2^64 - 1, which takes half a million years at a million a second.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("64-bit counter is spent"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

counters! {
    /// Number of a key epoch; grows by one with each rotation.
    Epoch;
    /// Revision of the replicated state: the number of commands that changed it so far.
    Revision;
    /// Incarnation of a node in gossip: greater after each start, from persisted time.
    Incarnation;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("4096", Some(4096))]
    #[case("16777215", Some(16_777_215))]
    #[case("4095", None)]
    #[case("16777216", None)]
    #[case("x", None)]
    #[case("", None)]
    #[case("+5000", None)]
    fn n10_vni_of_a_network(#[case] text: &str, #[case] number: Option<u32>) {
        let parsed = text.parse::<Vni>();
        assert_eq!(parsed.as_ref().ok().map(|v| v.get()), number);
        if let Err(error) = parsed {
            assert_eq!((error.field(), error.value()), ("vni", text));
        }
    }

    #[test]
    fn reserved_spis_are_refused() {
        assert_eq!(Spi::new(0), None);
        assert_eq!(Spi::new(255), None);
        assert_eq!(Spi::new(256).map(Spi::get), Some(256));
    }
}
