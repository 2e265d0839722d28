//! An accepted connection, and who is at its other end.

use core::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use std::io;

use overlay_types::Role;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tonic::{Request, Status, transport::server::Connected};

use crate::ca::PeerIdentity;

/// Both ends of a control connection, and who is at the other one. Every request that came over a
/// [`TlsIncoming`](super::TlsIncoming) carries it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Who the peer proved to be; `None` if it presented no certificate.
    pub peer: Option<PeerIdentity>,
}

impl ConnectionInfo {
    /// The connection that `request` came over.
    pub fn of<T>(request: &Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The caller, or `UNAUTHENTICATED` if it presented no certificate.
    ///
    /// Whether the node was removed since its certificate was signed, the replicated state knows.
    pub fn member<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
        Self::of(request)
            .and_then(|info| info.peer)
            .ok_or_else(|| Status::unauthenticated("this call needs a node certificate"))
    }

    /// Like [`member`](Self::member), or `PERMISSION_DENIED` if it is not a manager.
    pub fn manager<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
        let peer = Self::member(request)?;
        match peer.role {
            Role::Manager => Ok(peer),
            Role::Worker => Err(Status::permission_denied(format!(
                "node {} is a worker, and this call is for managers",
                peer.node
            ))),
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct TlsConnection {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) info: ConnectionInfo,
}

impl Connected for TlsConnection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
