//! Ethernet II frames (IEEE 802.3 §3.2.6, without the frame check sequence).

use overlay_types::MacAddr;

use super::{Malformed, read_array, read_u16};

/// Octets of the header: destination, source, type.
pub const HEADER_LEN: usize = 14;

/// EtherTypes that this crate tells apart.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad tag.
    pub const QINQ: u16 = 0x88a8;
    /// The tag that came before 802.1ad and is still sent.
    pub const QINQ_OLD: u16 = 0x9100;

    /// That of IP packets of a version.
    pub const fn of_ip(is_ipv4: bool) -> u16 {
        if is_ipv4 { IPV4 } else { IPV6 }
    }
}

/// A frame with a whole header.
#[derive(Debug, Clone, Copy)]
pub struct EthernetFrame<'a>(&'a [u8]);

impl<'a> EthernetFrame<'a> {
    /// The frame in `bytes`, which must hold the 14 octets of a header.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN { Err(Malformed::Truncated) } else { Ok(Self(bytes)) }
    }

    /// Destination address.
    pub fn destination(self) -> MacAddr {
        MacAddr(read_array(self.0, 0))
    }

    /// Source address.
    pub fn source(self) -> MacAddr {
        MacAddr(read_array(self.0, 6))
    }

    /// EtherType, or the length of an 802.3 frame.
    pub fn ethertype(self) -> u16 {
        read_u16(self.0, 12)
    }

    /// Whether the frame carries a VLAN tag of any kind.
    pub fn is_tagged(self) -> bool {
        use ethertype::{QINQ, QINQ_OLD, VLAN};
        matches!(self.ethertype(), VLAN | QINQ | QINQ_OLD)
    }

    /// What follows the header.
    pub fn payload(self) -> &'a [u8] {
        &self.0[HEADER_LEN..]
    }
}

/// A header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EthernetRepr {
    /// Destination address.
    pub destination: MacAddr,
    /// Source address.
    pub source: MacAddr,
    /// EtherType.
    pub ethertype: u16,
}

impl EthernetRepr {
    /// Appends the 14 octets.
    pub fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.destination.0);
        out.extend_from_slice(&self.source.0);
        out.extend_from_slice(&self.ethertype.to_be_bytes());
    }
}
