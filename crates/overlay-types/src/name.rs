//! Names that people give.

use core::{borrow::Borrow, fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::SpecError;

/// Name of a network, service, endpoint, alias or node: 1-63 characters of `A-Z a-z 0-9 _ . -`,
/// the first and the last a letter or digit.
///
/// 63 octets because the name becomes part of DNS names (RFC 1035 §2.3.4). Compared as given;
/// DNS looks it up without regard to case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 63;

    /// The name in `text`; errors call it `field`.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, SpecError> {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if text.is_empty() {
            Err(SpecError::new(field, text, "a name is needed"))
        } else if text.len() > Self::MAX_LEN {
            Err(SpecError::new(field, text, "a name has at most 63 characters"))
        } else if let Some((at, bad)) = text.char_indices().find(|(_, c)| !inner(*c)) {
            let reason = format!("a name holds letters, digits, '_', '.' and '-', not {bad:?}");
            Err(SpecError::within(field, text, at..at + bad.len_utf8(), reason))
        } else if !edge(text.chars().next()) || !edge(text.chars().next_back()) {
            Err(SpecError::new(field, text, "a name starts and ends with a letter or digit"))
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse("name", text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("web", true)]
    #[case("my-app_2.db", true)]
    #[case("7", true)]
    #[case("", false)]
    #[case("-web", false)]
    #[case("web.", false)]
    #[case("we b", false)]
    #[case("wéb", false)]
    fn name(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<Name>().is_ok(), valid);
    }

    #[test]
    fn length_is_that_of_a_dns_label() {
        assert!("a".repeat(63).parse::<Name>().is_ok());
        assert!("a".repeat(64).parse::<Name>().is_err());
    }

    #[test]
    fn the_bad_character_is_pointed_at() {
        let error = "we b".parse::<Name>().unwrap_err();
        assert_eq!(error.pointer().unwrap(), "we b\n  ^");
        assert_eq!(error.value(), " ");
    }
}
