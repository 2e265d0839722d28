//! The listener: handshakes that are bounded in number and time, and who connected.

use core::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};
use std::{collections::HashMap, io, sync::Arc};

use futures::{Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustls_pki_types::UnixTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ConnectionInfo, NodeTls, TlsConnection, connection::Anonymous};
use crate::ca::trust::Trust;

/// A handshake takes two round trips; a peer that needs longer than this is not there.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at a time; further callers wait in the kernel's backlog. rustls keeps at most 64 KiB
/// of one, so 32 MiB together, and 5 000 nodes that return at once get through in a few rounds.
pub const MAX_HANDSHAKES: usize = 512;
/// Handshakes at a time from one host (IPv6: one /64); further ones are dropped, so that one broken host does
/// not keep the others out.
pub const MAX_HANDSHAKES_PER_SOURCE: usize = 64;
/// Connections without a client certificate at a time; further ones are dropped. Only joiners need
/// one, for one call.
pub const MAX_ANONYMOUS: usize = 256;
/// Wait after the system refused to accept (no file descriptors, no memory), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals in a row from one line in the log to the next: a minute.
const TOLD_EVERY: u32 = 600;

/// Connections with a finished handshake, for tonic's `serve_with_incoming`. Never ends, and never
/// yields an error: what fails is dropped and counted.
pub struct TlsIncoming {
    listener: TcpListener,
    tls: Arc<NodeTls>,
    handshakes: FuturesUnordered<BoxFuture<'static, Handshake>>,
    sources: HashMap<IpAddr, usize>,
    anonymous: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
    /// How often in a row the system refused to accept.
    refusals: u32,
    counters: Arc<HandshakeCounters>,
}

/// How a handshake ended.
struct Handshake {
    source: IpAddr,
    outcome: Result<(TlsStream<TcpStream>, ConnectionInfo), Failure>,
}

enum Failure {
    TimedOut,
    Refused(io::Error),
}

impl TlsIncoming {
    /// Accepts on `listener` with the credentials that `tls` has at the time.
    pub fn new(listener: TcpListener, tls: Arc<NodeTls>) -> Self {
        Self {
            listener,
            tls,
            handshakes: FuturesUnordered::new(),
            sources: HashMap::new(),
            anonymous: Arc::new(Semaphore::new(MAX_ANONYMOUS)),
            pause: None,
            refusals: 0,
            counters: Arc::default(),
        }
    }

    /// The counters, which stay readable while a server owns this stream.
    pub fn counters(&self) -> Arc<HandshakeCounters> {
        Arc::clone(&self.counters)
    }

    /// Accepts as long as there are callers and room.
    fn poll_accept(&mut self, cx: &mut Context<'_>) {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return;
            }
            self.pause = None;
        }
        while self.handshakes.len() < MAX_HANDSHAKES {
            match self.listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, remote))) => {
                    if self.refusals > 0 {
                        tracing::info!("control connections are accepted again");
                        self.refusals = 0;
                    }
                    self.begin(stream, remote);
                }
                Poll::Ready(Err(error)) => {
                    self.counters.accept_failed.fetch_add(1, Relaxed);
                    if !is_of_caller(&error) {
                        return self.begin_pause(&error, cx);
                    }
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "nothing tells when the system has room")]
    fn begin_pause(&mut self, error: &io::Error, cx: &mut Context<'_>) {
        if self.refusals.is_multiple_of(TOLD_EVERY) {
            tracing::warn!(%error, "cannot accept control connections for now");
        }
        self.refusals = self.refusals.wrapping_add(1);
        let mut pause = Box::pin(tokio::time::sleep(ACCEPT_PAUSE));
        // Registers the waker; it is far from due.
        let _ = pause.as_mut().poll(cx);
        self.pause = Some(pause);
    }

    fn begin(&mut self, stream: TcpStream, remote: SocketAddr) {
        let source = source_of(remote.ip());
        let open = self.sources.entry(source).or_default();
        if *open >= MAX_HANDSHAKES_PER_SOURCE {
            self.counters.crowded_out.fetch_add(1, Relaxed);
            return;
        }
        *open += 1;
        let (config, trust) = self.tls.acceptor();
        let acceptor = (TlsAcceptor::from(config), trust);
        self.handshakes.push(Box::pin(async move {
            let outcome = timeout(HANDSHAKE_TIMEOUT, handshake(acceptor, stream, remote))
                .await
                .unwrap_or(Err(Failure::TimedOut));
            Handshake { source, outcome }
        }));
    }

    fn end(&mut self, handshake: Handshake) -> Option<TlsConnection> {
        if let Some(open) = self.sources.get_mut(&handshake.source) {
            *open -= 1;
            if *open == 0 {
                self.sources.remove(&handshake.source);
            }
        }
        let source = handshake.source;
        match handshake.outcome {
            Ok((stream, info)) => {
                let anonymous = if info.peer.is_some() {
                    None
                } else if let Ok(permit) = Arc::clone(&self.anonymous).try_acquire_owned() {
                    Some(Anonymous::new(permit))
                } else {
                    self.counters.crowded_out.fetch_add(1, Relaxed);
                    return None;
                };
                self.counters.completed.fetch_add(1, Relaxed);
                Some(TlsConnection { stream, info, anonymous })
            }
            Err(Failure::TimedOut) => {
                self.counters.timed_out.fetch_add(1, Relaxed);
                tracing::debug!(%source, "handshake timed out");
                None
            }
            Err(Failure::Refused(error)) => {
                self.counters.refused.fetch_add(1, Relaxed);
                tracing::debug!(%source, %error, "handshake refused");
                None
            }
        }
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsConnection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.poll_accept(cx);
            match this.handshakes.poll_next_unpin(cx) {
                Poll::Ready(Some(handshake)) => {
                    if let Some(connection) = this.end(handshake) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                // No handshakes: the listener wakes us.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

async fn handshake(
    (acceptor, trust): (TlsAcceptor, Trust),
    stream: TcpStream,
    remote: SocketAddr,
) -> Result<(TlsStream<TcpStream>, ConnectionInfo), Failure> {
    stream.set_nodelay(true).map_err(Failure::Refused)?;
    let local = stream.local_addr().map_err(Failure::Refused)?;
    let stream = acceptor.accept(stream).await.map_err(Failure::Refused)?;
    let peer = match stream.get_ref().1.peer_certificates() {
        Some([certificate, presented @ ..]) => Some(
            trust
                .peer(certificate, presented, UnixTime::now())
                .map_err(|error| Failure::Refused(io::Error::other(error)))?,
        ),
        Some([]) | None => None,
    };
    Ok((stream, ConnectionInfo { local, remote, peer }))
}

/// What counts as one host: an IPv4 address, or the /64 that an IPv6 host chooses addresses from.
pub(in crate::ca) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The caller went away before it was accepted: nothing is wrong with the listener.
fn is_of_caller(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Counts of what happened to callers.
#[derive(Debug, Default)]
pub struct HandshakeCounters {
    completed: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    crowded_out: AtomicU64,
    accept_failed: AtomicU64,
}

/// A reading of [`HandshakeCounters`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Connections handed on.
    pub completed: u64,
    /// Not TLS 1.3, broken off, or with a certificate that is not of this cluster.
    pub refused: u64,
    /// Not finished within [`HANDSHAKE_TIMEOUT`].
    pub timed_out: u64,
    /// Dropped because its host had [`MAX_HANDSHAKES_PER_SOURCE`] open, or because there were
    /// [`MAX_ANONYMOUS`] without a certificate.
    pub crowded_out: u64,
    /// Errors of the listening socket.
    pub accept_failed: u64,
}

impl HandshakeCounters {
    /// The counts so far.
    pub fn read(&self) -> HandshakeCounts {
        HandshakeCounts {
            completed: self.completed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            crowded_out: self.crowded_out.load(Relaxed),
            accept_failed: self.accept_failed.load(Relaxed),
        }
    }
}
