//! An IP header of whichever version its addresses are.

use core::net::IpAddr;

use super::{Malformed, ipv4::Ipv4Repr, ipv6::Ipv6Repr};

/// Time to live, or hop limit, of packets that are made here (RFC 1700).
const TTL: u8 = 64;

/// A header to write, without options or extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRepr {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Octets of the payload.
    pub payload_len: u16,
}

impl IpRepr {
    /// Appends the 20 or 40 octets. Refuses addresses of two versions.
    pub fn emit(self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let Self { protocol, payload_len, .. } = self;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Ipv4Repr { source, destination, protocol, payload_len, ttl: TTL }.emit(out);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Ipv6Repr { source, destination, protocol, payload_len, hop_limit: TTL }.emit(out);
            }
            _ => return Err(Malformed::Field),
        }
        Ok(())
    }
}
