//! A capture in a namespace: what arrived is known, not guessed from silence.
#![expect(clippy::disallowed_methods, reason = "a test measures against deadlines")]

use core::{net::Ipv4Addr, time::Duration};
use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read},
    time::Instant,
};

use anyhow::{Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use overlay_testkit::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::setup::PATIENCE;

/// `ETH_P_ALL` in network order: frames of every protocol.
pub(crate) const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;
/// Longest wait of one read.
pub(crate) const READ: Duration = Duration::from_millis(20);
/// Frames of a test; a capture that has more listens to the wrong thing.
const MOST: usize = 200_000;

/// Frames of all devices of a namespace, since this value was made.
pub(crate) struct Ear {
    socket: Socket,
    frames: Vec<Vec<u8>>,
}

impl Ear {
    pub(crate) fn in_namespace(netns: &Namespace) -> Result<Self> {
        let protocol = Some(Protocol::from(EVERYTHING));
        let socket = netns.enter(|| Socket::new(Domain::PACKET, Type::RAW, protocol))?;
        socket.set_recv_buffer_size(1 << 22)?;
        socket.set_read_timeout(Some(READ))?;
        Ok(Self { socket, frames: Vec::new() })
    }

    /// Takes in what has arrived by now, and what does in a moment: not the end of what somebody says
    /// without a pause.
    fn listen(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let begin = Instant::now();
        loop {
            match self.socket.read(&mut buffer) {
                Ok(length) => self.frames.push(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A socket with a time limit is not resumed by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(self.frames.len() < MOST, "too many frames");
            if begin.elapsed() >= READ {
                self.socket.set_nonblocking(true)?;
            }
        }
        self.socket.set_nonblocking(false)?;
        Ok(())
    }

    /// Whether a frame with these bytes in it has arrived.
    pub(crate) fn has_heard(&mut self, bytes: &[u8]) -> Result<bool> {
        self.listen()?;
        Ok(self.frames.iter().any(|frame| frame.windows(bytes.len()).any(|w| w == bytes)))
    }

    /// Has something said, again and again, until it has arrived.
    pub(crate) fn until_heard(
        &mut self,
        bytes: &[u8],
        mut say: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            say()?;
            if self.has_heard(bytes)? {
                return Ok(());
            }
            let text = String::from_utf8_lossy(bytes);
            ensure!(begin.elapsed() < PATIENCE, "{text:?} does not arrive");
        }
    }

    /// UDP ports that IPv4 datagrams were sent to.
    pub(crate) fn udp_ports(&mut self) -> Result<BTreeSet<u16>> {
        Ok(self.datagrams()?.into_iter().map(|(_, port)| port).collect())
    }

    /// Who sent IPv4 datagrams to a UDP port.
    pub(crate) fn sources_to(&mut self, port: u16) -> Result<BTreeSet<Ipv4Addr>> {
        let to_port = |(source, to)| (to == port).then_some(source);
        Ok(self.datagrams()?.into_iter().filter_map(to_port).collect())
    }

    /// Sources and destination ports of IPv4 datagrams.
    fn datagrams(&mut self) -> Result<BTreeSet<(Ipv4Addr, u16)>> {
        self.listen()?;
        let datagram = |frame: &Vec<u8>| {
            let packet = SlicedPacket::from_ethernet(frame).ok()?;
            match (packet.net?, packet.transport?) {
                (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
                    Some((ip.header().source_addr(), udp.destination_port()))
                }
                _ => None,
            }
        };
        Ok(self.frames.iter().filter_map(datagram).collect())
    }
}
