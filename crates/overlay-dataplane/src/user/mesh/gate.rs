//! The gate at work: sockets of the host on one side, a port of the switch on the other.
//!
//! ```text
//!  accept ─► serve: client ◄─► relay ◄──┐
//!                                       ├─ frames ─► port          port ─► pump ─► relays, flows
//!  receive ─────────► flows ────────────┘
//! ```
#![expect(clippy::disallowed_methods, reason = "a shell: connections have deadlines")]

use core::{fmt, hash::BuildHasher, net::SocketAddr, time::Duration};
use std::{
    collections::HashMap,
    hash::RandomState,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use overlay_types::MacAddr;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};

use super::{
    call::Call,
    datagrams::{Client, Ends, Flows, free},
    relay::{Relay, refusal},
    sockets::DatagramSocket,
    ways::{Goal, Ways},
};
use crate::{
    desired::MeshPort,
    user::ports::memory::{MemoryPort, MemorySender},
    wire::{
        dissection::Dissection,
        ethernet::{self, EthernetFrame, EthernetRepr, ethertype},
        protocol,
    },
};

/// Connections at a time; each has 128 KiB of buffers.
const MOST_CONNECTIONS: usize = 4096;
/// Packets of a task that wait for their connection: one window of it.
const PACKETS: usize = 64;
/// Tasks that a connection is offered to.
const OFFERS: usize = 3;
/// Before a client that says nothing is asked whether it is there.
const QUESTION: Duration = Duration::from_mins(1);
/// Before connections are accepted again when the system had no more to give.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection, to the rest of the gate.
struct Line {
    /// Which one it is, of those that had the same ends.
    number: u64,
    port: MeshPort,
    goal: Goal,
    packets: mpsc::Sender<Vec<u8>>,
}

/// What leads from published ports to tasks and back.
pub(super) struct Gate {
    sender: MemorySender,
    ways: Mutex<Ways>,
    lines: Mutex<HashMap<Ends, Line>>,
    flows: Mutex<Flows>,
    /// Sockets that replies leave from.
    sockets: Mutex<HashMap<MeshPort, Vec<Arc<DatagramSocket>>>>,
    room: Arc<Semaphore>,
    random: RandomState,
    count: AtomicU64,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    pub(super) fn new(port: &MemoryPort, masquerade: bool) -> Self {
        Self {
            sender: port.sender(),
            ways: Mutex::new(Ways::new(masquerade)),
            lines: Mutex::default(),
            flows: Mutex::default(),
            sockets: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            random: RandomState::new(),
            count: AtomicU64::new(0),
        }
    }

    /// Leads as `set` says from now on; what may not go on ends.
    pub(super) fn set(&self, set: impl FnOnce(&mut Ways)) {
        let mut ways = lock(&self.ways);
        set(&mut ways);
        lock(&self.lines).retain(|_, line| ways.keeps(&line.port, &line.goal));
        lock(&self.flows).retain(&ways);
    }

    /// Ends all connections.
    pub(super) fn close(&self) {
        lock(&self.lines).clear();
    }

    pub(super) fn is_open(&self, port: &MeshPort) -> bool {
        lock(&self.ways).is_open(port)
    }

    /// Gives what comes from tasks to whom it is for, until the port is removed.
    pub(super) async fn pump(self: Arc<Self>, mut port: MemoryPort) {
        while let Some(frame) = port.recv().await {
            self.handle_frame(&frame);
        }
        self.close();
    }

    fn handle_frame(&self, frame: &[u8]) {
        // What is no IP needs no answer: the switch has answered for neighbours. What is for many is for
        // no connection.
        let Ok(ethernet) = EthernetFrame::new(frame) else { return };
        let Ok(seen) = Dissection::of_frame(frame) else { return };
        if ethernet.destination().is_group() {
            return;
        }
        let Some((from, to)) = seen.ports else { return };
        let ends = (SocketAddr::new(seen.source, from), SocketAddr::new(seen.destination, to));
        let packet = &frame[ethernet::HEADER_LEN..seen.end];
        match seen.protocol {
            protocol::TCP => {
                if let Some(line) = lock(&self.lines).get(&ends) {
                    // Without room it is lost, and sent again.
                    let _ = line.packets.try_send(packet.to_vec());
                    return;
                }
                let mtu = lock(&self.ways).mtu;
                if let Some(answer) = refusal(packet, seen.destination, mtu) {
                    self.send_packet(ethernet.source(), &answer);
                }
            }
            protocol::UDP => {
                let payload = &frame[seen.transport..seen.end];
                let Ok(datagram) = crate::wire::udp::UdpDatagram::new(payload) else { return };
                self.reply(ends, datagram.payload());
            }
            _ => {}
        }
    }

    fn reply(&self, ends: Ends, payload: &[u8]) {
        let Some(client) = lock(&self.flows).handle_task(ends, now()) else { return };
        let sockets = lock(&self.sockets);
        let all = sockets.get(&client.port).into_iter().flatten();
        let socket = all.into_iter().find(|s| s.is_ipv4() == client.address.is_ipv4());
        if let Some(socket) = socket {
            // Without room it is lost, as on the way.
            let _ = socket.send(client.address, client.via, payload);
        }
    }

    /// Room for packets to tasks.
    pub(super) fn room(&self) -> usize {
        self.sender.room()
    }

    /// A call is over.
    pub(super) fn hang_up(&self, ends: &Ends, number: u64) {
        let mut lines = lock(&self.lines);
        if lines.get(ends).is_some_and(|line| line.number == number) {
            lines.remove(ends);
        }
    }

    pub(super) fn send_packet(&self, to: MacAddr, packet: &[u8]) {
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let ethertype = ethertype::of_ip(is_ipv4);
        let source = lock(&self.ways).mac;
        let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + packet.len());
        EthernetRepr { destination: to, source, ethertype }.emit(&mut frame);
        frame.extend_from_slice(packet);
        // Without room it is lost, and sent again.
        let _ = self.sender.send(frame);
    }

    /// Takes datagrams of clients at a socket, until it is ended.
    pub(super) async fn receive(self: Arc<Self>, port: MeshPort, socket: Arc<DatagramSocket>) {
        lock(&self.sockets).entry(port).or_default().push(Arc::clone(&socket));
        let each = |address, via, payload: &[u8]| {
            let client = Client { port, address, via };
            let mut ways = lock(&self.ways);
            let frame = lock(&self.flows).handle_client(client, payload, &mut ways, now());
            drop(ways);
            match frame {
                // Without room it is lost, as on the way.
                Ok(frame) => drop(self.sender.send(frame)),
                Err(reason) => tracing::trace!(?reason, ?client, "a datagram goes nowhere"),
            }
        };
        let ended = socket.receive(each).await;
        tracing::error!(error = %ended, ?port, "no datagrams are taken any more");
    }

    /// The socket of a port is gone.
    pub(super) fn forget(&self, port: &MeshPort) {
        lock(&self.sockets).remove(port);
    }

    /// Serves a published port until it is ended.
    pub(super) async fn accept(self: Arc<Self>, port: MeshPort, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((client, address)) => match Arc::clone(&self.room).try_acquire_owned() {
                    Ok(permit) => {
                        tokio::spawn(Arc::clone(&self).serve(port, client, address, permit));
                    }
                    Err(_) => reset(client),
                },
                Err(error) => {
                    tracing::debug!(%error, ?port, "no connection can be accepted for a moment");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        port: MeshPort,
        client: TcpStream,
        address: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        // What this costs shows in the latency only.
        let _ = client.set_nodelay(true);
        // A client that lost its power is not waited for for ever.
        let _ = SockRef::from(&client).set_tcp_keepalive(&TcpKeepalive::new().with_time(QUESTION));
        for _ in 0..OFFERS {
            let Some(mut call) = self.dial(port, address) else { break };
            if call.open().await {
                match call.carry(&client).await {
                    Ok(()) => return,
                    Err(error) => tracing::trace!(%error, ?port, "a connection broke"),
                }
                call.abort();
                break;
            }
            call.abort();
        }
        reset(client);
    }

    /// Begins a connection to the task whose turn it is.
    fn dial(self: &Arc<Self>, port: MeshPort, client: SocketAddr) -> Option<Call> {
        let mut ways = lock(&self.ways);
        let goal = ways.choose(&port, client.ip())?;
        let address = ways.seen_as(client.ip(), goal.address.ip())?;
        if client.port() == 0 {
            return None;
        }
        let mut lines = lock(&self.lines);
        let seen_as = free(goal.address, address, client.port(), |ends| lines.contains_key(ends))?;
        let ends = (goal.address, seen_as);
        let (packets, queue) = mpsc::channel(PACKETS);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let seed = self.random.hash_one(number);
        let relay = Relay::connect(seen_as, goal.address, ways.mtu, seed, now());
        lines.insert(ends, Line { number, port, goal, packets });
        let gate = Arc::clone(self);
        Some(Call { gate, number, ends, mac: goal.mac, relay, packets: queue })
    }
}

/// Has the client know that nothing comes.
fn reset(client: TcpStream) {
    // It is closed in order otherwise.
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

pub(super) fn now() -> Instant {
    Instant::now()
}
