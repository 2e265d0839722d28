//! Connections and questions between the namespaces of a lab.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use crate::lab::Namespace;

/// Longest wait for what has to happen, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a connection that must not come about is tried.
const REFUSAL: Duration = Duration::from_millis(300);

/// Connects by TCP from one namespace to `target`, where `listener` accepts, and returns the address
/// that the listener sees.
pub fn connect(from: &Namespace, target: SocketAddr, listener: &TcpListener) -> Result<IpAddr> {
    SockRef::from(listener).set_read_timeout(Some(DEADLINE))?;
    thread::scope(|scope| {
        let accepting = scope.spawn(|| resumed(|| listener.accept()));
        let connected = from.enter(|| TcpStream::connect_timeout(&target, DEADLINE));
        let stream = connected.with_context(|| format!("connect to {target}"))?;
        ensure!(stream.peer_addr()? == target, "another one answers");
        let (_, peer) = accepting.join().expect("accept")?;
        Ok(peer.ip())
    })
}

/// Whether a connection is not made.
pub fn is_refused(from: &Namespace, target: SocketAddr) -> bool {
    from.enter(|| TcpStream::connect_timeout(&target, REFUSAL)).is_err()
}

/// Listens for connections in a namespace.
pub fn listen(on: &Namespace, address: IpAddr, port: u16) -> Result<TcpListener> {
    on.enter(|| TcpListener::bind((address, port))).with_context(|| format!("listen on {address}"))
}

/// Sends a datagram to `target` and returns whom the socket there sees, and what comes back to whom
/// asked.
pub fn ask(from: &Namespace, target: SocketAddr, server: &UdpSocket) -> Result<IpAddr> {
    server.set_read_timeout(Some(DEADLINE))?;
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = from.enter(|| UdpSocket::bind((any, 0)))?;
    client.set_read_timeout(Some(DEADLINE))?;
    client.connect(target)?;
    client.send(b"question")?;
    let mut buffer = [0; 16];
    let (length, peer) =
        resumed(|| server.recv_from(&mut buffer)).context("no question arrives")?;
    ensure!(&buffer[..length] == b"question");
    server.send_to(b"answer", peer)?;
    let length = resumed(|| client.recv(&mut buffer)).context("no answer arrives")?;
    ensure!(&buffer[..length] == b"answer");
    Ok(peer.ip())
}

/// Calls again what a signal interrupts: a socket with a time limit is not resumed by itself.
pub fn resumed<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The first packet of an SCTP association (RFC 9260 §3.3.2), from port 5000.
pub fn sctp_init(port: u16) -> Vec<u8> {
    let mut packet = [5000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    packet.extend([0; 8]); // verification tag, checksum
    packet.extend([1, 0, 0, 20]);
    packet.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}
