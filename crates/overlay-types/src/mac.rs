//! Ethernet addresses.

use core::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::SpecError;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of an endpoint with this IPv4 address: `02:42` and the four octets, as Docker
    /// forms it. Unique in a network because the IPv4 address is.
    pub const fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The address of an endpoint without an IPv4 address, from 32 bits that are unique in its
    /// network. `06:42` keeps it apart from every address of [`MacAddr::from_ipv4`].
    pub const fn from_unique(bits: u32) -> Self {
        let [a, b, c, d] = bits.to_be_bytes();
        Self([0x06, 0x42, a, b, c, d])
    }

    /// Whether the address names one station: the group bit is clear and it is not all zeros.
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether the group bit is set: broadcast or multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(|octet| format!("{octet:02x}")).collect();
        f.pad(&text.join(":"))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let error =
            || SpecError::new("mac", text, "a MAC address is six octets like 02:42:0a:00:00:02");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+'));
            *octet = u8::from_str_radix(part.ok_or_else(error)?, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(octets)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n15_mac_comes_from_the_ipv4_address() {
        let mac = MacAddr::from_ipv4(Ipv4Addr::new(10, 0, 1, 255));
        assert_eq!(mac.to_string(), "02:42:0a:00:01:ff");
        assert!(mac.is_unicast());
        assert!(MacAddr::from_unique(0).is_unicast());
    }

    #[test]
    fn text_is_strict() {
        assert_eq!("02:42:0A:00:01:ff".parse::<MacAddr>().unwrap().0, [2, 0x42, 10, 0, 1, 255]);
        for text in [
            "",
            "02",
            "02:42:0a:00:01",
            "02:42:0a:00:01:ff:00",
            "2:42:0a:00:01:ff",
            "+2:42:0a:00:01:ff",
            "02-42-0a-00-01-ff",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
