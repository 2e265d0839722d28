//! The loops around the sockets.

use core::{net::SocketAddr, time::Duration};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    Transport, batch,
    cache::Cache,
    counters::{Counters, Counts, Outcome},
    forward::Forwarder,
    message::{MAX_QUERY_LEN, Query},
    react::{Reaction, react},
    replies::Replies,
};
use crate::{Scope, SharedDirectory};

/// Most questions of one server that wait for upstreams: enough for a busy endpoint at 100 ms per
/// reply, and 1 MB of buffers. More get SERVFAIL at once.
const MAX_FORWARDS: usize = 256;

/// Most TCP connections of one listener; further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may take over one query, or one reply. Kernels retransmit within it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after an error of a listening socket, which may last: no descriptors, no memory.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Errors in a row from one line in the log to the next: a minute.
const TOLD_EVERY: u32 = 600;

/// A running name server for one scope. Dropping it stops it at once.
#[derive(Debug)]
pub struct Server {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

impl Server {
    /// A server that listens nowhere yet.
    ///
    /// Without a forwarder every foreign name is refused. With one, so it is for a scope of
    /// internal networks.
    pub fn new(directory: SharedDirectory, scope: Scope, forwarder: Option<Forwarder>) -> Self {
        let shared = Shared {
            directory,
            scope: ArcSwap::from_pointee(scope),
            forwarder: ArcSwapOption::new(forwarder.map(Arc::new)),
            cache: Mutex::default(),
            waiting: Arc::new(Semaphore::new(MAX_FORWARDS)),
            counters: Counters::default(),
        };
        Self { tasks: JoinSet::new(), shared: Arc::new(shared) }
    }

    /// Answers on `socket`, which should be bound to one address: replies leave from the one that
    /// routing picks otherwise. Needs a tokio runtime.
    pub fn serve_udp(&mut self, socket: UdpSocket) {
        self.tasks.spawn(serve_udp(Arc::clone(&self.shared), Arc::new(socket)));
    }

    /// Answers on connections to `listener`. Needs a tokio runtime.
    pub fn serve_tcp(&mut self, listener: TcpListener) {
        self.tasks.spawn(serve_tcp(Arc::clone(&self.shared), listener));
    }

    /// Changes the networks that are answered for, from the next query on.
    pub fn set_scope(&self, scope: Scope) {
        self.shared.scope.store(Arc::new(scope));
    }

    /// Changes who is asked about names of others, from the next query on. What the former ones said
    /// is forgotten.
    pub fn set_forwarder(&self, forwarder: Option<Forwarder>) {
        self.shared.forwarder.store(forwarder.map(Arc::new));
        self.shared.cache().clear();
    }

    /// What became of the queries so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Stops, and returns when all sockets are closed.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

#[derive(Debug)]
struct Shared {
    directory: SharedDirectory,
    scope: ArcSwap<Scope>,
    forwarder: ArcSwapOption<Forwarder>,
    /// What the forwarder's upstreams answered.
    cache: Mutex<Cache>,
    /// One permit per question that may wait for an upstream.
    waiting: Arc<Semaphore>,
    counters: Counters,
}

/// What a socket does about a message.
enum Action {
    Nothing,
    Reply(Vec<u8>),
    Forward(Box<Pending>),
}

/// A question on its way to an upstream.
struct Pending {
    query: Box<Query>,
    /// As it goes to the upstream.
    question: Vec<u8>,
    forwarder: Arc<Forwarder>,
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do about a datagram; `replies` are those of its socket.
    fn take_datagram(&self, message: &[u8], replies: &mut Replies) -> Action {
        let (directory, scope) = (self.directory.current(), self.scope.load_full());
        replies.turn_to(&directory, &scope);
        if let Some(reply) = replies.get(message) {
            self.counters.query();
            self.counters.count(Outcome::Answered);
            return Action::Reply(reply);
        }
        let keep = |reply: &[u8]| replies.put(message, reply);
        self.answer(react(&directory, &scope, message, Transport::Udp, rand::random()), keep)
    }

    fn take_message(&self, message: &[u8]) -> Action {
        let (directory, scope) = (self.directory.current(), self.scope.load());
        let reaction = react(&directory, &scope, message, Transport::Tcp, rand::random());
        self.answer(reaction, |_| ())
    }

    /// Does what comes of a query. What the directory says is shown to `keep`.
    #[expect(clippy::disallowed_methods, reason = "the shell says how old an answer is")]
    fn answer(&self, reaction: Reaction, keep: impl FnOnce(&[u8])) -> Action {
        self.counters.query();
        let reply = |outcome, bytes| {
            self.counters.count(outcome);
            Action::Reply(bytes)
        };
        match reaction {
            Reaction::Ignore => {
                self.counters.count(Outcome::Malformed);
                Action::Nothing
            }
            Reaction::Reply { bytes, outcome } => {
                if outcome == Outcome::Answered {
                    keep(&bytes);
                }
                reply(outcome, bytes)
            }
            Reaction::Forward(query) => {
                let Some(forwarder) = self.forwarder.load_full() else {
                    return reply(Outcome::Refused, query.refusal());
                };
                let Some(question) = query.to_upstream(rand::random()) else {
                    return reply(Outcome::Failed, query.failure());
                };
                if let Some(kept) = self.cache().get(&question, Instant::now()) {
                    return reply(Outcome::Cached, query.relay(kept));
                }
                let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
                    return reply(Outcome::Failed, query.failure());
                };
                Action::Forward(Box::new(Pending { query, question, forwarder, _permit: permit }))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the shell says how old an answer is")]
    async fn forward(&self, pending: Box<Pending>) -> Vec<u8> {
        let Pending { query, question, forwarder, .. } = &*pending;
        match forwarder.ask(question, query.is_tcp()).await {
            Ok(reply) => {
                self.counters.count(Outcome::Forwarded);
                let mut cache = self.cache();
                // Another one has another cache.
                if self.forwarder.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, forwarder)) {
                    cache.put(question, &reply, Instant::now());
                }
                drop(cache);
                query.relay(reply)
            }
            Err(error) => {
                debug!(name = query.question().name, %error, "no answer from upstream");
                self.counters.count(Outcome::Failed);
                query.failure()
            }
        }
    }
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut forwards = JoinSet::new();
    let mut replies = Replies::default();
    let mut trouble = Trouble::default();
    loop {
        let exchange = || {
            batch::exchange(&socket, |message, from| {
                match shared.take_datagram(message, &mut replies) {
                    Action::Nothing => None,
                    Action::Reply(reply) => Some(reply),
                    Action::Forward(pending) => {
                        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
                        forwards.spawn(async move {
                            let reply = shared.forward(pending).await;
                            send(&socket, &reply, from).await;
                        });
                        None
                    }
                }
            })
        };
        match socket.async_io(Interest::READABLE, exchange).await {
            Ok(unsent) => {
                trouble.end("received");
                for (reply, to) in unsent {
                    send(&socket, &reply, to).await;
                }
            }
            Err(error) => trouble.pause_after(&error, "receive queries").await,
        }
        while forwards.try_join_next().is_some() {}
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(reply, to).await {
        debug!(%to, %error, "cannot send a reply");
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let mut trouble = Trouble::default();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                trouble.end("accepted");
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    if let Err(error) = converse(&shared, stream).await {
                        debug!(%from, %error, "connection ended");
                    }
                });
            }
            Err(error) => trouble.pause_after(&error, "accept connections").await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers queries one after the other (RFC 7766), until the client closes or is silent.
async fn converse(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; MAX_QUERY_LEN];
    loop {
        let len = timeout(CONNECTION_TIMEOUT, read_query(&mut stream, &mut buffer)).await??;
        let reply = match shared.take_message(&buffer[..len]) {
            Action::Nothing => return Ok(()),
            Action::Reply(reply) => reply,
            Action::Forward(pending) => shared.forward(pending).await,
        };
        let len = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes(), &reply[..]].concat();
        timeout(CONNECTION_TIMEOUT, stream.write_all(&framed)).await??;
    }
}

/// Reads one length and the query behind it.
async fn read_query(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let len = usize::from(stream.read_u16().await?);
    let place = buffer.get_mut(..len).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the query is longer than any can be")
    })?;
    stream.read_exact(place).await?;
    Ok(len)
}

/// Errors of a listening socket, in a row.
#[derive(Debug, Default)]
struct Trouble(u32);

impl Trouble {
    /// Waits a little, so that an error that lasts neither stops the server nor makes it spin.
    #[expect(clippy::disallowed_methods, reason = "nothing tells when descriptors are free again")]
    async fn pause_after(&mut self, error: &io::Error, what: &str) {
        if self.0.is_multiple_of(TOLD_EVERY) {
            warn!(%error, "the name server cannot {what} for now");
        }
        self.0 = self.0.wrapping_add(1);
        tokio::time::sleep(ERROR_PAUSE).await;
    }

    fn end(&mut self, what: &str) {
        if core::mem::take(&mut self.0) > 0 {
            info!("queries are {what} again");
        }
    }
}
