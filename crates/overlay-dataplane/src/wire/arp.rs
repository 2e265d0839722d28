//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use overlay_types::MacAddr;

use super::{Malformed, read_array, read_u16};

/// Octets of an ARP packet for IPv4 over Ethernet.
pub const LEN: usize = 28;

/// What an ARP packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpRepr {
    /// Request or reply.
    pub operation: Operation,
    /// Hardware address of the sender.
    pub sender_mac: MacAddr,
    /// Protocol address of the sender; zero in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Hardware address of the target; anything in a request.
    pub target_mac: MacAddr,
    /// Protocol address of the target.
    pub target_ip: Ipv4Addr,
}

impl ArpRepr {
    /// The packet in `bytes`, which may be followed by Ethernet padding.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() < LEN {
            return Err(Malformed::Truncated);
        }
        // Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
        if bytes[..6] != [0, 1, 8, 0, 6, 4] {
            return Err(Malformed::Field);
        }
        let operation = match read_u16(bytes, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Field),
        };
        Ok(Self {
            operation,
            sender_mac: MacAddr(read_array(bytes, 8)),
            sender_ip: read_array(bytes, 14).into(),
            target_mac: MacAddr(read_array(bytes, 18)),
            target_ip: read_array(bytes, 24).into(),
        })
    }

    /// Appends the 28 octets.
    pub fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0]);
        out.push(match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        });
        out.extend_from_slice(&self.sender_mac.0);
        out.extend_from_slice(&self.sender_ip.octets());
        out.extend_from_slice(&self.target_mac.0);
        out.extend_from_slice(&self.target_ip.octets());
    }
}
