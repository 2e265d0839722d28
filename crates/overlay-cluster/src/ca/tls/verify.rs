//! Which certificates a handshake accepts. Names of hosts have no meaning here: a server is known
//! by its node id, wherever it is.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::ca::{
    CaError, PeerIdentity, RootCertificate, RootDigest,
    identity::{SERVER_NAME_OF_ANY, node_of_server_name},
    trust::{Trust, provider},
};

/// A member dials: the server must be a manager of the cluster, and the expected one if the server
/// name tells a node.
#[derive(Debug)]
pub(super) struct ManagerVerifier(Trust);

impl ManagerVerifier {
    pub(super) fn new(trust: Trust) -> Self {
        Self(trust)
    }
}

/// A joiner dials: the presented chain must hold the root of the token, and the server be a manager
/// under it, or under a root that it certified to replace it.
#[derive(Debug)]
pub(super) struct PinnedRootVerifier(RootDigest);

impl PinnedRootVerifier {
    pub(super) fn new(digest: RootDigest) -> Self {
        Self(digest)
    }
}

/// A client presents a certificate: it must be of the cluster.
#[derive(Debug)]
pub(super) struct MemberVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust: Trust,
}

impl MemberVerifier {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, trust: Trust) -> Self {
        Self { chain, trust }
    }
}

fn expected_node(identity: PeerIdentity, name: &ServerName<'_>) -> Result<(), CaError> {
    let name = name.to_str();
    if name == SERVER_NAME_OF_ANY || name == identity.server_name() {
        return Ok(());
    }
    match node_of_server_name(&name) {
        Some(expected) => Err(CaError::OtherNode { expected, found: identity.node }),
        None => Err(CaError::certificate(format!("{name:?} is not the name of a node"))),
    }
}

fn only_tls13() -> Error {
    PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into()
}

macro_rules! verify_tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(only_tls13())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                certificate,
                signature,
                &provider().signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for ManagerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let identity = self.0.manager(certificate, presented, now)?;
        expected_node(identity, name)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_tls13_signatures!();
}

impl ServerCertVerifier for PinnedRootVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        presented: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = presented
            .iter()
            .find(|certificate| RootDigest::of(certificate) == self.0)
            .ok_or(CaError::OtherRoot { expected: self.0 })?;
        let trust = Trust::new(RootCertificate::from_der(root)?.into())?;
        trust.manager(certificate, presented, now)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_tls13_signatures!();
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        self.trust.identify(certificate)?;
        Ok(verified)
    }

    verify_tls13_signatures!();
}
