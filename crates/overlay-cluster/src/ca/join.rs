//! Joining and renewal as the node sees them: it makes a key and a signing request, a manager signs
//! it, the node checks what it got.

mod ask;
pub mod limit;

use core::fmt;

use overlay_types::UnixMillis;
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

pub use ask::{AskError, ask};

use super::{CaError, NodeCredentials, PrivateKey, TrustedRoots};

/// A signing request of ours has about 250 bytes; longer ones are not looked at.
pub const MAX_REQUEST_LEN: usize = 1024;

/// A node between making a key and having a certificate for it.
#[derive(Debug)]
pub struct PendingJoin {
    key: PrivateKey,
    request: Vec<u8>,
}

impl PendingJoin {
    /// A new key, and a request to sign its public half.
    pub fn new() -> Result<Self, CaError> {
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        // The manager decides what the certificate says.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(key.pair()).map_err(CaError::signing)?;
        Ok(Self { request: request.der().to_vec(), key })
    }

    /// The signing request (PKCS #10, RFC 2986) in DER, to send.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Takes the manager's answer: the certificate must be valid at `now`, signed by one of these
    /// roots, and for the key of this request. Whether they are the right roots is the caller's to
    /// know: by a token ([`TrustedRoots::holding`]), or because a manager named them to a member.
    pub fn complete(
        self,
        certificate: &[u8],
        roots: TrustedRoots,
        now: UnixMillis,
    ) -> Result<NodeCredentials, CaError> {
        NodeCredentials::new(CertificateDer::from(certificate.to_vec()), self.key, roots, now)
    }
}

/// A signing request that was checked: the sender has the private half of its P-256 key.
pub struct SigningRequest(SubjectPublicKeyInfo);

impl SigningRequest {
    /// Reads PKCS #10 in DER and checks its signature. What subject and extensions it asks for is
    /// ignored.
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let refused = |reason: String| CaError::Request { reason };
        if der.len() > MAX_REQUEST_LEN {
            return Err(refused(format!("{} bytes, more than {MAX_REQUEST_LEN}", der.len())));
        }
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| refused(format!("not PKCS #10 in DER: {error}")))?;
        if !rest.is_empty() {
            return Err(refused(format!("{} bytes follow it", rest.len())));
        }
        request
            .verify_signature()
            .map_err(|_| refused("its signature is not of the key in it".to_owned()))?;
        let key =
            SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
                .map_err(|error| refused(format!("its public key: {error}")))?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(refused("its public key is not on P-256".to_owned()));
        }
        Ok(Self(key))
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningRequest")
    }
}

#[cfg(test)]
mod tests;
