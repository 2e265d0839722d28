//! Joining and renewal without I/O: a node makes a key and a signing request, a manager signs it,
//! the node checks what it got. A joiner gets the role that its secret stands for, a member the one
//! that the cluster gives it.

pub mod limit;

use core::fmt;

use overlay_types::{NodeId, UnixMillis};
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{
    CaError, JoinSecret, JoinSecrets, NodeCredentials, PeerIdentity, PrivateKey, RootCa,
    RootCertificate, RootDigest,
};

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

    /// Takes the manager's answer. `expected` is the token's digest; the certificate must be valid
    /// at `now`, signed by that root, and for the key of this request.
    pub fn complete(
        self,
        certificate: &[u8],
        root: &[u8],
        expected: RootDigest,
        now: UnixMillis,
    ) -> Result<NodeCredentials, CaError> {
        if RootDigest::of(root) != expected {
            return Err(CaError::OtherRoot { expected });
        }
        let root = RootCertificate::from_der(root)?;
        NodeCredentials::new(CertificateDer::from(certificate.to_vec()), self.key, root, now)
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

/// A joiner that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Who it is from now on.
    pub identity: PeerIdentity,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
}

/// A manager's decision about a joiner: the secret says the role, `node` is the id that it gets.
///
/// A secret that matches none is [`CaError::JoinRefused`], whatever the request looks like.
pub fn admit(
    ca: &RootCa,
    secrets: &JoinSecrets,
    presented: &JoinSecret,
    request: &[u8],
    node: NodeId,
    now: UnixMillis,
) -> Result<Admission, CaError> {
    let role = secrets.role_of(presented).ok_or(CaError::JoinRefused)?;
    let request = SigningRequest::from_der(request)?;
    let certificate = ca.sign(&request, node, role, now)?;
    let identity = PeerIdentity { cluster: ca.certificate().cluster(), node, role };
    Ok(Admission { identity, certificate })
}

#[cfg(test)]
mod tests;
