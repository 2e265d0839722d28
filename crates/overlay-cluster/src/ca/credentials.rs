//! A node's own certificate and key, with the root that they belong under.

use core::ops::Range;

use overlay_types::{Root, RootId, UnixMillis};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{
    CaError, Peer, PeerIdentity, PrivateKey, TrustedRoots, identity, pem,
    trust::{Trust, unix_time},
};

/// What makes a node itself: certificate, private key, and the roots that it trusts. They belong
/// together, and were valid when this was made.
#[derive(Debug)]
pub struct NodeCredentials {
    certificate: CertificateDer<'static>,
    key: PrivateKey,
    trust: Trust,
    validity: Range<UnixMillis>,
    peer: Peer,
}

impl NodeCredentials {
    /// These parts, if one of the roots signed the certificate, the key is its key, and it is valid
    /// at `now`.
    pub fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKey,
        roots: TrustedRoots,
        now: UnixMillis,
    ) -> Result<Self, CaError> {
        let trust = Trust::new(roots)?;
        trust.member(&certificate, &[], unix_time(now))?;
        let peer = trust.peer(&certificate, &[], unix_time(now))?;
        let parsed = identity::parse_x509(&certificate)?;
        if parsed.public_key().subject_public_key.data != key.public_point() {
            return Err(CaError::key("it does not belong to the node's certificate"));
        }
        let validity = identity::validity(&parsed);
        Ok(Self { certificate, key, trust, validity, peer })
    }

    /// The same certificate, with the roots that the cluster trusts now.
    pub fn with_roots(self, published: &[Root], now: UnixMillis) -> Result<Self, CaError> {
        Self::new(self.certificate, self.key, TrustedRoots::from_published(published)?, now)
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote.
    pub fn from_pem(text: &str, now: UnixMillis) -> Result<Self, CaError> {
        let certificates = pem::decode_certificates(text)?;
        let Some((certificate, roots)) = certificates.split_first() else {
            return Err(CaError::certificate("there is none in PEM"));
        };
        let roots = TrustedRoots::from_certificates(roots)?;
        Self::new(certificate.clone(), PrivateKey::from_pem(text)?, roots, now)
    }

    /// The node's certificate, its key and the roots, one after the other in one text: they are
    /// replaced together. Whoever reads it is this node.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = self.key.to_pem();
        let (certificate, roots) =
            (pem::encode_certificate(&self.certificate), self.roots().to_pem());
        let length = certificate.len() + key.len() + roots.len();
        // Made in one piece: a text that grows leaves copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(length));
        for part in [&certificate, &*key, &roots] {
            text.push_str(part);
        }
        text
    }

    /// Who the node is.
    pub fn identity(&self) -> PeerIdentity {
        self.peer.identity
    }

    /// Who the node is to those that it calls.
    pub fn peer(&self) -> Peer {
        self.peer
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

    /// The root that signed the certificate.
    pub fn issuer(&self) -> RootId {
        self.peer.issuer
    }

    /// The roots that the node trusts.
    pub fn roots(&self) -> &TrustedRoots {
        self.trust.roots()
    }

    /// What the node presents: its certificate, what leads from there to an older root, and the
    /// roots that a joiner's token may name.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![self.certificate.clone()];
        let first = self.roots().first();
        if let Some(issuer) = self.roots().get(self.peer.issuer) {
            chain.extend(issuer.cross.clone());
            if issuer.certificate.id() != first.id() {
                chain.push(issuer.certificate.der().clone());
            }
        }
        chain.push(first.der().clone());
        chain
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }
}
