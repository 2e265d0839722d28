//! AES-256-GCM behind a small trait, with two implementations that must agree.
//!
//! [`RingAead`] is what nodes run: the fastest of those measured. [`PortableAead`] is pure Rust,
//! for targets that `ring` does not know, and the oracle that tests compare against.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of an authentication tag in bytes; shorter ones are not offered.
pub const TAG_LEN: usize = 16;

/// Longest text that is sealed at once: far below the 64 GiB of GCM (NIST SP 800-38D §5.2.1.1), and
/// more than any datagram or file.
pub const MAX_TEXT_LEN: usize = 1 << 30;

/// The tag does not belong to these bytes: another key, another nonce, or somebody changed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTag;

/// A key of AES-256-GCM. Zeroized when dropped, compared in constant time, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AeadKey([u8; KEY_LEN]);

impl AeadKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the kernel's xfrm or a test. Whoever copies them answers for erasing them.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl PartialEq for AeadKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AeadKey {}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

/// AES-256-GCM with a 96-bit nonce and a 128-bit tag, in place, tag apart (RFC 5116 §5.2).
///
/// The caller must never seal twice with one nonce under one key.
pub trait PacketAead: Send + Sync {
    /// Expands `key`.
    fn new(key: &AeadKey) -> Self;

    /// Encrypts `text` in place and returns the tag over `aad` and the result.
    ///
    /// # Panics
    /// When `text` is longer than [`MAX_TEXT_LEN`].
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts `text` in place after comparing the tag in constant time. On error the content of
    /// `text` is unspecified, but never unauthenticated plaintext.
    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), BadTag>;
}

/// AES-256-GCM of `ring`: AES-NI, VAES or ARM crypto extensions where the processor has them.
///
/// `ring` does not erase the expanded key when it is dropped: the key schedule and the GHASH table
/// stay in freed memory until it is used again. The key that was given to
/// [`new`](PacketAead::new) is not copied elsewhere.
pub struct RingAead(LessSafeKey);

impl PacketAead for RingAead {
    fn new(key: &AeadKey) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes());
        Self(LessSafeKey::new(key.expect("an AeadKey has the length of an AES-256 key")))
    }

    #[inline]
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        assert!(text.len() <= MAX_TEXT_LEN, "{} bytes are too many to seal at once", text.len());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            .expect("the text is shorter than 64 GiB");
        tag.as_ref().try_into().expect("a tag of AES-GCM has 16 bytes")
    }

    #[inline]
    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), BadTag> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(aad), (*tag).into(), text, 0..)
            .map(|_| ())
            .map_err(|_| BadTag)
    }
}

/// AES-256-GCM in pure Rust (RustCrypto). The expanded key is zeroized when dropped.
pub struct PortableAead(Aes256Gcm);

impl PacketAead for PortableAead {
    fn new(key: &AeadKey) -> Self {
        Self(Aes256Gcm::new(key.as_bytes().into()))
    }

    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        assert!(text.len() <= MAX_TEXT_LEN, "{} bytes are too many to seal at once", text.len());
        self.0
            .encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(text))
            .expect("the text is shorter than 64 GiB")
            .into()
    }

    fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), BadTag> {
        self.0
            .decrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(text), &(*tag).into())
            .map_err(|_| BadTag)
    }
}

#[cfg(test)]
mod tests;
