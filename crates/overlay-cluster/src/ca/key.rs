//! A P-256 private key that never leaves its node other than as PEM for its owner's disk.

use core::fmt;
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::{crypto::ring::sign::any_ecdsa_type, sign::SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::{Zeroize, Zeroizing};

use super::CaError;

/// A P-256 private key. Its PKCS #8 bytes are erased when it is dropped; what ring parsed from
/// them, in here and in rustls, is freed without (ring offers no way).
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new key, from the system's entropy.
    pub fn generate() -> Result<Self, CaError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(CaError::key)
    }

    /// Reads PKCS #8, `-----BEGIN PRIVATE KEY-----`.
    pub fn from_pem(text: &str) -> Result<Self, CaError> {
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(CaError::key)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        der.zeroize();
        key.map(Self).map_err(CaError::key)
    }

    /// PKCS #8 as PEM. Whoever reads it is this node.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The public half as an uncompressed point (SEC 1 section 2.3.3): 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        self.0.der_bytes()
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// The key as rustls signs with it.
    pub(super) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, CaError> {
        let mut der = PrivateKeyDer::Pkcs8(self.0.serialize_der().into());
        let key = any_ecdsa_type(&der);
        der.zeroize();
        key.map_err(CaError::key)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(P-256, redacted)")
    }
}
