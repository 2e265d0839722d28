//! Keys of a pair of nodes: X25519 (RFC 7748) and HKDF-SHA-256 (RFC 5869).
//!
//! ```text
//!   A: seed ─► key pair ── public ──►  managers  ◄── public ── key pair ◄─ seed :B
//!                 │                                               │
//!                 └──── shared secret, the same on both sides ────┘
//!                                      │ HKDF: cluster, epoch, from, to, both public keys
//!                       A→B: key 32, salt 4, SPI 4      B→A: key 32, salt 4, SPI 4
//! ```
//!
//! The public keys are part of what is hashed. A node that restarts makes a new pair for the same
//! epoch, and its new associations then differ from the old ones in everything, SPI included.
//!
//! Secret halves, shared secrets and derived keys are zeroized when dropped; the inner state of HKDF,
//! which lives on the stack for the time of a call, is not.

use hkdf::Hkdf;
use overlay_types::{ClusterId, Epoch, NodeId, Spi};
use sha2::Sha256;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::{
    aead::{AeadKey, KEY_LEN},
    error::CryptoError,
    esp::{SALT_LEN, SaKeys, Salt},
};

const LABEL: &[u8] = b"overlay esp v1";

/// Public half of a key pair: an X25519 u-coordinate (RFC 7748 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// A node's key pair for one epoch. The secret half is zeroized when dropped and cannot be read out.
#[cfg_attr(test, derive(Clone))]
pub struct KeyPair {
    secret: StaticSecret,
    public: PublicKey,
}

impl KeyPair {
    /// The pair of these 32 bytes, which must come from a cryptographic random source and are used
    /// for nothing else.
    pub fn from_entropy(entropy: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*entropy);
        let public = PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// The half to publish.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Keys for both directions between this node and a peer.
    ///
    /// # Errors
    /// [`CryptoError::WeakPublicKey`] when the shared secret is all zero, which a public key of
    /// small order enforces (RFC 7748 §6.1).
    pub fn derive(&self, pair: &Pair, peer_public: PublicKey) -> Result<PairKeys, CryptoError> {
        let shared = self.secret.diffie_hellman(&x25519_dalek::PublicKey::from(peer_public.0));
        if !shared.was_contributory() {
            return Err(CryptoError::WeakPublicKey { peer: pair.peer, epoch: pair.epoch });
        }
        let hkdf = Hkdf::<Sha256>::new(None, shared.as_bytes());
        let own = (pair.own, self.public);
        let peer = (pair.peer, peer_public);
        Ok(PairKeys {
            outbound: direction(&hkdf, pair, own, peer),
            inbound: direction(&hkdf, pair, peer, own),
        })
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Who talks to whom, where and when: what keys are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The cluster.
    pub cluster: ClusterId,
    /// The key epoch.
    pub epoch: Epoch,
    /// This node.
    pub own: NodeId,
    /// The other one.
    pub peer: NodeId,
}

/// Keying material of a pair of nodes, as one of them sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairKeys {
    /// What this node seals with.
    pub outbound: SaKeys,
    /// What the peer seals with.
    pub inbound: SaKeys,
}

fn direction(
    hkdf: &Hkdf<Sha256>,
    pair: &Pair,
    from: (NodeId, PublicKey),
    to: (NodeId, PublicKey),
) -> SaKeys {
    let info = [
        LABEL,
        &pair.cluster.to_bytes(),
        &pair.epoch.get().to_be_bytes(),
        &from.0.to_bytes(),
        &to.0.to_bytes(),
        &from.1.0,
        &to.1.0,
    ];
    let mut okm = Zeroizing::new([0; KEY_LEN + SALT_LEN + 4]);
    hkdf.expand_multi_info(&info, &mut *okm).expect("40 bytes are within HKDF's limit");
    let (key, rest) = okm.split_first_chunk().expect("40 bytes start with 32");
    let (salt, spi) = rest.split_first_chunk().expect("8 bytes start with 4");
    let number = u32::from_be_bytes(spi.try_into().expect("8 bytes end with 4"));
    // One in 16 million falls on a reserved number and takes the place 256 further on.
    let spi = Spi::new(number).or_else(|| Spi::new(number + Spi::MIN));
    SaKeys {
        spi: spi.expect("256 and more are not reserved"),
        key: AeadKey::from_bytes(*key),
        salt: Salt(*salt),
    }
}

#[cfg(test)]
mod tests;
