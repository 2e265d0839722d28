//! What a client asks, and whom the server sees.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{
    lab::Namespace,
    traffic::{resumed, sctp_init},
};
use socket2::{Domain, SockRef, Socket, Type};

const DEADLINE: Duration = Duration::from_secs(20);
/// How long something is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(300);
const SCTP: i32 = 132;
/// Octets that go each way: more than a segment, more than a window at the start.
const LOAD: usize = 200_000;

pub(crate) const fn any(ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)
    }
}

/// Connects, moves data both ways, and returns the client's address as it is and as the server sees it.
pub(crate) fn exchange(
    from: &Namespace,
    target: SocketAddr,
    listener: &TcpListener,
) -> Result<[SocketAddr; 2]> {
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
        let connected = from.enter(|| TcpStream::connect_timeout(&target, DEADLINE));
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

/// Opens an association, as far as its first packet and the answer: returns whom the server sees.
pub(crate) fn associate(
    client: &Namespace,
    to: IpAddr,
    port: u16,
    server: &Namespace,
    target: u16,
) -> Result<IpAddr> {
    let raw = |namespace: &Namespace| {
        namespace.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(SCTP.into())))
    };
    let (client, server) = (raw(client)?, raw(server)?);
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(DEADLINE))?;
    }
    client.send_to(&sctp_init(port), &SocketAddr::new(to, 0).into())?;
    let mut buffer = [0; 128];
    let length = resumed(|| (&server).read(&mut buffer)).context("no INIT arrives")?;
    ensure!(buffer[22..24] == target.to_be_bytes(), "to another port: {:?}", &buffer[..length]);
    let seen = IpAddr::from([buffer[12], buffer[13], buffer[14], buffer[15]]);
    // From the port that was asked, to the one that asked.
    let answer = init_ack(target, u16::from_be_bytes([buffer[20], buffer[21]]));
    server.send_to(&answer, &SocketAddr::new(seen, 0).into())?;
    let length = resumed(|| (&client).read(&mut buffer)).context("no INIT ACK arrives")?;
    ensure!(buffer[12..16] == octets(to), "from another address: {:?}", &buffer[..length]);
    ensure!(buffer[20..22] == port.to_be_bytes(), "from another port: {:?}", &buffer[..length]);
    Ok(seen)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The answer to an INIT (RFC 9260 §3.3.3), whose tag is 1.
fn init_ack(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0]); // verification tag, checksum
    packet.extend([2, 0, 0, 20]);
    packet.extend([0, 0, 0, 2, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}
