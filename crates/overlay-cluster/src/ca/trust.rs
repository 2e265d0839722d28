//! What certificates of a cluster are checked against.

use core::time::Duration;
use std::sync::{Arc, LazyLock};

use overlay_types::{Role, UnixMillis};
use rustls::{
    RootCertStore, client::verify_server_cert_signed_by_trust_anchor, crypto::CryptoProvider,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{CaError, PeerIdentity, RootCertificate};

/// ring, for every handshake and signature. Not the process-wide default: an embedder may have
/// chosen another.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    &PROVIDER
}

/// The root of a cluster as the one trust anchor.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    root: RootCertificate,
    anchors: Arc<RootCertStore>,
}

impl Trust {
    pub(super) fn new(root: RootCertificate) -> Result<Self, CaError> {
        let mut anchors = RootCertStore::empty();
        anchors.add(root.der().clone()).map_err(|error| CaError::certificate(error.to_string()))?;
        Ok(Self { root, anchors: Arc::new(anchors) })
    }

    pub(super) fn root(&self) -> &RootCertificate {
        &self.root
    }

    pub(super) fn anchors(&self) -> &Arc<RootCertStore> {
        &self.anchors
    }

    /// Who `certificate` stands for, if it is valid at `now` and signed by the root.
    pub(super) fn member(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<PeerIdentity, CaError> {
        let cluster = self.root.cluster();
        // The root signs node certificates itself, so what else a peer presents is not looked at.
        ParsedCertificate::try_from(certificate)
            .and_then(|parsed| {
                let algorithms = provider().signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    &self.anchors,
                    &[],
                    now,
                    algorithms,
                )
            })
            .map_err(|error| CaError::of_chain(&error, cluster))?;
        self.identify(certificate)
    }

    /// Who `certificate` stands for, once its chain was checked.
    pub(super) fn identify(&self, certificate: &[u8]) -> Result<PeerIdentity, CaError> {
        let identity = PeerIdentity::from_certificate(certificate)?;
        let expected = self.root.cluster();
        if identity.cluster != expected {
            return Err(CaError::OtherCluster { expected, found: identity.cluster });
        }
        Ok(identity)
    }

    /// Like [`member`](Self::member), for one that answers as a manager.
    pub(super) fn manager(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<PeerIdentity, CaError> {
        let identity = self.member(certificate, now)?;
        match identity.role {
            Role::Manager => Ok(identity),
            role @ Role::Worker => Err(CaError::NotManager { node: identity.node, role }),
        }
    }
}

pub(super) fn unix_time(now: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(now.0))
}
