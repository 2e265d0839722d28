//! A smoltcp stack between two queues of frames.

#![expect(clippy::disallowed_methods, reason = "a guest has a clock")]

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use overlay_types::MacAddr;
use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{Socket, icmp, tcp, udp},
    time::Instant as StackInstant,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

use super::GuestConfig;

/// Frames that wait in each direction: what a memory port's ring holds, several times over.
const MAX_WAITING: usize = 4096;
/// Senders that a card remembers; there are a dozen guests.
const MAX_SENDERS: usize = 64;
/// Octets in flight of a connection, each way: what loopback needs at a millisecond.
pub(super) const TCP_WINDOW: usize = 64 << 10;
/// Datagrams that wait to be read, and their octets.
const UDP_PACKETS: usize = 256;
const UDP_OCTETS: usize = 64 << 10;
/// After so long without an answer a peer is gone.
const TCP_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(5);
/// Longest time between two turns.
const MAX_WAIT: Duration = Duration::from_millis(250);
/// First of the ports that calls use (RFC 6335 §6).
const FIRST_DYNAMIC_PORT: u16 = 49_152;
const ETHERNET_HEADER_LEN: usize = 14;

/// A guest's stack, its sockets and its network card.
pub(super) struct Stack {
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    pub(super) card: Card,
    began: Instant,
    next_port: u16,
}

impl core::fmt::Debug for Stack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

impl Stack {
    pub(super) fn new(guest: &GuestConfig) -> Self {
        let mtu = usize::from(guest.mtu) + ETHERNET_HEADER_LEN;
        let mut card = Card { mtu, ..Card::default() };
        let mut config = Config::new(EthernetAddress(guest.mac.0).into());
        config.random_seed = rand::random();
        let mut interface = Interface::new(config, &mut card, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let address = IpCidr::new(IpAddress::Ipv4(guest.address), guest.prefix_len);
            addresses.push(address).expect("there is room for one address");
        });
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            card,
            began: Instant::now(),
            next_port: FIRST_DYNAMIC_PORT,
        }
    }

    fn now(&self) -> StackInstant {
        StackInstant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap_or(0))
    }

    /// Receives, sends and fires timers. Whether a socket may have changed or frames wait.
    pub(super) fn turn(&mut self) -> bool {
        let now = self.now();
        let result = self.interface.poll(now, &mut self.card, &mut self.sockets);
        result == PollResult::SocketStateChanged || !self.card.sent.is_empty()
    }

    /// How long nothing is due.
    pub(super) fn wait(&mut self) -> Duration {
        let now = self.now();
        let delay = self.interface.poll_delay(now, &self.sockets);
        delay.map_or(MAX_WAIT, |delay| Duration::from(delay).min(MAX_WAIT))
    }

    /// A port or identifier that no recent call had.
    pub(super) fn next_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_DYNAMIC_PORT);
        port
    }

    /// Removes a socket; a connection that is still open is reset.
    pub(super) fn close(&mut self, handle: SocketHandle) {
        for (_, socket) in self.sockets.iter_mut().filter(|(found, _)| *found == handle) {
            if let Socket::Tcp(tcp) = socket {
                tcp.abort();
            }
        }
        self.turn();
        self.sockets.remove(handle);
    }
}

pub(super) fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_WINDOW]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_timeout(Some(TCP_TIMEOUT));
    socket.set_nagle_enabled(false);
    socket
}

pub(super) fn udp_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || {
        udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; UDP_PACKETS], vec![0; UDP_OCTETS])
    };
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a new socket can be bound to any port but 0");
    socket
}

pub(super) fn icmp_socket(ident: u16) -> icmp::Socket<'static> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 512]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(ident)).expect("a new socket can be bound");
    socket
}

/// A network card that is two queues.
#[derive(Debug, Default)]
pub(super) struct Card {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    senders: BTreeSet<[u8; 6]>,
    mtu: usize,
}

impl Card {
    pub(super) fn has_room(&self) -> bool {
        self.received.len() < MAX_WAITING
    }

    pub(super) fn receive(&mut self, frame: Vec<u8>) {
        if let Some(sender) = frame.get(6..12).and_then(|mac| mac.try_into().ok())
            && self.senders.len() < MAX_SENDERS
        {
            self.senders.insert(sender);
        }
        self.received.push_back(frame);
    }

    pub(super) fn heard_from(&self, mac: MacAddr) -> bool {
        self.senders.contains(&mac.0)
    }

    pub(super) fn send(&mut self, frame: Vec<u8>) {
        self.sent.push(frame);
    }

    pub(super) fn take_sent(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.sent)
    }
}

pub(super) struct Frame(Vec<u8>);
pub(super) struct Slot<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Slot<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Frame, Slot<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Frame(frame), Slot(&mut self.sent)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Slot<'_>> {
        (self.sent.len() < MAX_WAITING).then_some(Slot(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}
