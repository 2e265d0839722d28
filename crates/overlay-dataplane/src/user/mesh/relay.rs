//! A TCP connection to a task, under a client's address; pure.
//!
//! What the client's own connection, to a socket of the host, carries is handed in and out as octets:
//!
//! ```text
//!  send, finish ──► socket ──► poll_output          handle_packet ──► socket ──► recv
//!                   client ──► task                   task ──► client
//! ```
//!
//! Each has an interface of its own: its address is the client's, and packets are given to the right one
//! by a map, in constant time.

use core::net::{IpAddr, SocketAddr};
use std::{collections::VecDeque, io, time};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{self, RecvError, State},
    time::{Duration, Instant},
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint},
};

/// Octets that wait in each direction: the most that is under way to a task.
const BUFFER: usize = 64 << 10;
/// How long a task may leave what it was sent, or asked, without an acknowledgment (RFC 1122 §4.2.3.5).
const UNACKNOWLEDGED: Duration = Duration::from_secs(100);

/// Between two questions to a task that says nothing.
const QUESTION: Duration = Duration::from_secs(30);

/// Before room is looked for again.
const FULL: Duration = Duration::from_millis(1);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The task has not answered yet.
    Opening,
    /// Octets flow, in one direction at least.
    Open,
    /// Both have ended their direction.
    Ended,
    /// Refused, reset, or given up.
    Broken,
}

/// A connection.
pub(super) struct Relay {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: Wire,
    /// The instant 0.
    began: time::Instant,
    /// Both ends have ended their direction.
    was_closed: bool,
}

/// Packets on their way in and out.
struct Wire {
    mtu: u16,
    /// Packets that may be sent now.
    room: usize,
    /// More could be sent than there was room for.
    is_full: bool,
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Relay {
    /// Begins a connection from `client` to `task`, of one version of IP, in packets of `mtu` octets.
    /// `seed` must be random.
    pub(super) fn connect(
        client: SocketAddr,
        task: SocketAddr,
        mtu: u16,
        seed: u64,
        now: time::Instant,
    ) -> Self {
        let (mut interface, wire) = interface(client.ip(), mtu, seed);
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        // One that is idle is asked whether it is there: only silence ends it.
        socket.set_timeout(Some(UNACKNOWLEDGED));
        socket.set_keep_alive(Some(QUESTION));
        socket.set_ack_delay(None);
        let (to, from) = (IpEndpoint::from(task), IpListenEndpoint::from(client));
        let connected = socket.connect(interface.context(), to, from);
        debug_assert_eq!(connected, Ok(()), "{client} to {task}");
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self { interface, sockets, handle, wire, began: now, was_closed: false }
    }

    fn socket(&self) -> &tcp::Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// An IP packet from the task, without padding.
    pub(super) fn handle_packet(&mut self, packet: &[u8]) {
        self.wire.received.push_back(packet.to_vec());
    }

    /// Does what is due, as long as there is `room` for packets. To be called after all else, and when
    /// [`poll_at`](Self::poll_at) says.
    pub(super) fn poll(&mut self, room: usize, now: time::Instant) {
        (self.wire.room, self.wire.is_full) = (room, false);
        let now = self.instant(now);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let state = self.socket().state();
        self.was_closed |= matches!(state, State::TimeWait | State::LastAck | State::Closing);
    }

    /// The next IP packet to the task.
    pub(super) fn poll_output(&mut self) -> Option<Vec<u8>> {
        self.wire.sent.pop_front()
    }

    /// When something is due, if nothing happens meanwhile.
    pub(super) fn poll_at(&mut self, now: time::Instant) -> Option<time::Instant> {
        let since = self.instant(now);
        let wait = self.interface.poll_delay(since, &self.sockets)?;
        // Others want the room, too.
        let least = if self.wire.is_full { FULL } else { Duration::ZERO };
        now.checked_add(wait.max(least).into())
    }

    fn instant(&self, now: time::Instant) -> Instant {
        let since = now.saturating_duration_since(self.began);
        Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    pub(super) fn progress(&self) -> Progress {
        match self.socket().state() {
            State::SynSent | State::SynReceived | State::Listen => Progress::Opening,
            State::TimeWait => Progress::Ended,
            State::Closed if self.was_closed => Progress::Ended,
            State::Closed => Progress::Broken,
            _ => Progress::Open,
        }
    }

    /// Whether there is room for octets to the task.
    pub(super) fn can_send(&self) -> bool {
        self.socket().can_send()
    }

    /// Whether octets from the task wait.
    pub(super) fn can_recv(&self) -> bool {
        self.socket().can_recv()
    }

    /// The task has ended its direction, and all that it sent was taken.
    pub(super) fn has_finished(&self) -> bool {
        let opening = matches!(self.progress(), Progress::Opening | Progress::Broken);
        !opening && !self.socket().may_recv()
    }

    /// Has `fill` put octets for the task into a buffer, and say how many.
    pub(super) fn send(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = self.socket_mut().send(|buffer| match fill(buffer) {
            Ok(count) => (count, Ok(count)),
            Err(error) => (0, Err(error)),
        });
        sent.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Has `take` take octets from the task, and say how many.
    pub(super) fn recv(
        &mut self,
        take: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let taken = self.socket_mut().recv(|buffer| match take(buffer) {
            Ok(count) => (count, Ok(count)),
            Err(error) => (0, Err(error)),
        });
        match taken {
            Ok(taken) => taken,
            Err(RecvError::Finished) => Ok(0),
            Err(RecvError::InvalidState) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The client sends no more.
    pub(super) fn finish(&mut self) {
        self.socket_mut().close();
    }

    /// The client is gone: the task is told by a reset.
    pub(super) fn abort(&mut self) {
        self.socket_mut().abort();
    }
}

/// What tells a task that a packet of its belongs to no connection: a reset, unless that was one.
pub(super) fn refusal(packet: &[u8], to: IpAddr, mtu: u16) -> Option<Vec<u8>> {
    // Nobody's connection, and no address of an interface.
    if !IpAddress::from(to).is_unicast() {
        return None;
    }
    let (mut interface, mut wire) = interface(to, mtu, 0);
    wire.received.push_back(packet.to_vec());
    interface.poll(Instant::ZERO, &mut wire, &mut SocketSet::new(Vec::new()));
    wire.sent.pop_front()
}

/// An interface with this address and a way to everywhere.
fn interface(address: IpAddr, mtu: u16, seed: u64) -> (Interface, Wire) {
    let mut wire =
        Wire { mtu, room: 1, is_full: false, received: VecDeque::new(), sent: VecDeque::new() };
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
    let cidr = IpCidr::new(address.into(), if address.is_ipv4() { 32 } else { 128 });
    // A new interface has room for one of each.
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(cidr);
    });
    let routes = interface.routes_mut();
    let _ = match address {
        IpAddr::V4(address) => routes.add_default_ipv4_route(address),
        IpAddr::V6(address) => routes.add_default_ipv6_route(address),
    };
    (interface, wire)
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        // What it is answered with has room, or is lost.
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.is_full = self.sent.len() >= self.room;
        (!self.is_full).then_some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let filled = fill(&mut packet);
        self.0.push_back(packet);
        filled
    }
}

#[cfg(test)]
mod tests;
