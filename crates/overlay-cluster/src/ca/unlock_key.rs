//! The unlock key as a person keeps it.
//!
//! ```text
//! OVKEY-1-<key>-<check>
//!         │     └ 5 characters: SHA-256 of all that stands before, cut
//!         └ 50 characters: 256 random bits
//! ```
//!
//! Characters and check are those of a [join token](super::token).

use overlay_crypto::at_rest::UnlockKey;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{CaError, base36, token::check};

const PREFIX: &str = "OVKEY";
const VERSION: &str = "1";
const KEY_TEXT_LEN: usize = 50;

/// A text that is no unlock key. Never repeats the text: it may be most of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnlockKeyError {
    /// Another kind of text.
    #[error("not an unlock key: those start with \"OVKEY-1-\"")]
    Prefix,
    /// Some character is wrong, missing, or too much.
    #[error("mistyped unlock key: copy it again, whole")]
    Mistyped,
}

/// A new unlock key, from the system's entropy.
pub fn generate() -> Result<UnlockKey, CaError> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| CaError::key("the system has no entropy for an unlock key"))?;
    Ok(UnlockKey::from_bytes(*bytes))
}

/// The key as text.
pub fn to_text(key: &UnlockKey) -> Zeroizing<String> {
    let digits = base36::encode(key.as_bytes(), KEY_TEXT_LEN);
    let body = Zeroizing::new(format!("{PREFIX}-{VERSION}-{}", digits.as_str()));
    Zeroizing::new(format!("{}-{}", body.as_str(), check(&body)))
}

/// Reads a key; white space around it is ignored.
pub fn parse(text: &str) -> Result<UnlockKey, UnlockKeyError> {
    let text = text.trim();
    let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'));
    let rest = rest.and_then(|rest| rest.strip_prefix(VERSION)?.strip_prefix('-'));
    let rest = rest.ok_or(UnlockKeyError::Prefix)?;
    let (digits, given) = rest.split_once('-').ok_or(UnlockKeyError::Mistyped)?;
    let mut bytes = Zeroizing::new([0; 32]);
    let read = base36::decode(digits, &mut *bytes).is_ok();
    let body = &text[..text.len() - given.len() - 1];
    if !read || digits.len() != KEY_TEXT_LEN || check(body) != given {
        return Err(UnlockKeyError::Mistyped);
    }
    Ok(UnlockKey::from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn c05_an_unlock_key_is_read_as_it_was_written() {
        let key = generate().unwrap();
        let text = to_text(&key);
        assert_eq!(parse(&format!("  {}\n", text.as_str())), Ok(key));
        for at in 8..text.len() {
            let mut mistyped = text.to_string().into_bytes();
            mistyped[at] = if mistyped[at] == b'a' { b'b' } else { b'a' };
            let mistyped = String::from_utf8(mistyped).unwrap();
            assert_eq!(parse(&mistyped), Err(UnlockKeyError::Mistyped), "{at}");
            assert_eq!(parse(&text[..at]), Err(UnlockKeyError::Mistyped), "{at}");
        }
    }

    #[rstest]
    #[case("")]
    #[case("OVKEY")]
    #[case("OVKEY-2-abc")]
    #[case("OVTKN-1-abc-def-ghijk")]
    fn c05_another_text_is_told_apart(#[case] text: &str) {
        assert_eq!(parse(text), Err(UnlockKeyError::Prefix));
    }
}
