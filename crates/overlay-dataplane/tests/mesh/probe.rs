//! What a client asks, and whom the server sees.

use core::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Duration,
};
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{lab::Namespace, traffic::resumed};
use socket2::{Domain, SockRef, Socket, Type};

const DEADLINE: Duration = Duration::from_secs(20);
/// How long something is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(300);
/// Octets that go each way: more than a segment, more than a window at the start.
const LOAD: usize = 200_000;

pub(crate) const fn any(ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)
    }
}

/// Connects from a port, also one that the last end of a connection still has.
pub(crate) fn connect_from(
    netns: &Namespace,
    port: u16,
    target: SocketAddr,
) -> io::Result<TcpStream> {
    netns.enter(|| {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(any(target.is_ipv6()), port).into())?;
        socket.connect_timeout(&target.into(), DEADLINE)?;
        Ok(socket.into())
    })
}

/// Connects, moves data both ways, and returns the client's address as it is and as the server sees it.
/// The client has another port each time: one that it had towards another node is not the one that is seen.
pub(crate) fn exchange(
    from: &Namespace,
    target: SocketAddr,
    listener: &TcpListener,
) -> Result<[SocketAddr; 2]> {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);
    let port = NEXT_PORT.fetch_add(1, Relaxed);
    SockRef::from(listener).set_read_timeout(Some(DEADLINE))?;
    thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<SocketAddr> {
            let (mut stream, peer) = resumed(|| listener.accept()).context("accept")?;
            stream.set_read_timeout(Some(DEADLINE))?;
            let mut all = vec![0; LOAD];
            stream.read_exact(&mut all).context("read what the client sends")?;
            stream.write_all(&all)?;
            Ok(peer)
        });
        let connected = connect_from(from, port, target);
        let mut client = connected.with_context(|| format!("connect to {target}"))?;
        client.set_read_timeout(Some(DEADLINE))?;
        client.write_all(&vec![7; LOAD])?;
        let mut all = vec![0; LOAD];
        client.read_exact(&mut all).context("read what the server sends")?;
        ensure!(client.peer_addr()? == target, "another one answers");
        Ok([client.local_addr()?, server.join().expect("server")?])
    })
}

/// Asks by UDP; as [`exchange`].
pub(crate) fn ask(
    from: &Namespace,
    target: SocketAddr,
    server: &UdpSocket,
) -> Result<[SocketAddr; 2]> {
    let client = from.enter(|| UdpSocket::bind((any(target.is_ipv6()), 0)))?;
    client.connect(target)?;
    let seen = ask_again(&client, server)?;
    Ok([client.local_addr()?, seen])
}

/// Asks with a socket that is connected.
pub(crate) fn ask_again(client: &UdpSocket, server: &UdpSocket) -> Result<SocketAddr> {
    for socket in [client, server] {
        socket.set_read_timeout(Some(DEADLINE))?;
    }
    client.send(b"question")?;
    let mut buffer = [0; 16];
    let (_, peer) = resumed(|| server.recv_from(&mut buffer)).context("no question arrives")?;
    server.send_to(b"answer", peer)?;
    let length = resumed(|| client.recv(&mut buffer)).context("no answer arrives")?;
    ensure!(&buffer[..length] == b"answer");
    Ok(peer)
}

/// Whether nothing arrives at a socket.
pub(crate) fn is_silent(server: &UdpSocket) -> Result<bool> {
    server.set_read_timeout(Some(SILENCE))?;
    Ok(resumed(|| server.recv(&mut [0; 16])).is_err())
}
