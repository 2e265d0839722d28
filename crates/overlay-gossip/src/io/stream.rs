//! One message per TCP connection.
//!
//! ```text
//! length 4, big-endian | sealed message | end
//! ```
//!
//! The answer, if any, comes over a connection of its own, so neither side keeps state about the
//! other, and half-open connections are worth nothing.

use std::{
    collections::BTreeMap,
    io, mem,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use crate::{config::MAX_STREAM_MESSAGE, counters::DropReason};

/// Connections that are read at once; each may hold a message of [`MAX_STREAM_MESSAGE`].
const MAX_INCOMING: usize = 32;

/// Of these, from one host. A member needs two: a probe and an exchange.
const MAX_PER_HOST: usize = 4;

/// Connections that are written at once.
pub(super) const MAX_OUTGOING: usize = 32;

/// Messages that were read and wait for the task.
pub(super) const WAITING: usize = 16;

/// For the whole of a message, in either direction. An exchange of a full table is 0.4 MB.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// After the system refused to accept, as when descriptors ran out; a bound on a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals in a row from one line in the log to the next: a minute.
const TOLD_EVERY: u32 = 600;

/// What came over a connection.
pub(super) enum Arrival {
    Message { from: SocketAddr, bytes: Vec<u8> },
    Dropped(DropReason),
}

/// Accepts connections until the task is gone.
pub(super) async fn accept(listener: TcpListener, arrivals: mpsc::Sender<Arrival>) {
    let hosts = Arc::new(Mutex::new(BTreeMap::<IpAddr, usize>::new()));
    let free = Arc::new(Semaphore::new(MAX_INCOMING));
    // Dropping the set aborts its tasks: nothing outlives the listener.
    let mut readers = JoinSet::new();
    let mut refusals: u32 = 0;
    loop {
        while readers.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if refusals.is_multiple_of(TOLD_EVERY) {
                    tracing::warn!(%error, "cannot accept gossip connections for now");
                }
                refusals = refusals.wrapping_add(1);
                // Not a wait for time to pass: a pause, so that a full descriptor table costs little.
                let _ = timeout(ACCEPT_PAUSE, std::future::pending::<()>()).await;
                continue;
            }
        };
        if mem::take(&mut refusals) > 0 {
            tracing::info!("gossip connections are accepted again");
        }
        let slot = free.clone().try_acquire_owned().ok();
        let place = slot.and_then(|slot| Some((slot, HostPlace::take(&hosts, from.ip())?)));
        let Some(place) = place else {
            if arrivals.send(Arrival::Dropped(DropReason::TooManyStreams)).await.is_err() {
                return;
            }
            continue;
        };
        let arrivals = arrivals.clone();
        readers.spawn(async move {
            let arrival = match timeout(STREAM_TIMEOUT, read_message(stream)).await {
                Ok(Ok(bytes)) => Arrival::Message { from, bytes },
                Ok(Err(reason)) => Arrival::Dropped(reason),
                Err(_elapsed) => Arrival::Dropped(DropReason::StreamBroken),
            };
            let _ = arrivals.send(arrival).await;
            drop(place);
        });
    }
}

async fn read_message(mut stream: TcpStream) -> Result<Vec<u8>, DropReason> {
    let length = stream.read_u32().await.map_err(|_| DropReason::StreamBroken)? as usize;
    if length > MAX_STREAM_MESSAGE {
        return Err(DropReason::Oversized);
    }
    // Memory follows what really arrives, not what the length claims.
    let mut bytes = Vec::new();
    let read = (&mut stream).take(length as u64).read_to_end(&mut bytes).await;
    match read {
        Ok(read) if read == length => Ok(bytes),
        _ => Err(DropReason::StreamBroken),
    }
}

/// Connects from the given local address and writes one message.
pub(super) async fn send_message(
    local: IpAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
) -> Result<(), DropReason> {
    match timeout(STREAM_TIMEOUT, write_message(local, to, &bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::trace!(%to, %error, "gossip stream");
            Err(DropReason::SendFailed)
        }
        Err(_elapsed) => Err(DropReason::SendFailed),
    }
}

async fn write_message(local: IpAddr, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if local.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let mut stream = socket.connect(to).await?;
    stream.write_u32(bytes.len() as u32).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

/// One of a host's connections, until dropped.
struct HostPlace {
    hosts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    host: IpAddr,
}

impl HostPlace {
    fn take(hosts: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, host: IpAddr) -> Option<Self> {
        let mut open = hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(host).or_default();
        (*count < MAX_PER_HOST).then(|| {
            *count += 1;
            Self { hosts: Arc::clone(hosts), host }
        })
    }
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        let mut open = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.host);
            }
        }
    }
}
