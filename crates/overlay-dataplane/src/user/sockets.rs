//! The sockets of a node: batched and, in UDP, segmented in both directions.
//!
//! ```text
//!  4789 ◄── VXLAN from anyone          source ports 49152.. ──► VXLAN to 4789 of others
//!  4500 ◄─► ESP                        or IP protocol 50 ◄─► ESP
//! ```

use core::net::{IpAddr, SocketAddr};
use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, RawFd},
};

use nix::sys::socket::{setsockopt, sockopt};
use overlay_types::Encapsulation;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, wire::protocol};

/// Sockets that plain VXLAN leaves from, each with its own source port: enough paths to spread
/// flows over in an underlay with as many equal-cost links as are common.
const SOURCE_SOCKETS: u16 = 16;
/// First port of the dynamic range (RFC 6335 §6), which RFC 7348 §5 recommends for sources.
const FIRST_SOURCE_PORT: u16 = 49_152;
/// Ports between those that two source sockets try first.
const SOURCE_PORT_STEP: u16 = (u16::MAX - FIRST_SOURCE_PORT) / SOURCE_SOCKETS;
/// Ports that one source socket tries before it is given up.
const SOURCE_PORT_ATTEMPTS: u16 = 64;

/// Octets that the kernel may hold for a receiving socket: 3 ms of 10 Gbit/s in super-datagrams,
/// whose bookkeeping counts double.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Octets that the kernel may hold for a sending socket.
const SEND_BUFFER: usize = 4 << 20;

/// Datagrams, or super-datagrams, taken at once.
const RECEIVE_BATCH: usize = 16;
/// Octets of a buffer that any super-datagram fits in: a kernel's super-frame of 64 KiB that nobody
/// cut, with its Ethernet and VXLAN headers.
const RECEIVE_LEN: usize = 0xffff + 64;

/// IP protocol number of ESP (RFC 4303 §2).
const ESP: i32 = protocol::ESP as i32;

/// A socket with its offloads.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    socket: Socket,
    state: UdpSocketState,
    /// Of UDP. Else what is sent and received are IP packets, one at a time.
    is_udp: bool,
    /// A socket of no UDP has port 0.
    pub(super) local: SocketAddr,
}

impl DatagramSocket {
    fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&local.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket, state, is_udp: true, local })
    }

    /// One for packets of IP protocol 50.
    fn bind_raw(local: IpAddr) -> io::Result<Self> {
        let local = SocketAddr::new(local, 0);
        let socket = Socket::new(Domain::for_address(local), Type::RAW, Some(ESP.into()))?;
        socket.bind(&local.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state, is_udp: false, local })
    }

    fn set_buffers(&self, receive: usize) {
        // The forced sizes need CAP_NET_ADMIN; without it the system's limit holds.
        if setsockopt(&self.socket, sockopt::RcvBufForce, &receive).is_err() {
            let _ = self.socket.set_recv_buffer_size(receive);
        }
        if setsockopt(&self.socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            let _ = self.socket.set_send_buffer_size(SEND_BUFFER);
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Sends datagrams of `stride` octets, the last one maybe shorter. Says how many were not
    /// sent, and why.
    pub(super) fn send(
        &self,
        destination: SocketAddr,
        contents: &[u8],
        stride: usize,
    ) -> Result<(), (usize, io::Error)> {
        let mut rest = contents;
        while !rest.is_empty() {
            // A device that cannot segment makes the state fall back to one at a time.
            let segments = if self.is_udp { self.state.max_gso_segments().max(1) } else { 1 };
            let most = segments * stride;
            let (now, later) = rest.split_at(rest.len().min(most));
            let transmit = Transmit {
                destination,
                ecn: None,
                contents: now,
                segment_size: (now.len() > stride).then_some(stride),
                src_ip: None,
            };
            match self.state.try_send((&self.socket).into(), &transmit) {
                Ok(()) => rest = later,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if now.len() > stride && self.state.max_gso_segments() <= 1 => {}
                Err(error) => return Err((rest.len().div_ceil(stride), error)),
            }
        }
        Ok(())
    }
}

/// Buffers for one batch of received datagrams.
#[derive(Debug)]
pub(super) struct Receiver {
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; RECEIVE_BATCH],
}

impl Receiver {
    pub(super) fn new() -> Self {
        let buffers = (0..RECEIVE_BATCH).map(|_| vec![0; RECEIVE_LEN]).collect();
        Self { buffers, metas: [RecvMeta::default(); RECEIVE_BATCH] }
    }

    /// Takes what waits at `socket` and gives each single datagram to `each`. Says whether more
    /// may wait.
    pub(super) fn receive(
        &mut self,
        socket: &DatagramSocket,
        mut each: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<bool> {
        let mut slices: Vec<IoSliceMut<'_>> =
            self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let count = match socket.state.recv((&socket.socket).into(), &mut slices, &mut self.metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        for (buffer, meta) in self.buffers.iter_mut().zip(&self.metas[..count]) {
            if meta.len == 0 {
                each(meta.addr, &mut []);
            }
            if !socket.is_udp {
                let header = header_len(&buffer[..meta.len], meta.addr);
                each(meta.addr, &mut buffer[header..meta.len]);
                continue;
            }
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                each(meta.addr, datagram);
            }
        }
        Ok(true)
    }
}

/// Octets of the IP header that a raw socket gives with a packet: that of IPv4 (raw(7)).
fn header_len(packet: &[u8], from: SocketAddr) -> usize {
    match packet.first() {
        Some(first) if from.is_ipv4() => packet.len().min(usize::from(first & 0xf) * 4),
        _ => 0,
    }
}

/// All sockets of a node.
#[derive(Debug)]
pub(super) struct Sockets {
    /// `None` on a switch of encrypted networks only.
    pub(super) plain: Option<PlainSockets>,
    /// `None` on a switch of plain networks only.
    pub(super) esp: Option<DatagramSocket>,
}

/// The sockets of plain networks.
#[derive(Debug)]
pub(super) struct PlainSockets {
    pub(super) vxlan: DatagramSocket,
    sources: Vec<DatagramSocket>,
}

impl Sockets {
    pub(super) fn open(
        data_path: IpAddr,
        vxlan_port: Option<u16>,
        esp: Option<Encapsulation>,
    ) -> Result<Self, Error> {
        let open = |port| -> Result<_, Error> {
            let address = SocketAddr::new(data_path, port);
            let socket = DatagramSocket::bind(address)
                .map_err(|source| Error::Socket { address, source })?;
            socket.set_buffers(RECEIVE_BUFFER);
            Ok(socket)
        };
        let open_esp = |encapsulation| match encapsulation {
            Encapsulation::Udp(port) => open(port),
            Encapsulation::None => {
                let failed = |source| Error::RawSocket { address: data_path, source };
                let socket = DatagramSocket::bind_raw(data_path).map_err(failed)?;
                socket.set_buffers(RECEIVE_BUFFER);
                Ok(socket)
            }
        };
        let plain = |port| -> Result<_, Error> {
            let sources = (0..SOURCE_SOCKETS).filter_map(|n| open_source(data_path, n)).collect();
            Ok(PlainSockets { vxlan: open(port)?, sources })
        };
        Ok(Self { plain: vxlan_port.map(plain).transpose()?, esp: esp.map(open_esp).transpose()? })
    }
}

/// Whether this process may open sockets for ESP as IP protocol 50; those of IPv4 stand for both.
///
/// # Errors
/// What the system said: without CAP_NET_RAW, EPERM.
pub fn try_raw_socket() -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::RAW, Some(ESP.into())).map(drop)
}

impl PlainSockets {
    /// The socket that plain VXLAN of the flow with this source port leaves from. With fewer
    /// sockets than ports, flows share them.
    pub(super) fn source(&self, source_port: u16) -> &DatagramSocket {
        let index = usize::from(source_port) % self.sources.len().max(1);
        self.sources.get(index).unwrap_or(&self.vxlan)
    }
}

/// Source ports are a matter of spreading only: a node without them sends from the VXLAN port.
fn open_source(data_path: IpAddr, number: u16) -> Option<DatagramSocket> {
    let first = FIRST_SOURCE_PORT + number * SOURCE_PORT_STEP;
    let mut ports = first..first + SOURCE_PORT_ATTEMPTS;
    let socket =
        ports.find_map(|port| DatagramSocket::bind(SocketAddr::new(data_path, port)).ok())?;
    // Nothing is ever read from it.
    socket.set_buffers(0);
    Some(socket)
}
