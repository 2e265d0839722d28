//! The dialer: control connections to managers, from the address that the node advertises (C03).

use core::{
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};
use std::{io, sync::Arc};

use futures::future::{BoxFuture, select_ok};
use hyper_util::rt::TokioIo;
use overlay_types::NodeId;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::Service;

use super::{NodeTls, Whereabouts, joiner_config};
use crate::ca::{
    CaError, RootDigest,
    identity::{SERVER_NAME_OF_ANY, server_name},
};

/// From the first SYN to the end of the handshake. Two retransmitted SYNs (1 s, 3 s) fit in.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a connection is given up, unless it is told otherwise
/// ([`Dialer::leaving_after`]). Must not give up a manager that is merely busy, or everyone would come
/// back with a handshake when it has least time for it.
const SILENCE: Duration = Duration::from_secs(10);

/// Dials one manager; a connector for tonic's channels, which reconnect through it.
#[derive(Clone, Debug)]
pub struct Dialer {
    configs: ConfigSource,
    name: String,
    /// Who is expected, to be looked for elsewhere, too.
    expected: Option<(NodeId, Whereabouts)>,
    from: IpAddr,
    to: SocketAddr,
    silence: Duration,
}

#[derive(Clone, Debug)]
enum ConfigSource {
    /// What the node has when it dials, so that renewed credentials are used.
    Node(Arc<NodeTls>),
    Joiner(Arc<ClientConfig>),
}

impl Dialer {
    /// Dials as the node of `tls`, from its address `from`, the manager at `to`. With `expected`,
    /// only that node is accepted, at `to` or where it has moved to ([`Whereabouts`]).
    pub fn member(
        tls: Arc<NodeTls>,
        from: IpAddr,
        to: SocketAddr,
        expected: Option<NodeId>,
    ) -> Self {
        let name = expected.map_or_else(|| SERVER_NAME_OF_ANY.to_owned(), server_name);
        let expected = expected.map(|node| (node, tls.whereabouts().clone()));
        Self { configs: ConfigSource::Node(tls), name, expected, from, to, silence: SILENCE }
    }

    /// Dials without a certificate. Only a manager under the root of `digest` is accepted, before
    /// anything is sent to it.
    pub fn joiner(digest: RootDigest, from: IpAddr, to: SocketAddr) -> Result<Self, CaError> {
        let configs = ConfigSource::Joiner(Arc::new(joiner_config(digest)?));
        let name = SERVER_NAME_OF_ANY.to_owned();
        Ok(Self { configs, name, expected: None, from, to, silence: SILENCE })
    }

    /// A manager that sends nothing for this long, though it is asked to (HTTP/2 PING) after half of
    /// it, has died without a word or hangs: calls on the connection end with UNAVAILABLE.
    #[must_use]
    pub const fn leaving_after(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Connects a channel now.
    pub async fn channel(&self) -> Result<Channel, CaError> {
        self.endpoint().connect_with_connector(self.clone()).await.map_err(|error| {
            CaError::find_in(&error)
                .unwrap_or_else(|| CaError::Connection { remote: self.to, reason: chain(&error) })
        })
    }

    /// A channel that connects when it is first used.
    pub fn lazy_channel(&self) -> Channel {
        self.endpoint().connect_with_connector_lazy(self.clone())
    }

    /// Connects TCP and TLS, within [`DIAL_TIMEOUT`].
    pub async fn dial(&self) -> Result<TlsStream<TcpStream>, CaError> {
        let connection = |reason: String| CaError::Connection { remote: self.to, reason };
        match timeout(DIAL_TIMEOUT, self.connect()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                Err(CaError::find_in(&error).unwrap_or_else(|| connection(error.to_string())))
            }
            Err(_) => Err(connection(format!("no answer within {DIAL_TIMEOUT:?}"))),
        }
    }

    /// Dials wherever the server may be; the first that proves to be it counts.
    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let candidates = match &self.expected {
            Some((node, whereabouts)) => whereabouts.candidates(*node, self.to),
            None => vec![self.to],
        };
        let dials = candidates.into_iter().map(|to| Box::pin(self.connect_to(to)));
        let dials: Vec<_> = dials.collect();
        if dials.is_empty() {
            let message = "another node has its address, and it has not said where it is";
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, message));
        }
        select_ok(dials).await.map(|(stream, _slower)| stream)
    }

    async fn connect_to(&self, to: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let socket = match (self.from, to) {
            (IpAddr::V4(_), SocketAddr::V4(_)) => TcpSocket::new_v4()?,
            (IpAddr::V6(_), SocketAddr::V6(_)) => TcpSocket::new_v6()?,
            (from, _) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    format!("this node's address {from} is of the other IP version"),
                ));
            }
        };
        socket.bind(SocketAddr::new(self.from, 0)).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot send from {}: {error}", self.from))
        })?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let config = match &self.configs {
            ConfigSource::Node(tls) => tls.client_config(),
            ConfigSource::Joiner(config) => Arc::clone(config),
        };
        let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }

    fn endpoint(&self) -> Endpoint {
        // tonic's own TLS, if some other crate switches it on, acts on "https" only; ours is below.
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.name.as_str())
            .path_and_query("/")
            .build()
            .expect("a DNS name is an authority");
        Endpoint::from(uri)
            .http2_keep_alive_interval(self.silence / 2)
            .keep_alive_timeout(self.silence / 2)
            .keep_alive_while_idle(true)
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = CaError;
    type Future = BoxFuture<'static, Result<Self::Response, CaError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CaError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map(TokioIo::new) })
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
