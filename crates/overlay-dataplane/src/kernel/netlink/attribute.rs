//! Attributes of a netlink message: type, length and value, padded to four octets.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_types::MacAddr;

/// Octets of an attribute's header.
pub(super) const HEADER_LEN: usize = 4;
/// Bits of the type field that say how the value is written, not what it is.
const FLAGS: u16 = 0xc000;

/// The attributes in some bytes, by reference.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::kernel) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(in crate::kernel) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Types and values, to the first attribute that is not whole.
    pub(in crate::kernel) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (header, _) = rest.split_first_chunk::<HEADER_LEN>()?;
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let kind = u16::from_ne_bytes([header[2], header[3]]) & !FLAGS;
            let value = rest.get(HEADER_LEN..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }

    /// Value of the first attribute of a type.
    pub(in crate::kernel) fn get(self, kind: impl Into<u16>) -> Option<&'a [u8]> {
        let kind = kind.into();
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes in an attribute; none when it is not there.
    pub(in crate::kernel) fn nested(self, kind: impl Into<u16>) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    pub(in crate::kernel) fn u8(self, kind: impl Into<u16>) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    /// A number in network order, as ports are written.
    pub(in crate::kernel) fn u16_be(self, kind: impl Into<u16>) -> Option<u16> {
        self.get(kind)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(in crate::kernel) fn u32(self, kind: impl Into<u16>) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    pub(in crate::kernel) fn mac(self, kind: impl Into<u16>) -> Option<MacAddr> {
        self.get(kind)?.try_into().ok().map(MacAddr)
    }

    pub(in crate::kernel) fn ip(self, kind: impl Into<u16>) -> Option<IpAddr> {
        let value = self.get(kind)?;
        let v4 = || <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into());
        let v6 = || <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into());
        v4().or_else(v6)
    }
}

/// The octets of a text without the zero at its end.
pub(in crate::kernel) fn text(value: &[u8]) -> &[u8] {
    value.split(|octet| *octet == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_read_to_the_first_that_is_not_whole() {
        // Type 3 "br0\0"; type 4 with the nested flag, 2 octets and padding; one cut off.
        let bytes = [
            8, 0, 3, 0, b'b', b'r', b'0', 0, //
            6, 0, 4, 0x80, 1, 2, 0, 0, //
            8, 0, 5, 0, 1,
        ];
        let attributes = Attributes::new(&bytes);
        let all: Vec<_> = attributes.iter().collect();
        assert_eq!(all, [(3, &b"br0\0"[..]), (4, &[1, 2][..])]);
        assert_eq!(attributes.get(3_u16).map(text), Some(&b"br0"[..]));
        assert_eq!(attributes.u16_be(4_u16), Some(0x0102));
        assert_eq!(attributes.get(5_u16), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            prop_assert!(Attributes::new(&bytes).iter().count() <= bytes.len() / HEADER_LEN);
        }
    }
}
