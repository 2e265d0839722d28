//! What certificates of a cluster are checked against.

use core::time::Duration;
use std::sync::{Arc, LazyLock};

use overlay_types::{ClusterId, Role, UnixMillis};
use rustls::{
    RootCertStore, client::verify_server_cert_signed_by_trust_anchor, crypto::CryptoProvider,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, spki_for_anchor};

use super::{CaError, Peer, PeerIdentity, TrustedRoots, identity};

/// ring, for every handshake and signature. Not the process-wide default: an embedder may have
/// chosen another.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    &PROVIDER
}

/// The roots of a cluster as trust anchors.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    roots: Arc<TrustedRoots>,
    anchors: Arc<RootCertStore>,
}

impl Trust {
    pub(super) fn new(roots: TrustedRoots) -> Result<Self, CaError> {
        let mut anchors = RootCertStore::empty();
        for root in roots.iter() {
            let der = root.certificate.der().clone();
            anchors.add(der).map_err(|error| CaError::certificate(error.to_string()))?;
        }
        Ok(Self { roots: Arc::new(roots), anchors: Arc::new(anchors) })
    }

    pub(super) fn roots(&self) -> &Arc<TrustedRoots> {
        &self.roots
    }

    pub(super) fn anchors(&self) -> &Arc<RootCertStore> {
        &self.anchors
    }

    fn cluster(&self) -> ClusterId {
        self.roots.cluster()
    }

    /// Who `certificate` stands for, if it is valid at `now` and signed by a root, or by a key that
    /// a root certified. Such keys are among `presented` while roots are rotated.
    pub(super) fn member(
        &self,
        certificate: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, CaError> {
        ParsedCertificate::try_from(certificate)
            .and_then(|parsed| {
                let algorithms = provider().signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &self.anchors,
                    presented,
                    now,
                    algorithms,
                )
            })
            .map_err(|error| CaError::of_chain(&error, self.cluster()))?;
        self.identify(certificate)
    }

    /// Who `certificate` stands for, once its chain was checked.
    pub(super) fn identify(&self, certificate: &[u8]) -> Result<PeerIdentity, CaError> {
        let identity = PeerIdentity::from_certificate(certificate)?;
        let expected = self.cluster();
        if identity.cluster != expected {
            return Err(CaError::OtherCluster { expected, found: identity.cluster });
        }
        Ok(identity)
    }

    /// Like [`member`](Self::member), for one that answers as a manager.
    pub(super) fn manager(
        &self,
        certificate: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, CaError> {
        let identity = self.member(certificate, presented, now)?;
        match identity.role {
            Role::Manager => Ok(identity),
            role @ Role::Worker => Err(CaError::NotManager { node: identity.node, role }),
        }
    }

    /// Who presents this chain, by way of which roots.
    pub(super) fn peer(
        &self,
        certificate: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Peer, CaError> {
        let identity = self.identify(certificate)?;
        let end = EndEntityCert::try_from(certificate).map_err(|_| self.unknown_issuer())?;
        let algorithms = provider().signature_verification_algorithms.all;
        let (anchors, usage) = (&self.anchors.roots, KeyUsage::client_auth());
        let path = end.verify_for_usage(algorithms, anchors, presented, now, usage, None, None);
        let path = path.map_err(|_| self.unknown_issuer())?;
        let issuer = identity::id_of_key(&path.issuer_spki());
        // What certified the issuer's key is a root of ours, or has been certified by one.
        let anchor = match path.intermediate_certificates().next() {
            None => issuer,
            Some(_) => identity::id_of_key(&spki_for_anchor(path.anchor())),
        };
        let parsed = identity::parse_x509(certificate)?;
        let (as_of, not_after) = (identity::as_of(&parsed)?, identity::validity(&parsed).end);
        Ok(Peer { identity, as_of, not_after, issuer, anchor })
    }

    fn unknown_issuer(&self) -> CaError {
        CaError::UnknownIssuer { cluster: self.cluster() }
    }
}

pub(super) fn unix_time(now: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(now.0))
}
