//! The shell: sockets, clock, files and one task around the core.
//!
//! ```text
//!   UDP socket ──────────────► ┌────────┐ ──► UDP socket
//!   TCP listener ─► streams ─► │  task  │ ──► streams ─► TCP
//!   GossipHandle ─► commands ► │ (core) │ ──► members (watch), events (broadcast)
//!                      clock ► └────────┘
//! ```

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock for the core")]

pub mod incarnation;
mod stream;
mod task;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
};

use overlay_crypto::keyring::RingKeys;
use overlay_types::NodeId;
use tokio::{
    net::{TcpSocket, UdpSocket},
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::task::Task;
use crate::{
    config::GossipConfig,
    core::{Event, Gossip},
    counters::Counters,
    error::GossipError,
    identity::{Identity, MemberState},
};

/// Port on which gossip listens, UDP and TCP.
pub const PORT: u16 = 7946;

/// Commands that wait for the task; whoever sends more waits.
const COMMANDS: usize = 64;

/// Events that a slow subscriber may be behind before it misses some, and learns that it did. The
/// watched members are complete all the same.
const EVENTS: usize = 1024;

/// Connections that the system keeps for us while we have not accepted them.
const BACKLOG: u32 = 128;

/// What a node's gossip needs to start.
pub struct GossipSettings {
    /// Where to listen, and where from to send.
    pub listen: SocketAddr,
    /// Who this node is; its incarnation is from [`incarnation::reserve`].
    pub identity: Identity,
    /// The key ring that managers gave out.
    pub keys: RingKeys,
    /// Periods.
    pub config: GossipConfig,
    /// Decides all chance. Draw it at random.
    pub seed: u64,
}

/// What is known about all members, this node included.
pub type Members = BTreeMap<NodeId, MemberState>;

/// Where the other members are that are not dead.
pub type Addresses = BTreeMap<NodeId, SocketAddr>;

/// A running node's gossip. When it is dropped the node falls silent, which to the others is its
/// death; [`leave`](Self::leave) is the polite way.
#[derive(Debug)]
pub struct GossipHandle {
    commands: mpsc::Sender<Command>,
    members: watch::Receiver<Members>,
    addresses: watch::Receiver<Addresses>,
    events: broadcast::Sender<Event>,
    task: JoinHandle<()>,
}

/// What the handle asks of the task.
enum Command {
    Announce(Vec<SocketAddr>),
    MembersHint(Vec<SocketAddr>),
    Keys(RingKeys),
    Removed(BTreeSet<NodeId>, oneshot::Sender<Result<(), GossipError>>),
    Counters(oneshot::Sender<Counters>),
    Leave,
}

impl GossipHandle {
    /// Opens both sockets and starts the task.
    pub fn start(settings: GossipSettings) -> Result<Self, GossipError> {
        let GossipSettings { listen, identity, keys, config, seed } = settings;
        let now = std::time::Instant::now();
        let gossip = Gossip::new(config, identity, keys, seed, now)?;
        let failed =
            |protocol| move |source| GossipError::Listen { protocol, address: listen, source };
        let udp = bind_udp(listen).map_err(failed("udp"))?;
        let tcp = bind_tcp(listen).map_err(failed("tcp"))?;
        let (commands, incoming) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let (publish, members) = watch::channel(task::snapshot(&gossip));
        let (publish_addresses, addresses) = watch::channel(Addresses::new());
        let publish = (publish, publish_addresses);
        let task = Task::new(gossip, udp, listen, publish, events.clone());
        let task = tokio::spawn(task.run(tcp, incoming));
        Ok(Self { commands, members, addresses, events, task })
    }

    /// What is known about the members; changes as it does.
    pub fn members(&self) -> watch::Receiver<Members> {
        self.members.clone()
    }

    /// Where the other members say that they are, those that are not dead; changes as it does.
    pub fn addresses(&self) -> watch::Receiver<Addresses> {
        self.addresses.clone()
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Adds addresses to join at; see [`Gossip::announce`].
    pub async fn announce(&self, seeds: Vec<SocketAddr>) -> Result<(), GossipError> {
        self.command(Command::Announce(seeds)).await
    }

    /// Replaces what the managers say where members are; see [`Gossip::set_members_hint`].
    pub async fn set_members_hint(&self, addresses: Vec<SocketAddr>) -> Result<(), GossipError> {
        self.command(Command::MembersHint(addresses)).await
    }

    /// Replaces the key ring; see [`Gossip::set_keys`].
    pub async fn set_keys(&self, keys: RingKeys) -> Result<(), GossipError> {
        self.command(Command::Keys(keys)).await
    }

    /// Replaces the set of nodes that were removed for good; see [`Gossip::set_removed`].
    pub async fn set_removed(&self, nodes: BTreeSet<NodeId>) -> Result<(), GossipError> {
        let (answer, result) = oneshot::channel();
        self.command(Command::Removed(nodes, answer)).await?;
        result.await.map_err(|_| GossipError::Stopped)?
    }

    /// What was sent, received and dropped.
    pub async fn counters(&self) -> Result<Counters, GossipError> {
        let (answer, counters) = oneshot::channel();
        self.command(Command::Counters(answer)).await?;
        counters.await.map_err(|_| GossipError::Stopped)
    }

    /// Tells the others that this node goes, and stops. Takes about a second.
    pub async fn leave(mut self) -> Result<(), GossipError> {
        self.command(Command::Leave).await?;
        (&mut self.task).await.map_err(|_| GossipError::Stopped)
    }

    async fn command(&self, command: Command) -> Result<(), GossipError> {
        self.commands.send(command).await.map_err(|_| GossipError::Stopped)
    }
}

impl Drop for GossipHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

fn bind_tcp(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted daemon listens again while connections of the old one are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
