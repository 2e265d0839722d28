//! Pings and hashed transfers between namespaces.
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use overlay_testkit::lab::Namespace;
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Time that a packet has to come back in, on machines that are busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(200);

/// Pings `target` from inside `from` until it answers.
pub(crate) fn ping(from: &Namespace, target: IpAddr) -> Result<()> {
    from.enter(|| {
        let (domain, protocol, request, reply, header) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(RETRY))?;
        let mut message = vec![request, 0, 0, 0, 0x12, 0x34, 0, 1];
        message.extend_from_slice(&[0x55; 48]);
        // The kernel fills in the checksum of ICMPv6 only.
        if target.is_ipv4() {
            let sum: u32 = message.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
            let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            // No route or neighbor yet: the next try may find one.
            let _ = socket.send_to(&message, &SocketAddr::new(target, 0).into());
            let mut buffer = [0; 256];
            while let Ok(length) = (&socket).read(&mut buffer) {
                // A raw IPv4 socket gives the IP header too, one of IPv6 does not. Pings of the
                // socket's own host to itself carry another identifier.
                let answer = &buffer[header.min(length)..length];
                if answer.first() == Some(&reply) && answer.get(4..) == message.get(4..) {
                    return Ok(());
                }
            }
        }
        anyhow::bail!("{target} does not answer pings")
    })
}

/// Sends `length` octets by TCP from one namespace to `address` in another and compares hashes.
pub(crate) fn transfer(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    length: usize,
) -> Result<()> {
    let listener = to.enter(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
    SockRef::from(&listener).set_read_timeout(Some(DEADLINE))?;
    let target = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(move || -> Result<_> {
            let (mut stream, _) = listener.accept().context("accept")?;
            stream.set_read_timeout(Some(DEADLINE))?;
            let (mut hash, mut received) = (Sha256::new(), 0);
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = stream.read(&mut buffer).context("receive")?;
                if read == 0 {
                    return Ok((hash.finalize(), received));
                }
                hash.update(&buffer[..read]);
                received += read;
            }
        });
        let stream = from.enter(|| TcpStream::connect_timeout(&target, DEADLINE));
        let mut stream = stream.with_context(|| format!("connect to {target}"))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut hash = Sha256::new();
        let mut state = 1_u64;
        let mut sent = 0;
        while sent < length {
            // Octets that repeat nowhere: a lost or doubled segment changes the hash.
            let block: Vec<u8> = (0..8192)
                .flat_map(|_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    state.to_be_bytes()
                })
                .take(length - sent)
                .collect();
            hash.update(&block);
            stream.write_all(&block).context("send")?;
            sent += block.len();
        }
        drop(stream);
        let (received_hash, received) = receiver.join().expect("receiver panicked")?;
        ensure!(received == length, "{received} of {length} octets arrived");
        ensure!(received_hash == hash.finalize(), "the octets that arrived are others");
        Ok(())
    })
}
