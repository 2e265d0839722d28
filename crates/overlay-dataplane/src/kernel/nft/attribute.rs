//! Netlink messages and attributes as nf_tables has them: numbers in network byte order.
//!
//! ```text
//! nlmsghdr 16 | nfgenmsg 4 | attribute | attribute | …
//! attribute: length 2 | type 2 | payload | padding to 4
//! ```

use crate::kernel::netlink;

/// Octets of `struct nlmsghdr`.
pub(super) const HEADER_LEN: usize = 16;
/// Octets of `struct nfgenmsg`, which follows it.
pub(super) const FAMILY_LEN: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Writes messages one behind the other.
#[derive(Debug, Default, Clone)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A whole message. The sequence number is left out.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        content: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        content(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn octets(&mut self, kind: u16, payload: &[u8]) {
        self.bytes.extend_from_slice(&(4 + payload.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    pub(super) fn u8(&mut self, kind: u16, value: u8) {
        self.octets(kind, &[value]);
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.octets(kind, &value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, kind: u16, value: u64) {
        self.octets(kind, &value.to_be_bytes());
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.octets(kind, &[text.as_bytes(), &[0]].concat());
    }

    pub(super) fn nest(&mut self, kind: u16, content: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.octets(kind | NESTED, &[]);
        content(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The attributes in a message or in another attribute. Ends at the first one that is malformed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Types and payloads.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        netlink::Attributes::new(self.0).iter()
    }

    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        netlink::Attributes::new(self.0).get(kind)
    }

    pub(super) fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn u64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    pub(super) fn nest(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }
}

/// A text that may end in a zero.
pub(super) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|octet| *octet == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

/// One message as it is received.
pub(super) type Message<'a> = netlink::Reply<'a>;

impl<'a> Message<'a> {
    /// The attributes behind `nfgenmsg`.
    pub(super) fn attributes(self) -> Attributes<'a> {
        Attributes(self.payload.get(FAMILY_LEN..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        for number in [1, 2] {
            writer.message(0x0a00, 1, 2, 10, |w| {
                w.text(1, "overlay");
                w.nest(2, |w| w.u32(3, number));
                w.u8(4, 7);
            });
        }
        let read: Vec<_> = netlink::replies(writer.bytes()).collect();
        assert_eq!(read.len(), 2);
        let read = read[1].attributes();
        assert_eq!(read.text(1).unwrap(), "overlay");
        assert_eq!(read.nest(2).unwrap().u32(3), Some(2));
        assert_eq!((read.u8(4), read.u8(5)), (Some(7), None));
    }

    proptest! {
        #[test]
        fn any_octets_come_to_an_end(octets: Vec<u8>) {
            for message in netlink::replies(&octets) {
                for (_, payload) in message.attributes().iter() {
                    Attributes(payload).iter().count();
                }
            }
        }
    }
}
