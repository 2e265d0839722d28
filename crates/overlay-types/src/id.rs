//! Identifiers: 128 random bits, written as 25 characters of base 36.
//!
//! Ids are drawn by whoever creates the object and travel inside the command that creates it, so
//! this module draws none: it has no randomness.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Characters of an id's text form. 36^25 > 2^128, so every value has one text of this length.
pub const ID_TEXT_LEN: usize = 25;

/// The text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("id {text:?} is not 25 characters of 0-9 and a-z that stand for 128 bits")]
pub struct InvalidId {
    /// What was given.
    pub text: String,
}

/// Digits that a `u64` holds: reckoning with one is much cheaper than with all 128 bits.
const GROUP: usize = 12;

fn encode(bytes: [u8; 16]) -> [u8; ID_TEXT_LEN] {
    const ALL_OF_GROUP: u128 = 36_u128.pow(GROUP as u32);
    let mut value = u128::from_be_bytes(bytes);
    let mut text = [b'0'; ID_TEXT_LEN];
    for group in text.rchunks_mut(GROUP) {
        let mut digits = (value % ALL_OF_GROUP) as u64;
        value /= ALL_OF_GROUP;
        for place in group.iter_mut().rev() {
            *place = b"0123456789abcdefghijklmnopqrstuvwxyz"[(digits % 36) as usize];
            digits /= 36;
        }
    }
    text
}

fn decode(text: &str) -> Option<[u8; 16]> {
    if text.len() != ID_TEXT_LEN {
        return None;
    }
    let mut value = 0_u128;
    for group in text.as_bytes().rchunks(GROUP).rev() {
        let mut digits = 0_u64;
        for character in group {
            let digit = match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'z' => character - b'a' + 10,
                _ => return None,
            };
            digits = digits * 36 + u64::from(digit);
        }
        value = value.checked_mul(36_u128.pow(group.len() as u32))?.checked_add(digits.into())?;
    }
    Some(value.to_be_bytes())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 16 bytes, alignment 1; shown as 25 characters of base 36.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// An id of these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes of the id.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// An id of this number; its text is the number in base 36, padded with zeros.
            pub const fn from_u128(value: u128) -> Self {
                Self(value.to_be_bytes())
            }

            /// The id as a number.
            pub const fn to_u128(self) -> u128 {
                u128::from_be_bytes(self.0)
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self::from_u128(value.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.pad(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                decode(text).map(Self).ok_or_else(|| InvalidId { text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A cluster; every certificate and every key derivation carries it.
    ClusterId;
    /// A node: a host with a daemon.
    NodeId;
    /// An overlay network.
    NetworkId;
    /// A service.
    ServiceId;
    /// An endpoint: one interface of a task or container on one network.
    EndpointId;
    /// A write as its caller sees it; a repeated request id is applied once.
    RequestId;
    /// A root of the cluster's CA: the first half of the SHA-256 of its public key, as a
    /// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7). Not drawn, so nobody can take another's.
    RootId;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_round_trips(value: u128) {
            let id = NodeId::from_u128(value);
            let text = id.to_string();
            prop_assert_eq!(text.len(), ID_TEXT_LEN);
            prop_assert_eq!(text.parse(), Ok(id));
        }

        #[test]
        fn order_of_text_is_order_of_ids(a: u128, b: u128) {
            let (a, b) = (NodeId::from_u128(a), NodeId::from_u128(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn text_is_the_number_in_base_36() {
        let text = |value| NodeId::from_u128(value).to_string();
        assert_eq!(text(35), "000000000000000000000000z");
        assert_eq!(text(36_u128.pow(12)), "0000000000001000000000000");
        assert_eq!(text(u128::MAX), "f5lxx1zz5pnorynqglhzmsp33");
        assert!("f5lxx1zz5pnorynqglhzmsp34".parse::<NodeId>().is_err());
    }

    #[test]
    fn other_text_is_refused() {
        let too_large = "z".repeat(ID_TEXT_LEN);
        let upper = "A".repeat(ID_TEXT_LEN);
        for text in ["", "1", too_large.as_str(), upper.as_str(), "0000000000000000000000000é"] {
            assert_eq!(text.parse::<NodeId>(), Err(InvalidId { text: text.to_owned() }));
        }
    }
}
