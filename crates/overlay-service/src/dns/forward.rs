//! Questions about names of others, asked from the endpoint's side.

use core::{fmt, net::SocketAddr, time::Duration};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UdpSocket},
    time::timeout,
};

use super::message;

/// Most upstreams that are asked about one name, as many as `resolv.conf` names (`MAXNS`).
const MAX_UPSTREAMS: usize = 3;

/// How long one upstream has to reply. With all of them it stays below the 5 s after which
/// `resolv.conf`'s clients ask again.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// Longest reply over UDP that is taken; more than we tell upstreams to send.
const MAX_DATAGRAM: usize = 4096;

/// Opens the sockets that upstreams are asked from.
///
/// What these are decides where the packets leave: an implementation for an endpoint opens them
/// inside the endpoint's network namespace. A socket stays in the namespace it was opened in.
pub trait Sockets: Send + Sync + 'static {
    /// A UDP socket, bound to a port that others cannot guess and connected to `upstream`, so that
    /// only its packets come in.
    fn udp(&self, upstream: SocketAddr) -> io::Result<std::net::UdpSocket>;

    /// A TCP socket that is not yet connected.
    fn tcp(&self, upstream: SocketAddr) -> io::Result<TcpSocket>;
}

/// Sockets in the network namespace of the calling thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LocalSockets;

impl Sockets for LocalSockets {
    fn udp(&self, upstream: SocketAddr) -> io::Result<std::net::UdpSocket> {
        // The kernel draws the port at random when it is 0 (RFC 5452 §9.2).
        let any: SocketAddr = match upstream {
            SocketAddr::V4(_) => (core::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (core::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(upstream)?;
        Ok(socket)
    }

    fn tcp(&self, upstream: SocketAddr) -> io::Result<TcpSocket> {
        match upstream {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
    }
}

/// Why a question got no reply. The client gets SERVFAIL, and nothing else changed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is nobody to ask.
    #[error("no upstream name server is configured")]
    NoUpstream,
    /// A socket could not be opened or used.
    #[error("asking name server {upstream} failed; is it reachable from the endpoint?")]
    Io {
        /// Who was asked.
        upstream: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No reply in time.
    #[error("name server {upstream} did not reply within {} ms", ATTEMPT.as_millis())]
    Silent {
        /// Who was asked.
        upstream: SocketAddr,
    },
}

/// Name servers that are asked about names of others, and how they are reached.
#[derive(Clone)]
pub struct Forwarder {
    upstreams: Arc<[SocketAddr]>,
    sockets: Arc<dyn Sockets>,
    /// The one that answered last.
    good: Arc<AtomicUsize>,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("upstreams", &self.upstreams).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Asks the first three of `upstreams`, in order, until one replies; the next time that one first,
    /// so that one that is gone is waited for once.
    pub fn new(upstreams: impl IntoIterator<Item = SocketAddr>, sockets: impl Sockets) -> Self {
        let upstreams = upstreams.into_iter().take(MAX_UPSTREAMS).collect();
        Self { upstreams, sockets: Arc::new(sockets), good: Arc::default() }
    }

    /// The reply to `query`, whole if `whole`, else perhaps cut and marked as such (TC). A reply
    /// that reports a failure is returned only if no upstream gives a better one.
    pub(super) async fn ask(&self, query: &[u8], whole: bool) -> Result<Vec<u8>, ForwardError> {
        let mut worst = Err(ForwardError::NoUpstream);
        let (count, good) = (self.upstreams.len(), self.good.load(Ordering::Relaxed));
        for place in (0..count).map(|step| (good + step) % count) {
            let upstream = self.upstreams[place];
            let attempt = self.ask_one(query, upstream, whole);
            match timeout(ATTEMPT, attempt).await {
                Ok(Ok(reply)) if !message::is_failure(&reply) => {
                    self.good.store(place, Ordering::Relaxed);
                    return Ok(reply);
                }
                Ok(Ok(reply)) => worst = Ok(reply),
                Ok(Err(source)) if worst.is_err() => {
                    worst = Err(ForwardError::Io { upstream, source });
                }
                Err(_) if worst.is_err() => worst = Err(ForwardError::Silent { upstream }),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        worst
    }

    async fn ask_one(
        &self,
        query: &[u8],
        upstream: SocketAddr,
        whole: bool,
    ) -> io::Result<Vec<u8>> {
        let reply = self.ask_udp(query, upstream).await?;
        if whole && message::is_truncated(&reply) {
            return self.ask_tcp(query, upstream).await;
        }
        Ok(reply)
    }

    async fn ask_udp(&self, query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
        let socket = self.sockets.udp(upstream)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        socket.send(query).await?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let len = socket.recv(&mut buffer).await?;
            // Someone who guesses may send as much as he likes: the true reply still counts.
            if message::answers(&buffer[..len], query) {
                buffer.truncate(len);
                return Ok(buffer);
            }
        }
    }

    async fn ask_tcp(&self, query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
        let mut stream = self.sockets.tcp(upstream)?.connect(upstream).await?;
        let len = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&len.to_be_bytes(), query].concat()).await?;
        let len = stream.read_u16().await?;
        let mut reply = vec![0; len.into()];
        stream.read_exact(&mut reply).await?;
        if message::answers(&reply, query) {
            Ok(reply)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is to another question"))
        }
    }
}
