//! A node's own certificate and key, with the root that they belong under.

use overlay_types::UnixMillis;
use rustls_pki_types::CertificateDer;

use super::{
    CaError, PeerIdentity, PrivateKey, RootCertificate, identity, pem,
    trust::{Trust, unix_time},
};

/// What makes a node itself: certificate, private key, and the cluster's root certificate. They
/// belong together, and were valid when this was made.
#[derive(Debug)]
pub struct NodeCredentials {
    certificate: CertificateDer<'static>,
    key: PrivateKey,
    trust: Trust,
    identity: PeerIdentity,
}

impl NodeCredentials {
    /// These parts, if the root signed the certificate, the key is its key, and it is valid at
    /// `now`.
    pub fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKey,
        root: RootCertificate,
        now: UnixMillis,
    ) -> Result<Self, CaError> {
        let trust = Trust::new(root)?;
        let identity = trust.member(&certificate, unix_time(now))?;
        let parsed = identity::parse_x509(&certificate)?;
        if parsed.public_key().subject_public_key.data != key.public_point() {
            return Err(CaError::key("it does not belong to the node's certificate"));
        }
        Ok(Self { certificate, key, trust, identity })
    }

    /// Reads what [`certificate_pem`](Self::certificate_pem), [`PrivateKey::to_pem`] and
    /// [`RootCertificate::to_pem`] wrote.
    pub fn from_pem(
        certificate: &str,
        key: &str,
        root: &str,
        now: UnixMillis,
    ) -> Result<Self, CaError> {
        let root = RootCertificate::from_pem(root)?;
        Self::new(pem::decode_certificate(certificate)?, PrivateKey::from_pem(key)?, root, now)
    }

    /// Who the node is.
    pub fn identity(&self) -> PeerIdentity {
        self.identity
    }

    /// The node's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The node's certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode_certificate(&self.certificate)
    }

    /// The node's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The cluster's root certificate.
    pub fn root(&self) -> &RootCertificate {
        self.trust.root()
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }
}
