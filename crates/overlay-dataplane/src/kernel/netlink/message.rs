//! A netlink request, built piece by piece.

use core::net::IpAddr;

use neli::consts::nl::NlmF;

use super::attribute::HEADER_LEN as ATTRIBUTE_LEN;

/// Octets of `struct nlmsghdr`: length, type, flags, sequence number, port.
pub(super) const HEADER_LEN: usize = 16;
/// Type bit of an attribute that holds attributes. Some kernels insist on it.
const NESTED: u16 = 0x8000;

/// One request. Its length is right at any time, its sequence number is the socket's to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Message(Vec<u8>);

impl Message {
    /// A request with a header of its family: `struct ifinfomsg`, `ndmsg` and so on.
    pub(in crate::kernel) fn new(kind: impl Into<u16>, flags: NlmF, header: &[u8]) -> Self {
        Self::with_room(kind, flags, header, 0)
    }

    /// As [`new`](Self::new), with room for `room` octets of attributes: what is secret is not left
    /// behind in a buffer that was too small.
    pub(in crate::kernel) fn with_room(
        kind: impl Into<u16>,
        flags: NlmF,
        header: &[u8],
        room: usize,
    ) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + header.len() + room);
        bytes.resize(HEADER_LEN, 0);
        bytes[4..6].copy_from_slice(&kind.into().to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NlmF::REQUEST).bits().to_ne_bytes());
        bytes.extend_from_slice(header);
        Self(bytes).measured()
    }

    /// Appends an attribute.
    pub(in crate::kernel) fn put(mut self, kind: impl Into<u16>, value: &[u8]) -> Self {
        self.begin(kind.into(), ATTRIBUTE_LEN + value.len());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.measured()
    }

    pub(in crate::kernel) fn put_u8(self, kind: impl Into<u16>, value: u8) -> Self {
        self.put(kind, &[value])
    }

    pub(in crate::kernel) fn put_u32(self, kind: impl Into<u16>, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    pub(in crate::kernel) fn put_ip(self, kind: impl Into<u16>, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.put(kind, &address.octets()),
            IpAddr::V6(address) => self.put(kind, &address.octets()),
        }
    }

    /// Appends a text with a zero at its end.
    pub(in crate::kernel) fn put_text(self, kind: impl Into<u16>, text: &[u8]) -> Self {
        self.put(kind, &[text, &[0]].concat())
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(in crate::kernel) fn nest(
        mut self,
        kind: impl Into<u16>,
        fill: impl FnOnce(Self) -> Self,
    ) -> Self {
        let start = self.0.len();
        self.begin(kind.into() | NESTED, 0);
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Appends bytes that are no attribute: the header of a message in a message.
    pub(in crate::kernel) fn append(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.measured()
    }

    /// Octets, header and all.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// What stands behind its header.
    #[cfg(test)]
    pub(in crate::kernel) fn payload(&self) -> &[u8] {
        &self.0[HEADER_LEN..]
    }

    /// The message with a sequence number, and flags beside its own.
    pub(super) fn numbered(mut self, sequence: u32, flags: NlmF) -> Vec<u8> {
        let all = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags.bits();
        self.0[6..8].copy_from_slice(&all.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    fn begin(&mut self, kind: u16, length: usize) {
        self.0.extend_from_slice(&(length as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    fn measured(mut self) -> Self {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self
    }
}

#[cfg(test)]
mod tests {
    use neli::consts::rtnl::Rtm;

    use super::*;

    #[test]
    fn a_message_is_the_bytes_that_iproute2_sends() {
        // strace of `ip link add br0 type bridge`, the device's kind only.
        let message = Message::new(Rtm::Newlink, NlmF::CREATE | NlmF::EXCL, &[0; 16])
            .put_text(3_u16, b"br0")
            .nest(18_u16, |info| info.put(1_u16, b"bridge"));
        let expected = [
            &[56, 0, 0, 0, 16, 0, 0x01, 0x06, 7, 0, 0, 0, 0, 0, 0, 0][..],
            &[0; 16],
            &[8, 0, 3, 0, b'b', b'r', b'0', 0],
            &[16, 0, 18, 0x80],
            &[10, 0, 1, 0, b'b', b'r', b'i', b'd', b'g', b'e', 0, 0],
        ];
        assert_eq!(message.clone().numbered(7, NlmF::empty()), expected.concat());
        assert_eq!(message.numbered(7, NlmF::ACK)[6], 0x05);
    }
}
