//! What runs in a container or virtual machine: a TCP/IP stack behind a memory port.
//!
//! ```text
//!   ping, fetch, transfer, stream ──look──► Stack ◄── Services: its name on TCP 80, echo on 7
//!                                            │  ▲
//!                              frames sent   ▼  │  frames received
//!                                           task ◄──► MemoryPort ◄──► the node's switch
//! ```
//!
//! One task moves frames and time; callers look at the stack after each of its turns.

use core::{net::Ipv4Addr, time::Duration};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow, bail, ensure};
use overlay_dataplane::user::ports::{MemoryPort, PortError};
use overlay_types::{EndpointId, MacAddr};
use smoltcp::{
    iface::SocketHandle,
    phy::ChecksumCapabilities,
    socket::{icmp, tcp},
    wire::{Icmpv4Packet, Icmpv4Repr, IpAddress},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

mod services;
mod stack;
mod stream;

pub(crate) use self::stream::{Report, Stream};
use self::{
    services::{ECHO_PORT, NAME_PORT, Services},
    stack::{Stack, TCP_WINDOW},
};

/// How long a guest waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so long a ping is sent again.
const PING: Duration = Duration::from_millis(100);
/// Longest answer that is read as a name.
const MAX_NAME_LEN: usize = 256;
/// Octets of a transfer that were sent and have not come back. Less than a window: where a probe of
/// a closed window crosses its opening, smoltcp 0.14 skips an octet and repeats it a second later.
const MAX_IN_FLIGHT: usize = TCP_WINDOW / 2;
/// Sockets of a guest: its services, and 16 calls at once.
const MAX_SOCKETS: usize = 40;
/// Turns in which services may react to what they just sent, before frames move again.
const MAX_REACTIONS: u32 = 16;

/// Who a guest is.
#[derive(Clone, Debug)]
pub(crate) struct GuestConfig {
    pub(crate) endpoint: EndpointId,
    pub(crate) name: String,
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) mtu: u16,
}

/// A running guest. It ends when it is dropped, or with its port.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) config: GuestConfig,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    stack: Mutex<Stack>,
    /// Turns of the task so far.
    turns: watch::Sender<u64>,
    /// The stack has something to send, or to wait for.
    kick: Notify,
}

impl Shared {
    fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Starts a guest behind `port`.
    pub(crate) fn start(config: GuestConfig, port: MemoryPort) -> Self {
        let mut stack = Stack::new(&config);
        let services = Services::new(config.name.clone(), &mut stack.sockets);
        let (turns, kick) = (watch::Sender::default(), Notify::new());
        let shared = Arc::new(Shared { stack: Mutex::new(stack), turns, kick });
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(&shared), port, services));
        Self { config, shared, _task: task }
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.config.address
    }

    /// Sends ICMP echo requests until one is answered.
    ///
    /// The first ones may be lost: a smoltcp stack asks for one neighbour per second, and drops
    /// what it has for others meanwhile.
    pub(crate) async fn reach(&self, to: Ipv4Addr) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.ping_for(to, PING).await.is_ok() {
                return Ok(());
            }
        }
        bail!("ping, {} → {to}: no answer within {PATIENCE:?}", self.config.name)
    }

    /// Sends an ICMP echo request. Returns the time until it was answered.
    pub(crate) async fn ping(&self, to: Ipv4Addr) -> Result<Duration> {
        self.ping_for(to, PATIENCE).await
    }

    /// The same, with another patience.
    pub(crate) async fn ping_for(&self, to: Ipv4Addr, patience: Duration) -> Result<Duration> {
        let began = Instant::now();
        let socket = self.open(|stack| {
            let ident = stack.next_port();
            let handle = stack.sockets.add(stack::icmp_socket(ident));
            let request = Icmpv4Repr::EchoRequest { ident, seq_no: 1, data: b"three-node" };
            let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
            let buffer = socket.send(request.buffer_len(), IpAddress::Ipv4(to))?;
            request
                .emit(&mut Icmpv4Packet::new_unchecked(buffer), &ChecksumCapabilities::default());
            Ok(handle)
        })?;
        let answered = self.until(patience, |stack| {
            let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(socket.handle);
            let (bytes, from) = socket.recv().ok()?;
            let packet = Icmpv4Packet::new_checked(bytes).ok()?;
            let is_reply = packet.msg_type() == smoltcp::wire::Icmpv4Message::EchoReply;
            (is_reply && from == IpAddress::Ipv4(to)).then_some(())
        });
        answered.await.map_err(|error| self.about("ping", to, &error))?;
        Ok(began.elapsed())
    }

    /// Connects to TCP port 80 and reads the name of who answers.
    pub(crate) async fn fetch(&self, to: Ipv4Addr) -> Result<String> {
        let socket = self.connect(to, NAME_PORT)?;
        let mut text = Vec::new();
        let ended = self.until(PATIENCE, |stack| {
            let tcp = stack.sockets.get_mut::<tcp::Socket<'_>>(socket.handle);
            take(tcp, |bytes| text.extend_from_slice(bytes));
            match tcp.state() {
                tcp::State::CloseWait => tcp.close(),
                tcp::State::Closed | tcp::State::TimeWait => return Some(()),
                _ => {}
            }
            (text.len() > MAX_NAME_LEN).then_some(())
        });
        ended.await.map_err(|error| self.about("TCP port 80", to, &error))?;
        ensure!(!text.is_empty(), "{} → {to}: connection refused or broken", self.config.name);
        Ok(String::from_utf8(text)?)
    }

    /// Sends `length` octets of `marker` and block numbers to the TCP echo port and checks what
    /// comes back. Returns the time that took.
    pub(crate) async fn transfer(
        &self,
        to: Ipv4Addr,
        length: usize,
        marker: &str,
    ) -> Result<Duration> {
        let data: Vec<u8> =
            (0_u32..).flat_map(|n| format!("{marker}{n:08x}").into_bytes()).take(length).collect();
        let began = Instant::now();
        let socket = self.connect(to, ECHO_PORT)?;
        let (mut sent, mut back, mut wrong) = (0, 0, false);
        let ended = self.until(PATIENCE, |stack| {
            let tcp = stack.sockets.get_mut::<tcp::Socket<'_>>(socket.handle);
            let allowed = length.min(back + MAX_IN_FLIGHT);
            if tcp.can_send() && sent < allowed {
                sent += tcp.send_slice(&data[sent..allowed]).unwrap_or(0);
            }
            take(tcp, |bytes| {
                wrong |= data.get(back..back + bytes.len()) != Some(bytes);
                back += bytes.len();
            });
            let broken = sent > 0 && !tcp.is_open();
            (back >= length || wrong || broken).then_some(())
        });
        ended.await.map_err(|error| self.about("TCP port 7", to, &error))?;
        let name = &self.config.name;
        ensure!(!wrong, "{name} → {to}: something else came back than was sent");
        ensure!(back == length, "{name} → {to}: the connection broke after {back} octets");
        Ok(began.elapsed())
    }

    /// Puts a frame on the port as it is, whatever the stack would do.
    pub(crate) fn forge(&self, frame: Vec<u8>) {
        self.shared.stack().card.send(frame);
        self.shared.kick.notify_one();
    }

    /// Whether a frame of this sender ever arrived.
    pub(crate) fn heard_from(&self, mac: MacAddr) -> bool {
        self.shared.stack().card.heard_from(mac)
    }

    fn connect(&self, to: Ipv4Addr, port: u16) -> Result<Open<'_>> {
        self.open(|stack| {
            let local = stack.next_port();
            let handle = stack.sockets.add(stack::tcp_socket());
            let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.connect(stack.interface.context(), (IpAddress::Ipv4(to), port), local)?;
            Ok(handle)
        })
    }

    /// Makes a socket that is closed and removed with the value.
    fn open(&self, make: impl FnOnce(&mut Stack) -> Result<SocketHandle>) -> Result<Open<'_>> {
        let mut stack = self.shared.stack();
        if stack.sockets.iter().count() >= MAX_SOCKETS {
            bail!("{} has too many sockets open", self.config.name);
        }
        let handle = make(&mut stack)?;
        drop(stack);
        Ok(Open { shared: &self.shared, handle })
    }

    /// Looks at the stack now and after each turn, until there is an answer.
    async fn until<T>(
        &self,
        patience: Duration,
        mut look: impl FnMut(&mut Stack) -> Option<T>,
    ) -> Result<T> {
        let mut turns = self.shared.turns.subscribe();
        let seen = async {
            loop {
                let (found, changed) = {
                    let mut stack = self.shared.stack();
                    (look(&mut stack), stack.turn())
                };
                if changed {
                    self.shared.kick.notify_one();
                }
                match found {
                    Some(found) => return Ok(found),
                    None => turns.changed().await?,
                }
            }
        };
        timeout(patience, seen).await.map_err(|_| anyhow!("no answer within {patience:?}"))?
    }

    fn about(&self, what: &str, to: Ipv4Addr, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{what}, {} ({}) → {to}: {error}", self.config.name, self.config.address)
    }
}

/// Has each of `from` reach each of `to`, all at once. Returns when the last one was answered.
///
/// Afterwards they know each other's Ethernet addresses: a first connection between stacks that ask
/// for one neighbour per second meets its own repetition.
pub(crate) async fn all_reach(from: &[Arc<Guest>], to: &[Arc<Guest>]) -> Result<Duration> {
    let began = Instant::now();
    let mut pings = JoinSet::new();
    for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
        let (from, to) = (Arc::clone(from), to.address());
        if from.address() != to {
            pings.spawn(async move { from.reach(to).await });
        }
    }
    while let Some(answered) = pings.join_next().await {
        answered??;
    }
    Ok(began.elapsed())
}

/// A socket that belongs to one call.
struct Open<'a> {
    shared: &'a Shared,
    handle: SocketHandle,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut stack = self.shared.stack();
        stack.close(self.handle);
        drop(stack);
        self.shared.kick.notify_one();
    }
}

/// Reads all that is there.
fn take(tcp: &mut tcp::Socket<'_>, mut read: impl FnMut(&[u8])) {
    while tcp.can_recv() {
        let taken = tcp.recv(|bytes| {
            read(bytes);
            (bytes.len(), ())
        });
        if taken.is_err() {
            return;
        }
    }
}

/// Moves frames and time, until the port is removed.
async fn run(shared: Arc<Shared>, mut port: MemoryPort, mut services: Services) {
    loop {
        let (wait, frames) = {
            let mut stack = shared.stack();
            stack.turn();
            for _ in 0..MAX_REACTIONS {
                if !services.work(&mut stack.sockets) {
                    break;
                }
                stack.turn();
            }
            (stack.wait(), stack.card.take_sent())
        };
        for frame in frames {
            // A full ring drops, as a network card does.
            if port.send(frame) == Err(PortError::Removed) {
                return;
            }
        }
        shared.turns.send_modify(|turns| *turns += 1);
        let heard = tokio::select! {
            heard = timeout(wait, port.recv()) => heard,
            () = shared.kick.notified() => continue,
        };
        let mut stack = shared.stack();
        match heard {
            Ok(None) => return,
            Ok(Some(frame)) => {
                stack.card.receive(frame);
                while stack.card.has_room()
                    && let Ok(Some(frame)) = port.try_recv()
                {
                    stack.card.receive(frame);
                }
            }
            Err(_) => {} // it is time
        }
    }
}
