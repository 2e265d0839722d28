//! Pings a millisecond apart: what is measured begins before there is anything to answer.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{io::Read, time::Instant};

use anyhow::{Context, Result};
use overlay_testkit::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// Time between two pings.
const PACE: Duration = Duration::from_millis(1);
const ECHO_REPLY: u8 = 0;

/// A raw socket of a namespace.
pub(crate) struct Pinger(Socket);

impl Pinger {
    pub(crate) fn inside(netns: &Namespace) -> Result<Self> {
        netns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.set_read_timeout(Some(PACE))?;
            Ok(Self(socket))
        })
    }

    pub(crate) fn until_answered(mut self, target: IpAddr, patience: Duration) -> Result<()> {
        let mut message = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
        let sum: u32 = message.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        let begin = Instant::now();
        while begin.elapsed() < patience {
            // No route yet, maybe: the next try finds one.
            let _ = self.0.send_to(&message, &SocketAddr::new(target, 0).into());
            let mut buffer = [0; 256];
            while let Ok(length) = self.0.read(&mut buffer) {
                // Behind the IPv4 header; from whom is in there, at 12.
                let IpAddr::V4(v4) = target else { break };
                let answers = buffer.get(20..length).is_some_and(|icmp| icmp[0] == ECHO_REPLY);
                if answers && buffer[12..16] == v4.octets() {
                    return Ok(());
                }
            }
        }
        None.with_context(|| format!("{target} does not answer pings"))
    }
}
