//! Address families, in the one octet that messages have for them.

use core::net::IpAddr;

pub(in crate::kernel) const UNSPECIFIED: u8 = 0;
pub(in crate::kernel) const V4: u8 = 2;
pub(in crate::kernel) const BRIDGE: u8 = 7;
pub(in crate::kernel) const V6: u8 = 10;

/// The family of an address.
pub(in crate::kernel) const fn of(address: IpAddr) -> u8 {
    if address.is_ipv4() { V4 } else { V6 }
}
