//! An accepted connection, and who is at its other end.

use core::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tonic::{Request, transport::server::Connected};

use crate::ca::Peer;

/// A joiner makes one call; a connection without a client certificate that is older than this is
/// closed, so that its place is free for others.
pub const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(30);

/// Both ends of a control connection, and who is at the other one. Every request that came over a
/// [`TlsIncoming`](super::TlsIncoming) carries it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Who the peer proved to be; `None` if it presented no certificate. Whether it still is, the
    /// clock and the replicated state know.
    pub peer: Option<Peer>,
}

impl ConnectionInfo {
    /// The connection that `request` came over.
    pub fn of<T>(request: &Request<T>) -> Option<&Self> {
        request.extensions().get()
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct TlsConnection {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) info: ConnectionInfo,
    pub(super) anonymous: Option<Anonymous>,
}

/// What a connection without a client certificate holds: one of the few places for them, for a
/// while.
#[derive(Debug)]
pub(super) struct Anonymous {
    _place: OwnedSemaphorePermit,
    end: Pin<Box<Sleep>>,
}

impl Anonymous {
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the passing of time is the condition")]
        let end = Box::pin(tokio::time::sleep(ANONYMOUS_LIFETIME));
        Self { _place: place, end }
    }
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
        let this = self.get_mut();
        // HTTP/2 always has a read waiting, so this is where a timer wakes the connection.
        if let Some(anonymous) = &mut this.anonymous
            && anonymous.end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
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
