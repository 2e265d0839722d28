//! Packet formats as checked views over bytes and as values that are written.
//!
//! A view exists only over bytes that hold the whole header with lengths that agree; its getters
//! cannot fail. A `Repr` can only hold what may be on the wire and appends itself to a buffer.

pub mod announcement;
pub mod arp;
pub mod checksum;
pub mod dissection;
pub mod ethernet;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod sctp;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod udp;
pub mod vxlan;

/// Why bytes are not the packet they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the header needs.
    #[error("packet is shorter than its header")]
    Truncated,
    /// A version, type or operation field has a value that this format does not have.
    #[error("packet has a field value that its format does not know")]
    Field,
    /// A length field contradicts the header or the bytes that are there.
    #[error("packet has a length field that contradicts its size")]
    Length,
    /// A checksum does not match.
    #[error("packet has a wrong checksum")]
    Checksum,
}

/// IP protocol numbers (IANA) that this crate tells apart.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// The two octets at `at`. The caller has checked the length.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The four octets at `at`. The caller has checked the length.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes two octets at `at`.
pub(crate) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes four octets at `at`.
pub(crate) fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The `N` octets at `at`. The caller has checked the length.
pub(crate) fn read_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
