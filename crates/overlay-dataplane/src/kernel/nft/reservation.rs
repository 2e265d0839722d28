//! A port of the host that is published, held by sockets: nobody else can listen on it, and what
//! somebody listens on cannot be published.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;

use overlay_types::Protocol;
use socket2::{Domain, Socket, Type};

use super::{packet, publish::HostPort};

/// Holds a port until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    sockets: Vec<Socket>,
}

/// A port cannot be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish port {port}/{protocol} on {address}: {source}")]
pub struct PortTaken {
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    /// What the system said: in use, or no address of this host.
    pub source: io::Error,
}

impl Reservation {
    /// Takes a port in the calling thread's namespace, or says at once who cannot have it.
    pub fn take(host: HostPort) -> Result<Self, PortTaken> {
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        let addresses = host.address.map_or_else(|| any.to_vec(), |address| vec![address]);
        let mut sockets = Vec::new();
        for address in addresses {
            match hold(host.protocol, SocketAddr::new(address, host.port)) {
                Ok(socket) => sockets.push(socket),
                // No socket of that kind can be in the way.
                Err(error) if is_unknown(&error) => {}
                Err(source) => {
                    let HostPort { protocol, port, .. } = host;
                    return Err(PortTaken { address, port, protocol, source });
                }
            }
        }
        Ok(Self { sockets })
    }

    /// The sockets: bound, one for each version of IP, and none listens.
    pub(crate) fn sockets(&self) -> &[Socket] {
        &self.sockets
    }
}

/// A kernel without SCTP or IPv6.
fn is_unknown(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let unknown = [Errno::EPROTONOSUPPORT, Errno::ESOCKTNOSUPPORT, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|number| unknown.contains(&Errno::from_raw(number)))
}

/// A bound socket that never listens: what comes to the port is translated, and if it were not,
/// refused.
fn hold(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let bind = |reuse| -> io::Result<Socket> {
        let kind = if protocol == Protocol::Udp { Type::DGRAM } else { Type::STREAM };
        let number = i32::from(packet::protocol(protocol)).into();
        let socket = Socket::new(Domain::for_address(address), kind, Some(number))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(reuse)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    match bind(false) {
        // Connections of a server that has ended are in the way for a minute, but not of a socket
        // that says so; one that listens is in the way of both.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && protocol != Protocol::Udp => {
            let socket = bind(true)?;
            // From now on it is in the way of others that say so.
            socket.set_reuse_address(false)?;
            Ok(socket)
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn port(protocol: Protocol, address: SocketAddr) -> HostPort {
        HostPort { protocol, address: Some(address.ip()), port: address.port() }
    }

    #[test]
    fn s16_a_port_in_use_is_refused_at_once_and_a_published_one_is_in_use() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Reservation::take(port(Protocol::Tcp, address)).unwrap_err();
        assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
        let text = taken.to_string();
        assert!(text.contains(&format!("{}/tcp on 127.0.0.1", address.port())), "{text}");
        let everywhere = HostPort { address: None, ..port(Protocol::Tcp, address) };
        assert!(Reservation::take(everywhere).is_err());

        // Other protocols have ports of their own.
        let reservation = Reservation::take(port(Protocol::Udp, address)).unwrap();
        assert!(UdpSocket::bind(address).is_err());
        assert!(Reservation::take(port(Protocol::Udp, address)).is_err());
        drop(reservation);
        drop(listener);
        let reservation = Reservation::take(port(Protocol::Tcp, address)).unwrap();
        assert!(TcpListener::bind(address).is_err());
        drop(reservation);
        Reservation::take(port(Protocol::Sctp, address)).unwrap();
    }
}
