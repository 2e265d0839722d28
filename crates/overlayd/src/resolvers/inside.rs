//! Sockets in an endpoint's network namespace.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{
    io::{self, ErrorKind},
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use overlay_dataplane::kernel::{NetNs, NetNsId, set_loopback_up};
use overlay_service::dns::Sockets;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;

/// Where a name server is for those in its namespace: where Docker's is.
pub(super) const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const PORT: u16 = 53;
/// UDP sockets that one visit to the namespace opens, because a visit costs a thread.
const BATCH: usize = 8;

/// A namespace that sockets are opened in. They stay in there, whoever uses them; the threads that
/// open them end at once.
#[derive(Clone, Debug)]
pub(super) struct Inside(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    netns: NetNs,
    /// UDP sockets that nobody has used yet, for IPv4 and IPv6.
    spare: Mutex<[Vec<Socket>; 2]>,
}

impl Inside {
    /// Opens the namespace at the path, which must still be the one that it was.
    pub(super) fn open(path: &Path, id: NetNsId) -> io::Result<Self> {
        let netns = NetNs::open(path)?;
        if netns.id()? != id {
            return Err(io::Error::new(ErrorKind::NotFound, "another namespace took its place"));
        }
        Ok(Self(Arc::new(Shared { netns, spare: Mutex::default() })))
    }

    /// The sockets of the name server. Loopback is brought up for them.
    pub(super) fn listen(&self) -> io::Result<(UdpSocket, TcpListener)> {
        self.0.netns.enter(|| {
            set_loopback_up()?;
            let udp = UdpSocket::bind((RESOLVER, PORT))?;
            let tcp = TcpListener::bind((RESOLVER, PORT))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })
    }

    /// A UDP socket that is not bound yet.
    fn unbound(&self, domain: Domain) -> io::Result<Socket> {
        let mut spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = &mut spare[usize::from(domain == Domain::IPV6)];
        if spare.is_empty() {
            let open = |_| Socket::new(domain, Type::DGRAM, None);
            *spare = self.0.netns.enter(|| (0..BATCH).map(open).collect())?;
        }
        spare.pop().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Sockets for Inside {
    fn udp(&self, upstream: SocketAddr) -> io::Result<UdpSocket> {
        // The kernel draws the port at random when it is 0 (RFC 5452 §9.2).
        let any: SocketAddr = match upstream {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = self.unbound(Domain::for_address(upstream))?;
        socket.bind(&any.into())?;
        socket.connect(&upstream.into())?;
        Ok(socket.into())
    }

    fn tcp(&self, upstream: SocketAddr) -> io::Result<TcpSocket> {
        let domain = Domain::for_address(upstream);
        let socket = self.0.netns.enter(|| Socket::new(domain, Type::STREAM, None))?;
        socket.set_nonblocking(true)?;
        Ok(TcpSocket::from_std_stream(TcpStream::from(socket)))
    }
}
