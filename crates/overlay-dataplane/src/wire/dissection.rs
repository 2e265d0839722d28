//! One look at a frame: addresses, ports, and where its headers are.

use core::net::IpAddr;

use super::{
    Malformed,
    ethernet::{self, ethertype},
    ipv4::Ipv4Packet,
    ipv6::Ipv6Packet,
    protocol, read_u16, sctp, tcp, udp,
};

/// What a switch needs of an IP packet in an Ethernet frame. Offsets are from the frame's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dissection {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: u8,
    /// Where the transport header starts.
    pub transport: usize,
    /// Where the IP packet ends; what follows is Ethernet padding.
    pub end: usize,
    /// Source and destination port, when the transport header with them is whole and here.
    pub ports: Option<(u16, u16)>,
    /// Identification and offset in octets, when the packet is one of several fragments.
    pub fragment: Option<(u32, usize)>,
}

impl Dissection {
    /// Looks at `frame`, whose EtherType is IPv4 or IPv6.
    pub fn of_frame(frame: &[u8]) -> Result<Self, Malformed> {
        if frame.len() < ethernet::HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        let mut seen = Self::of_packet(read_u16(frame, 12), &frame[ethernet::HEADER_LEN..])?;
        seen.transport += ethernet::HEADER_LEN;
        seen.end += ethernet::HEADER_LEN;
        Ok(seen)
    }

    /// Looks at an IP packet; offsets are from the packet's start.
    pub fn of_packet(ethertype: u16, packet: &[u8]) -> Result<Self, Malformed> {
        let mut seen = match ethertype {
            ethertype::IPV4 => {
                let ip = Ipv4Packet::new(packet)?;
                let fragment =
                    ip.is_fragment().then(|| (ip.identification().into(), ip.fragment_offset()));
                Self {
                    source: ip.source().into(),
                    destination: ip.destination().into(),
                    protocol: ip.protocol(),
                    transport: ip.header_len(),
                    end: ip.total_len(),
                    ports: None,
                    fragment,
                }
            }
            ethertype::IPV6 => {
                let ip = Ipv6Packet::new(packet)?;
                let upper = ip.upper_layer()?;
                Self {
                    source: ip.source().into(),
                    destination: ip.destination().into(),
                    protocol: upper.protocol,
                    transport: upper.offset,
                    end: ip.total_len(),
                    ports: None,
                    fragment: upper.fragment,
                }
            }
            _ => return Err(Malformed::Field),
        };
        if seen.fragment.is_none_or(|(_, offset)| offset == 0) {
            seen.ports = seen.ports_in(&packet[seen.transport..seen.end]);
        }
        Ok(seen)
    }

    fn ports_in(&self, transport: &[u8]) -> Option<(u16, u16)> {
        let header = match self.protocol {
            protocol::TCP => tcp::HEADER_LEN,
            protocol::UDP => udp::HEADER_LEN,
            protocol::SCTP => sctp::HEADER_LEN,
            _ => return None,
        };
        (transport.len() >= header).then(|| (read_u16(transport, 0), read_u16(transport, 2)))
    }

    /// Octets of the IP packet.
    pub fn packet_len(&self) -> usize {
        self.end - ethernet::HEADER_LEN
    }
}
