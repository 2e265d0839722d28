//! UDP sockets of published ports: which address a client sent to is known, and answers come from it.

use core::net::{IpAddr, SocketAddr};
use std::io::{self, IoSliceMut};

use nix::sys::socket::{setsockopt, sockopt::Ipv6DontFrag};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Socket};
use tokio::{io::Interest, net::UdpSocket};

/// Octets of what the kernel gives at once: many datagrams of one client, or one of the longest.
const RECEIVE_LEN: usize = 1 << 16;

/// A socket that datagrams of clients come to.
pub(super) struct DatagramSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl DatagramSocket {
    /// With a socket that is bound. To be called on the runtime.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // That is for protocols that find the MTU of a path themselves; clients' need pieces.
        if socket.domain()? == Domain::IPV4 {
            sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT)?;
        } else {
            sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::WANT)?;
            setsockopt(&socket, Ipv6DontFrag, &false)?;
        }
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local })
    }

    pub(super) const fn is_ipv4(&self) -> bool {
        self.local.is_ipv4()
    }

    /// Gives each datagram to `each`: who sent it, to which address of this node, and what.
    pub(super) async fn receive(
        &self,
        mut each: impl FnMut(SocketAddr, Option<IpAddr>, &[u8]),
    ) -> io::Error {
        let mut buffer = vec![0; RECEIVE_LEN];
        loop {
            let mut meta = [RecvMeta::default()];
            let receive = || {
                let mut buffers = [IoSliceMut::new(&mut buffer)];
                self.state.recv((&self.socket).into(), &mut buffers, &mut meta)
            };
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(_) => {}
                // Of what was sent before: a client's host has no such port.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return error,
            }
            let [meta] = meta;
            if meta.len == 0 {
                each(meta.addr, meta.dst_ip, &[]);
            }
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                each(meta.addr, meta.dst_ip, datagram);
            }
        }
    }

    /// Sends a datagram to a client from the address that it knows.
    pub(super) fn send(
        &self,
        destination: SocketAddr,
        src_ip: Option<IpAddr>,
        contents: &[u8],
    ) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip };
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        self.socket.try_io(Interest::WRITABLE, send)
    }
}
