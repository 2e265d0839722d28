//! Seeing what is on the wire: a hook for outer datagrams, and a file that tshark reads.

use core::{net::SocketAddr, time::Duration};
use std::io::{self, Write};

use crate::wire::{ip::IpRepr, protocol, udp};

/// Whether a datagram left or came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It was sent.
    Sent,
    /// It was received.
    Received,
}

/// An outer datagram: VXLAN or ESP, as it is on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Captured<'a> {
    /// Whether it left or came.
    pub direction: Direction,
    /// Where from. What travels as IP protocol 50 has port 0.
    pub source: SocketAddr,
    /// Where to, likewise.
    pub destination: SocketAddr,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Called for each outer datagram, on the switch's thread.
pub type Capture = Box<dyn FnMut(Captured<'_>) + Send>;

/// `LINKTYPE_RAW`: packets begin with their IP header.
const LINKTYPE_RAW: u32 = 101;
/// Longest packet that is written whole.
const SNAP_LEN: u32 = 0xffff;

/// Writes datagrams as a pcap file, in front of each the IP header, and that of UDP, that it had.
///
/// The format is that of <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/>.
#[derive(Debug)]
pub struct PcapWriter<W> {
    file: W,
    packet: Vec<u8>,
}

impl<W: Write> PcapWriter<W> {
    /// Starts a file.
    pub fn new(mut file: W) -> io::Result<Self> {
        // Microseconds, version 2.4, this machine's byte order.
        for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, SNAP_LEN, LINKTYPE_RAW] {
            file.write_all(&word.to_ne_bytes())?;
        }
        Ok(Self { file, packet: Vec::new() })
    }

    /// Adds a datagram, at a time since the Unix epoch. Both addresses are of one family.
    pub fn write(&mut self, at: Duration, datagram: &Captured<'_>) -> io::Result<()> {
        self.packet.clear();
        let (source, destination) = (datagram.source, datagram.destination);
        let is_udp = destination.port() != 0;
        let protocol = if is_udp { protocol::UDP } else { protocol::ESP };
        let udp_header = if is_udp { udp::HEADER_LEN as u16 } else { 0 };
        let payload_len = (datagram.payload.len() as u16).saturating_add(udp_header);
        IpRepr { source: source.ip(), destination: destination.ip(), protocol, payload_len }
            .emit(&mut self.packet)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if is_udp {
            udp::emit(source, destination, datagram.payload, &mut self.packet);
        } else {
            self.packet.extend_from_slice(datagram.payload);
        }
        let length = self.packet.len() as u32;
        for word in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            self.file.write_all(&word.to_ne_bytes())?;
        }
        self.file.write_all(&self.packet)
    }

    /// Writes out what is buffered, and gives the file back.
    pub fn finish(mut self) -> io::Result<W> {
        self.file.flush()?;
        Ok(self.file)
    }
}
