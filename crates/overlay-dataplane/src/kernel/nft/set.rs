//! Sets and maps, and what is in them.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::expr::Verdict;

/// A part of a key or of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// An Ethernet address.
    Mac,
    /// The number of an IP protocol.
    Protocol,
    /// A port of TCP, UDP or SCTP.
    Port,
    /// A number of 32 bits in the host's byte order.
    Mark,
    /// The name of a network device.
    Device,
    /// What an Ethernet frame carries.
    EtherType,
}

impl Field {
    const ALL: [Self; 8] = [
        Self::Ipv4,
        Self::Ipv6,
        Self::Mac,
        Self::Protocol,
        Self::Port,
        Self::Mark,
        Self::Device,
        Self::EtherType,
    ];

    /// Octets of a value.
    pub const fn size(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port | Self::EtherType => 2,
            Self::Ipv4 | Self::Mark => 4,
            Self::Mac => 6,
            Self::Ipv6 | Self::Device => 16,
        }
    }

    /// The `nft` command's number of the type, of 6 bits. The kernel only keeps it.
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Mac => 9,
            Self::EtherType => 10,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::Device => 41,
        }
    }

    const fn is_host_order(self) -> bool {
        matches!(self, Self::Mark | Self::Device)
    }
}

/// The type number of one field, or of several one behind the other.
pub(super) fn type_number(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | field.number())
}

/// The fields that a type number stands for, if all are known here.
pub(super) fn fields(mut number: u32) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while number != 0 {
        fields.push(*Field::ALL.iter().find(|field| field.number() == number & 0x3f)?);
        number >>= 6;
    }
    fields.reverse();
    Some(fields).filter(|fields| !fields.is_empty())
}

/// Octets of one field, or of several, each of them padded to 4.
pub(super) fn length(fields: &[Field]) -> usize {
    match fields {
        [one] => one.size(),
        several => several.iter().map(|field| field.size().next_multiple_of(4)).sum(),
    }
}

/// `BYTEORDER_*` of the `nft` command, which it wants to be told.
pub(super) fn byte_order(fields: &[Field]) -> u32 {
    if matches!(fields, [one] if one.is_host_order()) { 1 } else { 2 }
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// Fields of a key; several are a concatenation.
    pub key: Vec<Field>,
    /// What a key leads to; `None` for a plain set.
    pub data: Option<DataSpec>,
    /// Keys are ranges.
    pub interval: bool,
    /// Packets fill it; what they put in is not read back.
    pub filled: Option<Filled>,
}

/// A set that rules put elements in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// How long an element stays that nothing puts in again, in milliseconds.
    pub timeout_ms: u64,
    /// How many there are at most.
    pub size: u32,
}

impl SetSpec {
    /// A plain set.
    pub fn set(key: impl Into<Vec<Field>>) -> Self {
        Self { key: key.into(), data: None, interval: false, filled: None }
    }

    /// A map to values.
    pub fn map(key: impl Into<Vec<Field>>, data: impl Into<Vec<Field>>) -> Self {
        Self { data: Some(DataSpec::Value(data.into())), ..Self::set(key) }
    }

    /// A map to verdicts.
    pub fn verdict_map(key: impl Into<Vec<Field>>) -> Self {
        Self { data: Some(DataSpec::Verdict), ..Self::set(key) }
    }

    /// The same for ranges of keys.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.interval = true;
        self
    }

    /// The same, for packets to fill.
    #[must_use]
    pub const fn filled(mut self, timeout_ms: u64, size: u32) -> Self {
        self.filled = Some(Filled { timeout_ms, size });
        self
    }
}

/// What a map's keys lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSpec {
    /// Fields, which a look-up loads.
    Value(Vec<Field>),
    /// What to do.
    Verdict,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub spec: SetSpec,
    /// What is in it.
    pub elements: BTreeMap<Key, Option<Data>>,
}

impl Set {
    /// A set with nothing in it.
    pub const fn new(spec: SetSpec) -> Self {
        Self { spec, elements: BTreeMap::new() }
    }
}

/// A key, or a range of keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The key, or the lowest one.
    pub first: Vec<u8>,
    /// The highest one, of a set of ranges.
    pub last: Option<Vec<u8>>,
}

impl Key {
    /// One key of these fields.
    pub fn new(fields: &[&[u8]]) -> Self {
        Self { first: concatenate(fields), last: None }
    }

    /// All keys from one to another, both included, field by field.
    pub fn range(first: &[&[u8]], last: &[&[u8]]) -> Self {
        Self { first: concatenate(first), last: Some(concatenate(last)) }
    }
}

/// What a key of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Octets of fields.
    Value(Vec<u8>),
    /// What to do.
    Verdict(Verdict),
}

impl Data {
    /// The value of these fields.
    pub fn new(fields: &[&[u8]]) -> Self {
        Self::Value(concatenate(fields))
    }
}

/// One field as it is, several padded to 4 octets each: what lies in registers.
pub fn concatenate(fields: &[&[u8]]) -> Vec<u8> {
    if let [one] = fields {
        return one.to_vec();
    }
    let mut octets = Vec::with_capacity(fields.iter().map(|f| f.len().next_multiple_of(4)).sum());
    for field in fields {
        octets.extend_from_slice(field);
        octets.resize(octets.len().next_multiple_of(4), 0);
    }
    octets
}

/// The octets of an address.
pub fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The address that these octets are.
pub fn to_address(octets: &[u8]) -> Option<IpAddr> {
    match <[u8; 4]>::try_from(octets) {
        Ok(v4) => Some(v4.into()),
        Err(_) => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
    }
}

/// The octets of a device's name. One of more than 15 is no device's and stays none's.
pub fn device(name: &str) -> [u8; 16] {
    let mut octets = [0; 16];
    let length = name.len().min(16);
    octets[..length].copy_from_slice(&name.as_bytes()[..length]);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_padded_in_concatenations_only() {
        assert_eq!(concatenate(&[&[0, 80]]), [0, 80]);
        assert_eq!(concatenate(&[&[6], &[0, 80]]), [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(length(&[Field::Port]), 2);
        assert_eq!(length(&[Field::Ipv6, Field::Protocol, Field::Port]), 24);
    }

    #[test]
    fn type_numbers_are_read_back() {
        let key = [Field::Ipv4, Field::Protocol, Field::Port];
        assert_eq!(type_number(&key), (7 << 12) + (12 << 6) + 13);
        assert_eq!(fields(type_number(&key)).unwrap(), key);
        assert_eq!((fields(0), fields(63)), (None, None));
    }
}
