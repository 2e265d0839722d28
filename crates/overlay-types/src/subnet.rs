//! Subnets: a CIDR block whose host bits are zero.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::SpecError;

/// A CIDR block whose host bits are zero, of either family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNet);

impl Subnet {
    /// The block that `net` lies in: host bits are cleared.
    pub fn containing(net: IpNet) -> Self {
        Self(net.trunc())
    }

    /// The subnet in `text`, which must have no host bits; errors call it `field`.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, SpecError> {
        let net: IpNet = text.parse().map_err(|_| {
            SpecError::new(
                field,
                text,
                "a subnet is ADDRESS/LENGTH, like 10.0.9.0/24 or fd00:9::/64",
            )
        })?;
        Self::exact(field, net)
    }

    /// `net`, if its host bits are zero; errors call it `field`.
    pub fn exact(field: &'static str, net: IpNet) -> Result<Self, SpecError> {
        if net == net.trunc() {
            Ok(Self(net))
        } else {
            let reason = format!("it has host bits set; the subnet is {}", net.trunc());
            Err(SpecError::new(field, net, reason))
        }
    }

    /// The block as [`IpNet`].
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// First address: the network address.
    pub fn first(self) -> IpAddr {
        self.0.network()
    }

    /// Last address: for IPv4 the broadcast address.
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// Length of the prefix in bits.
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the block is IPv4.
    pub const fn is_ipv4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// Number of addresses; saturates at 2^128 - 1 for `::/0`.
    pub fn size(self) -> u128 {
        let host_bits = self.0.max_prefix_len() - self.0.prefix_len();
        if host_bits == 128 { u128::MAX } else { 1 << host_bits }
    }

    /// Whether `address` is in the block.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether `other` lies wholly in this block.
    pub fn contains_subnet(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether the two blocks share an address. Blocks are aligned, so one then contains the other.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains_subnet(other) || other.contains_subnet(self)
    }

    /// The address at `offset` from the first, if it is in the block.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        if offset >= self.size() {
            return None;
        }
        Some(match self.first() {
            IpAddr::V4(first) => {
                IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + u32::try_from(offset).ok()?))
            }
            IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() + offset)),
        })
    }

    /// Distance of `address` from the first address, if it is in the block.
    pub fn offset_of(self, address: IpAddr) -> Option<u128> {
        match (self.first(), address) {
            _ if !self.contains(address) => None,
            (IpAddr::V4(first), IpAddr::V4(a)) => Some(u128::from(a.to_bits() - first.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(a)) => Some(a.to_bits() - first.to_bits()),
            _ => None,
        }
    }
}

impl From<Ipv4Net> for Subnet {
    fn from(net: Ipv4Net) -> Self {
        Self::containing(net.into())
    }
}

impl From<Ipv6Net> for Subnet {
    fn from(net: Ipv6Net) -> Self {
        Self::containing(net.into())
    }
}

impl FromStr for Subnet {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse("subnet", text)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("10.0.0.0/8", "10.9.0.0/16", true)]
    #[case("10.9.0.0/16", "10.0.0.0/8", true)]
    #[case("10.0.0.0/24", "10.0.1.0/24", false)]
    #[case("0.0.0.0/0", "::/0", false)]
    #[case("fd00::/8", "fd00:9::/64", true)]
    fn overlap(#[case] a: &str, #[case] b: &str, #[case] expected: bool) {
        assert_eq!(subnet(a).overlaps(subnet(b)), expected);
    }

    #[test]
    fn host_bits_are_refused_with_the_subnet_meant() {
        let error = "10.0.9.1/24".parse::<Subnet>().unwrap_err();
        assert!(error.to_string().contains("10.0.9.0/24"), "{error}");
    }

    proptest! {
        #[test]
        fn nth_and_offset_are_inverse(bits: u32, length in 0_u8..=32, offset: u32) {
            let subnet = Subnet::from(Ipv4Net::new(bits.into(), length).unwrap());
            match subnet.nth(offset.into()) {
                Some(address) => prop_assert_eq!(subnet.offset_of(address), Some(offset.into())),
                None => prop_assert!(u128::from(offset) >= subnet.size()),
            }
        }
    }
}
