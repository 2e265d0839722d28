//! Which packets: `struct xfrm_selector`, and addresses as xfrm has them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::netlink::family;
use crate::wire::protocol;

/// Octets of `struct xfrm_selector`.
pub(super) const LEN: usize = 56;
/// Octets of `xfrm_address_t`, of either family.
pub(super) const ADDRESS_LEN: usize = 16;

/// UDP to a port, from and to one address or any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selector {
    /// `None` is any.
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) family: u8,
}

impl Selector {
    /// From anywhere to `destination`.
    pub(super) const fn to(destination: IpAddr, port: u16) -> Self {
        let family = family::of(destination);
        Self { source: None, destination: Some(destination), port, family }
    }

    /// From `source` to anywhere.
    pub(super) const fn from(source: IpAddr, port: u16) -> Self {
        Self { source: Some(source), destination: None, port, family: family::of(source) }
    }

    /// From one to the other.
    pub(super) const fn between(source: IpAddr, destination: IpAddr, port: u16) -> Self {
        Self { source: Some(source), ..Self::to(destination, port) }
    }

    pub(super) fn write(&self, bytes: &mut [u8]) {
        let whole = |address: Option<IpAddr>| match address {
            None => 0,
            Some(IpAddr::V4(_)) => 32,
            Some(IpAddr::V6(_)) => 128,
        };
        write_address(bytes, 0, self.destination);
        write_address(bytes, ADDRESS_LEN, self.source);
        // The destination's port, and a mask that keeps all of it.
        bytes[32..34].copy_from_slice(&self.port.to_be_bytes());
        bytes[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
        super::write_u16(bytes, 40, self.family.into());
        bytes[42] = whole(self.destination);
        bytes[43] = whole(self.source);
        bytes[44] = protocol::UDP;
    }

    /// `None` when it is another kind of selector.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let family = *bytes.get(40..42)?.iter().max()?;
        let address = |at, length: u8| match length {
            0 => Some(None),
            32 | 128 => read_address(bytes, at, family).map(Some),
            _ => None,
        };
        let selector = Self {
            destination: address(0, *bytes.get(42)?)?,
            source: address(ADDRESS_LEN, *bytes.get(43)?)?,
            port: u16::from_be_bytes([bytes[32], bytes[33]]),
            family,
        };
        let mut again = [0; LEN];
        selector.write(&mut again);
        (bytes.get(..LEN)? == again).then_some(selector)
    }
}

pub(super) fn write_address(bytes: &mut [u8], at: usize, address: Option<IpAddr>) {
    match address {
        None => {}
        Some(IpAddr::V4(address)) => bytes[at..at + 4].copy_from_slice(&address.octets()),
        Some(IpAddr::V6(address)) => bytes[at..at + ADDRESS_LEN].copy_from_slice(&address.octets()),
    }
}

pub(super) fn read_address(bytes: &[u8], at: usize, family: u8) -> Option<IpAddr> {
    let octets: [u8; ADDRESS_LEN] = bytes.get(at..at + ADDRESS_LEN)?.try_into().ok()?;
    match family {
        family::V4 => {
            let v4: [u8; 4] = *octets.first_chunk()?;
            Some(Ipv4Addr::from(v4).into())
        }
        family::V6 => Some(Ipv6Addr::from(octets).into()),
        _ => None,
    }
}
