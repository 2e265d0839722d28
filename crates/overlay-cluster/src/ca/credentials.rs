//! A node's own certificate and key, with the root that they belong under.

use core::ops::Range;

use overlay_types::UnixMillis;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

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
    validity: Range<UnixMillis>,
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
        let validity = identity::validity(&parsed);
        Ok(Self { certificate, key, trust, identity, validity })
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote.
    pub fn from_pem(text: &str, now: UnixMillis) -> Result<Self, CaError> {
        let [certificate, root] = pem::decode_certificates(text)?;
        let root = RootCertificate::from_der(&root)?;
        Self::new(certificate, PrivateKey::from_pem(text)?, root, now)
    }

    /// The node's certificate, its key and the root certificate, one after the other in one text:
    /// they are replaced together. Whoever reads it is this node.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = self.key.to_pem();
        let (certificate, root) =
            (pem::encode_certificate(&self.certificate), self.root().to_pem());
        let length = certificate.len() + key.len() + root.len();
        // Made in one piece: a text that grows leaves copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(length));
        for part in [&certificate, &*key, &root] {
            text.push_str(part);
        }
        text
    }

    /// Who the node is.
    pub fn identity(&self) -> PeerIdentity {
        self.identity
    }

    /// The node's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// From when to when the certificate is valid.
    pub fn validity(&self) -> Range<UnixMillis> {
        self.validity.clone()
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
