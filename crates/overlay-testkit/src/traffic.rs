//! Connections and questions between the namespaces of a lab.

use core::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{lab::Namespace, until::until};

/// Longest wait for what has to happen, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a connection that must not come about is tried.
const REFUSAL: Duration = Duration::from_millis(300);
const SCTP: i32 = 132;

/// Connects by TCP from one namespace to `target`, where `listener` accepts, and returns the address
/// that the listener sees. What waits there from earlier attempts says something else, or nothing.
pub fn connect(from: &Namespace, target: SocketAddr, listener: &TcpListener) -> Result<IpAddr> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let greeting = NEXT.fetch_add(1, Relaxed).to_be_bytes();
    SockRef::from(listener).set_read_timeout(Some(DEADLINE))?;
    thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            loop {
                let (mut stream, peer) = resumed(|| listener.accept())?;
                stream.set_read_timeout(Some(DEADLINE))?;
                let mut said = [0; size_of::<u64>()];
                if stream.read_exact(&mut said).is_ok() && said == greeting {
                    return io::Result::Ok(peer.ip());
                }
            }
        });
        let connected = from.enter(|| TcpStream::connect_timeout(&target, DEADLINE));
        let mut stream = connected.with_context(|| format!("connect to {target}"))?;
        ensure!(stream.peer_addr()? == target, "another one answers");
        stream.write_all(&greeting)?;
        accepting.join().expect("accept").context("no connection arrives")
    })
}

/// Whether a connection is not made.
pub fn is_refused(from: &Namespace, target: SocketAddr) -> bool {
    from.enter(|| TcpStream::connect_timeout(&target, REFUSAL)).is_err()
}

/// Asks for connections until one is refused. Those that are made until then stay with a server that
/// takes none; when it has its fill of them, what it does not answer any more is asked again.
///
/// # Errors
/// What became of the last one, after `patience`.
pub fn until_refused(from: &Namespace, target: SocketAddr, patience: Duration) -> Result<()> {
    until(&format!("{target} refuses connections"), patience, || {
        match from.enter(|| TcpStream::connect_timeout(&target, REFUSAL)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => bail!("{other:?}"),
        }
    })
}

/// Listens for connections in a namespace. A process that another thread starts has a socket that was
/// closed for a moment longer.
pub fn listen(on: &Namespace, address: IpAddr, port: u16) -> Result<TcpListener> {
    until(&format!("{address} can be listened on"), DEADLINE, || {
        Ok(on.enter(|| TcpListener::bind((address, port)))?)
    })
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
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
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

/// Opens an SCTP association over IPv4, as far as its first packet and the answer: returns whom the server
/// sees.
pub fn associate(
    client: &Namespace,
    to: Ipv4Addr,
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
    client.send_to(&sctp_init(port), &SocketAddr::from((to, 0)).into())?;
    let mut buffer = [0; 128];
    let length = resumed(|| (&server).read(&mut buffer)).context("no INIT arrives")?;
    ensure!(buffer[22..24] == target.to_be_bytes(), "to another port: {:?}", &buffer[..length]);
    let seen = IpAddr::from([buffer[12], buffer[13], buffer[14], buffer[15]]);
    // From the port that was asked, to the one that asked.
    let answer = init_ack(target, u16::from_be_bytes([buffer[20], buffer[21]]));
    server.send_to(&answer, &SocketAddr::new(seen, 0).into())?;
    let length = resumed(|| (&client).read(&mut buffer)).context("no INIT ACK arrives")?;
    ensure!(buffer[12..16] == to.octets(), "from another address: {:?}", &buffer[..length]);
    ensure!(buffer[20..22] == port.to_be_bytes(), "from another port: {:?}", &buffer[..length]);
    Ok(seen)
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

/// Sends from one namespace to an address of another what belongs to no connection: a TCP segment that
/// opens and ends one, and the answer to an echo request that nobody sent. Returns which protocols of
/// these arrive.
pub fn strays(from: &Namespace, to: &Namespace, target: IpAddr) -> Result<Vec<i32>> {
    let raw = |on: &Namespace, protocol: i32| {
        let domain = Domain::for_address(SocketAddr::new(target, 0));
        on.enter(|| Socket::new(domain, Type::RAW, Some(protocol.into())))
    };
    let echo_reply = if target.is_ipv4() { [0, 0, 0xbd, 0xbc] } else { [129, 0, 0, 0] };
    let echo_reply = [echo_reply, [0x42, 0x42, 0, 1]].concat();
    let segment = [&STRAY[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 3, 4, 0, 0, 0, 0, 0]].concat();
    let icmp = if target.is_ipv4() { 1 } else { 58 };
    let mut arrived = Vec::new();
    for (protocol, packet, mark) in [(6, segment, STRAY), (icmp, echo_reply, [0x42, 0x42, 0, 1])] {
        let (sender, mut receiver) = (raw(from, protocol)?, raw(to, protocol)?);
        receiver.set_read_timeout(Some(REFUSAL))?;
        sender.send_to(&packet, &SocketAddr::new(target, 0).into())?;
        let mut buffer = [0; 2048];
        // Others speak, too.
        while let Ok(length) = resumed(|| receiver.read(&mut buffer)) {
            if buffer[..length].windows(mark.len()).any(|part| part == mark) {
                arrived.push(protocol);
                break;
            }
        }
    }
    Ok(arrived)
}

/// The ports of a segment of [`strays`].
const STRAY: [u8; 4] = [0x42, 0x42, 0x42, 0x43];
