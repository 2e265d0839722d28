//! Control connections: TLS 1.3 on tcp 2377, and nothing older.
//!
//! ```text
//!              accept             ClientHello … Finished
//!  TcpListener ──────► handshakes ─────────────────────► TlsConnection + ConnectionInfo ──► tonic
//!  (TlsIncoming)          │  bounded in number, per source and in time
//!                         └──► dropped, counted: HandshakeCounts
//!
//!  Dialer ──► TCP from the advertise address ──► TLS, server's certificate checked ──► tonic
//! ```
//!
//! A client may come without a certificate, since joining is what it has none for; such connections
//! are bounded in number and lifetime. With one, it must be of this cluster. [`ConnectionInfo`]
//! tells a handler which of these called it.
//!
//! Sessions are never resumed: a resumed session skips the check of certificates, and outlives
//! them.

mod connect;
mod connection;
mod listen;
mod verify;
mod whereabouts;

use core::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use overlay_types::{RootId, UnixMillis};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::sync::watch;

pub use connect::{DIAL_TIMEOUT, Dialer};
pub use connection::{ANONYMOUS_LIFETIME, ConnectionInfo, TlsConnection};
pub(in crate::ca) use listen::source_of;
pub use listen::{
    HANDSHAKE_TIMEOUT, HandshakeCounters, HandshakeCounts, MAX_ANONYMOUS, MAX_HANDSHAKES,
    MAX_HANDSHAKES_PER_SOURCE, TlsIncoming,
};
pub use whereabouts::Whereabouts;

use self::verify::{ManagerVerifier, MemberVerifier, PinnedRootVerifier};
use super::{
    CaError, NodeCredentials, Peer, PeerIdentity, RootDigest, TrustedRoots,
    trust::{Trust, provider},
};

/// ALPN of gRPC.
const HTTP2: &[u8] = b"h2";

/// The TLS configurations of a node. New credentials take effect with the next handshake;
/// connections in use keep what they were made with.
#[derive(Debug)]
pub struct NodeTls {
    configs: ArcSwap<Configs>,
    replaced: watch::Sender<()>,
    whereabouts: Whereabouts,
}

#[derive(Debug)]
struct Configs {
    peer: Peer,
    validity: Range<UnixMillis>,
    trust: Trust,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl NodeTls {
    /// Configurations of the node that `credentials` name.
    pub fn new(credentials: &NodeCredentials) -> Result<Self, CaError> {
        let configs = ArcSwap::from_pointee(Configs::new(credentials)?);
        let (replaced, whereabouts) = (watch::Sender::default(), Whereabouts::default());
        Ok(Self { configs, replaced, whereabouts })
    }

    /// Where the dialer looks for managers.
    pub const fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// Takes newer credentials of the same node. The role may be another one.
    pub fn replace(&self, credentials: &NodeCredentials) -> Result<(), CaError> {
        let (old, new) = (self.identity(), credentials.identity());
        if new.cluster != old.cluster {
            return Err(CaError::OtherCluster { expected: old.cluster, found: new.cluster });
        }
        if new.node != old.node {
            return Err(CaError::OtherNode { expected: old.node, found: new.node });
        }
        self.configs.store(Arc::new(Configs::new(credentials)?));
        self.replaced.send_replace(());
        Ok(())
    }

    /// Follows whether newer credentials were taken. What was connected before ends with the
    /// certificate that it was connected with.
    pub fn replaced(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// Who the node is.
    pub fn identity(&self) -> PeerIdentity {
        self.configs.load().peer.identity
    }

    /// From when to when its certificate is valid.
    pub fn validity(&self) -> Range<UnixMillis> {
        self.configs.load().validity.clone()
    }

    /// Who the node is to those that it calls.
    pub fn peer(&self) -> Peer {
        self.configs.load().peer
    }

    /// The root that signed its certificate.
    pub fn issuer(&self) -> RootId {
        self.configs.load().peer.issuer
    }

    /// The roots that it trusts.
    pub fn roots(&self) -> Arc<TrustedRoots> {
        Arc::clone(self.configs.load().trust.roots())
    }

    /// For accepting: asks for a client certificate, and takes none or one of this cluster.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.configs.load().server)
    }

    /// The same, and what tells who a client is that was taken.
    fn acceptor(&self) -> (Arc<ServerConfig>, Trust) {
        let configs = self.configs.load();
        (Arc::clone(&configs.server), configs.trust.clone())
    }

    /// For dialing managers. The server name says whom: see [`Dialer::member`].
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.configs.load().client)
    }
}

impl Configs {
    fn new(credentials: &NodeCredentials) -> Result<Self, CaError> {
        let trust = credentials.trust();
        let certified = CertifiedKey::new(credentials.chain(), credentials.key().signing_key()?);
        let resolver = Arc::new(SingleCertAndKey::from(certified));

        let webpki = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(trust.anchors()),
            Arc::clone(provider()),
        )
        .allow_unauthenticated()
        .build()
        .map_err(CaError::config)?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(CaError::config)?
            .with_client_cert_verifier(Arc::new(MemberVerifier::new(webpki, trust.clone())))
            .with_cert_resolver(Arc::clone(&resolver) as _);
        server.alpn_protocols = vec![HTTP2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(CaError::config)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ManagerVerifier::new(trust.clone())))
            .with_client_cert_resolver(resolver);
        harden(&mut client);
        Ok(Self {
            peer: credentials.peer(),
            validity: credentials.validity(),
            trust: trust.clone(),
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

/// For dialing a manager before having a certificate: the chain must hold the root of `digest`.
fn joiner_config(digest: RootDigest) -> Result<ClientConfig, CaError> {
    let mut client = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(CaError::config)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRootVerifier::new(digest)))
        .with_no_client_auth();
    harden(&mut client);
    Ok(client)
}

fn harden(client: &mut ClientConfig) {
    client.alpn_protocols = vec![HTTP2.to_vec()];
    client.resumption = Resumption::disabled();
    // It would show node ids to the underlay, and servers have one certificate each.
    client.enable_sni = false;
}

#[cfg(test)]
mod tests;
