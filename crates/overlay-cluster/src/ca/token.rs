//! Join tokens: what a person carries from a manager to a new node.
//!
//! ```text
//! OVTKN-1-<digest>-<secret>-<check>
//!         │        │        └ 5 characters: SHA-256 of all that stands before, cut
//!         │        └ 25 characters: 128 random bits, other ones for workers and managers
//!         └ 50 characters: SHA-256 of the root certificate's DER
//! ```
//!
//! Characters are base 36, as in ids. The digest lets the joiner check who answers before it sends
//! the secret; the check tells a mistyped token from one that was rotated out, at the joiner, so
//! that a manager has only one thing to say to a wrong secret: refused.

use core::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    JoinSecret, RootDigest,
    base36::{self, DecodeError},
    root::DIGEST_TEXT_LEN,
};

const PREFIX: &str = "OVTKN";
const VERSION: &str = "1";
const SECRET_TEXT_LEN: usize = 25;
/// 36^5: a wrong character passes once in 60 million.
const CHECK_TEXT_LEN: usize = 5;

/// A join token: whom to trust, and how to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    digest: RootDigest,
    secret: JoinSecret,
}

impl JoinToken {
    /// The token that makes its bearer trust the root of `digest`, and prove itself by `secret`.
    pub fn new(digest: RootDigest, secret: JoinSecret) -> Self {
        Self { digest, secret }
    }

    /// Digest of the cluster's root certificate.
    pub fn digest(&self) -> RootDigest {
        self.digest
    }

    /// The secret.
    pub fn secret(&self) -> &JoinSecret {
        &self.secret
    }

    /// The token as text, secret included. There is no `Display`: a log line must not have it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = base36::encode(self.secret.expose(), SECRET_TEXT_LEN);
        let body =
            Zeroizing::new(format!("{PREFIX}-{VERSION}-{}-{}", self.digest, secret.as_str()));
        Zeroizing::new(format!("{}-{}", body.as_str(), check(&body)))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Reads a token; white space around it is ignored.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let mut parts = text.split('-');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError::Prefix);
        }
        let version = parts.next().unwrap_or_default();
        if version != VERSION {
            return Err(TokenError::Version);
        }
        let (Some(digest), Some(secret), Some(given_check), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts { found: text.split('-').count() });
        };
        let mut digest_bytes = [0; 32];
        read(TokenPart::Digest, digest, DIGEST_TEXT_LEN, &mut digest_bytes)?;
        let mut secret_bytes = Zeroizing::new([0; JoinSecret::LEN]);
        read(TokenPart::Secret, secret, SECRET_TEXT_LEN, &mut secret_bytes[..])?;
        read(TokenPart::Check, given_check, CHECK_TEXT_LEN, &mut [0; 4])?;
        let body = &text[..text.len() - CHECK_TEXT_LEN - 1];
        if check(body) != given_check {
            return Err(TokenError::Check);
        }
        Ok(Self {
            digest: RootDigest::from_bytes(digest_bytes),
            secret: JoinSecret::from_bytes(*secret_bytes),
        })
    }
}

/// Part of a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPart {
    /// Digest of the root certificate.
    Digest,
    /// The secret.
    Secret,
    /// The check at the end.
    Check,
}

impl fmt::Display for TokenPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest => "digest (third part)",
            Self::Secret => "secret (fourth part)",
            Self::Check => "check (last part)",
        })
    }
}

/// A text that is no join token, and which part of it is wrong. Never repeats the text: it may
/// hold most of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another kind of text.
    #[error("not a join token: those start with \"OVTKN-1-\"")]
    Prefix,
    /// A version that this program does not know.
    #[error("join token of a version other than 1: it was made by a newer program than this")]
    Version,
    /// Cut off, or two tokens in one.
    #[error("join token has {found} parts between dashes instead of 5; copy it whole")]
    Parts {
        /// How many there are.
        found: usize,
    },
    /// A part of the wrong length.
    #[error("mistyped join token: its {part} has {found} characters instead of {expected}")]
    Length {
        /// Which part.
        part: TokenPart,
        /// Characters given.
        found: usize,
        /// Characters it should have.
        expected: usize,
    },
    /// A character that no token has.
    #[error("mistyped join token: character {position} of its {part} is not one of 0-9 and a-z")]
    Character {
        /// Which part.
        part: TokenPart,
        /// Which character of it, counted from 1.
        position: usize,
    },
    /// A part that is larger than any token's.
    #[error("mistyped join token: no token has such a {part}")]
    Range {
        /// Which part.
        part: TokenPart,
    },
    /// All parts look right, but they do not belong together.
    #[error("mistyped join token: some character in it is wrong; copy it again")]
    Check,
}

fn read(part: TokenPart, text: &str, expected: usize, bytes: &mut [u8]) -> Result<(), TokenError> {
    let decoded = base36::decode(text, bytes);
    if let Err(DecodeError::Character { at }) = decoded {
        return Err(TokenError::Character { part, position: at + 1 });
    }
    if text.len() != expected {
        return Err(TokenError::Length { part, found: text.len(), expected });
    }
    decoded.map_err(|_| TokenError::Range { part })
}

/// The check of what stands before it.
pub(super) fn check(body: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(body.as_bytes()).into();
    // 25 bits, so that they fit 5 characters of base 36.
    let bits = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 7;
    base36::encode(&bits.to_be_bytes(), CHECK_TEXT_LEN).to_string()
}

#[cfg(test)]
mod tests;
