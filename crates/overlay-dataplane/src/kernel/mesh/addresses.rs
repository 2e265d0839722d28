//! Addresses of the cable between host and gate, and the virtual addresses of services behind it. Pure.
//!
//! They mean something on one host only. Nothing is remembered: what the kernel has stays.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use overlay_types::{Addresses, ServiceId, Subnet};

use crate::Error;

/// The gate's number; the host's is one less. A subnet of four has both ends.
const GATE: u16 = 2;
const ENDS_V4: u8 = 30;
const ENDS_V6: u8 = 126;
/// Numbers of virtual addresses.
const FIRST: u16 = 4;
const LAST: u16 = 0xfffe;
/// What lies above the number in a virtual address of IPv6.
const VIRTUAL_V6: u128 = 1 << 16;
/// First half of the subnet of IPv6: "mesh" in the range for everybody's own use (RFC 4193), and
/// seven more for hosts that route that.
const BASE_V6: [u16; 3] = [0xfd6d, 0x6573, 0x6800];

/// Services, and the numbers of their virtual addresses.
pub(super) type Numbers = BTreeMap<ServiceId, u16>;

/// The subnets of the cable, by their first addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cable {
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
}

impl Cable {
    /// The subnets that addresses of either end say.
    pub(super) fn read(ends: &[IpNet]) -> Option<Self> {
        let Addresses { v4, v6 } = bases(ends);
        Some(Self { v4: v4?, v6 })
    }

    /// Subnets that nobody uses, where the ends do not say some.
    pub(super) fn choose(ends: &[IpNet], used: &[Subnet], ipv6: bool) -> Result<Self, Error> {
        let known = bases(ends);
        let is_free = |subnet: &Option<IpNet>| {
            let subnet = subnet.map(Subnet::containing);
            subnet.is_some_and(|subnet| !used.iter().any(|other| other.overlaps(subnet)))
        };
        let free_v4 = || candidates_v4().find(|first| is_free(&net((*first).into(), 16)));
        let free_v6 = || candidates_v6().find(|first| is_free(&net((*first).into(), 64)));
        let v4 = known.v4.or_else(free_v4).ok_or(Error::NoMeshSubnet)?;
        let v6 = known.v6.or_else(free_v6);
        Ok(Self { v4, v6: if ipv6 { Some(v6.ok_or(Error::NoMeshSubnet)?) } else { None } })
    }

    /// Whether virtual addresses of some cable are in exactly this subnet.
    pub(super) fn may_have(subnet: Subnet) -> bool {
        let v6 = candidates_v6().map(|first| Self { v4: Ipv4Addr::UNSPECIFIED, v6: Some(first) });
        let v4 = candidates_v4().map(|v4| Self { v4, v6: None });
        v4.chain(v6).any(|cable| cable.virtual_subnets().contains(&subnet))
    }

    /// Whether it has IPv6; IPv4 it has always.
    pub(super) const fn has_v6(&self) -> bool {
        self.v6.is_some()
    }

    /// The host's addresses on the cable.
    pub(super) fn host(&self) -> Vec<IpNet> {
        self.ends(GATE - 1)
    }

    /// The gate's.
    pub(super) fn gate(&self) -> Vec<IpNet> {
        self.ends(GATE)
    }

    fn ends(&self, number: u16) -> Vec<IpNet> {
        let v4 = net(below_v4(self.v4, number).into(), ENDS_V4);
        let v6 = self.v6.and_then(|first| net(below_v6(first, number.into()).into(), ENDS_V6));
        v4.into_iter().chain(v6).collect()
    }

    /// Where all virtual addresses are.
    pub(super) fn virtual_subnets(&self) -> Vec<Subnet> {
        let v4 = net(self.v4.into(), 16);
        let v6 = self.v6.and_then(|first| net(below_v6(first, VIRTUAL_V6).into(), 112));
        v4.into_iter().chain(v6).map(Subnet::containing).collect()
    }

    /// Virtual addresses with a number, of the versions of IP that `has` says.
    pub(super) fn addresses(&self, number: u16, has: [bool; 2]) -> Addresses {
        let v6 = self.v6.filter(|_| has[1]);
        Addresses {
            v4: has[0].then(|| below_v4(self.v4, number)),
            v6: v6.map(|first| below_v6(first, VIRTUAL_V6 + u128::from(number))),
        }
    }

    /// The number of virtual addresses, if these are some.
    pub(super) fn number(&self, addresses: Addresses) -> Option<u16> {
        let number = match addresses {
            Addresses { v4: Some(v4), .. } => v4.to_bits() as u16,
            Addresses { v6: Some(v6), .. } => v6.to_bits() as u16,
            _ => return None,
        };
        let has = [addresses.v4.is_some(), addresses.v6.is_some()];
        (self.addresses(number, has) == addresses && (FIRST..=LAST).contains(&number))
            .then_some(number)
    }
}

/// First addresses of the subnets that these are in, as a cable has them.
fn bases(ends: &[IpNet]) -> Addresses {
    let base = |net: &IpNet| {
        let (is_v4, length) = (net.addr().is_ipv4(), net.prefix_len());
        (length == if is_v4 { ENDS_V4 } else { ENDS_V6 }).then(|| net.network())
    };
    ends.iter().filter_map(base).collect()
}

/// Gives services their numbers. One that has a number keeps it; a new one gets the first that is free
/// from a place that its id says, so that what was given up is nobody's for a while. Services for which
/// there is none are left out.
pub(super) fn number(known: &Numbers, services: impl Iterator<Item = ServiceId>) -> Numbers {
    let (mut numbers, mut new) = (Numbers::new(), Vec::new());
    for id in services {
        match known.get(&id) {
            Some(number) => drop(numbers.insert(id, *number)),
            None => new.push(id),
        }
    }
    if new.is_empty() {
        return numbers;
    }
    let taken: BTreeSet<u16> = numbers.values().copied().collect();
    let mut free: BTreeSet<u16> = (FIRST..=LAST).filter(|number| !taken.contains(number)).collect();
    for id in new {
        let start = FIRST + scatter(id.to_u128()) % (LAST - FIRST + 1);
        let Some(number) = free.range(start..).chain(&free).next().copied() else { break };
        free.remove(&number);
        numbers.insert(id, number);
    }
    numbers
}

/// Services that there are virtual addresses for.
pub(super) const fn most_services() -> usize {
    (LAST - FIRST) as usize + 1
}

/// Ids that follow one another lie apart.
const fn scatter(id: u128) -> u16 {
    // 2^64 divided by the golden ratio: Knuth, The Art of Computer Programming 3, 6.4.
    let folded = (id ^ id >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u16
}

/// The range for tests of routers (RFC 2544), which nobody routes, and what Docker takes from.
fn candidates_v4() -> impl Iterator<Item = Ipv4Addr> {
    let benchmarks = [19, 18].map(|second| Ipv4Addr::new(198, second, 0, 0));
    benchmarks.into_iter().chain((16..32).rev().map(|second| Ipv4Addr::new(172, second, 0, 0)))
}

fn candidates_v6() -> impl Iterator<Item = Ipv6Addr> {
    let [a, b, c] = BASE_V6;
    (0..8).map(move |more| Ipv6Addr::new(a, b, c + more, 0, 0, 0, 0, 0))
}

fn below_v4(first: Ipv4Addr, number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() | u32::from(number))
}

fn below_v6(first: Ipv6Addr, number: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(first.to_bits() | number)
}

fn net(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(all: &[&str]) -> Vec<Subnet> {
        all.iter().map(|text| Subnet::parse("subnet", text).unwrap()).collect()
    }

    #[test]
    fn s10_the_cable_has_subnets_that_the_host_does_not_route_and_keeps_them() {
        let shown = |cable: &Cable| {
            let ends = [cable.host(), cable.gate()].concat();
            ends.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let first = Cable::choose(&[], &[], true).unwrap();
        let expected =
            ["198.19.0.1/30", "fd6d:6573:6800::1/126", "198.19.0.2/30", "fd6d:6573:6800::2/126"];
        assert_eq!(shown(&first), expected);
        assert_eq!(Cable::read(&first.host()), Some(first));
        assert_eq!(Cable::read(&first.gate()), Some(first));
        // What is missing is added, wherever the rest is.
        let taken = used(&["198.18.0.0/15", "172.31.0.0/20"]);
        assert_eq!(Cable::choose(&first.host()[..1], &taken, true).unwrap(), first);
        let other = Cable::choose(&[], &taken, false).unwrap();
        assert_eq!(shown(&other), ["172.30.0.1/30", "172.30.0.2/30"]);
        assert!(first.virtual_subnets().into_iter().all(Cable::may_have));
        assert!(!used(&["198.19.0.0/24", "10.0.0.0/16"]).into_iter().any(Cable::may_have));
        let all = used(&["198.18.0.0/15", "172.16.0.0/12"]);
        assert!(matches!(Cable::choose(&[], &all, false), Err(Error::NoMeshSubnet)));
    }

    #[test]
    fn s10_a_service_keeps_its_virtual_addresses_and_no_two_have_one() {
        let cable = Cable::choose(&[], &[], true).unwrap();
        let ids = (1..2000).map(ServiceId::from_u128);
        let first = number(&Numbers::new(), ids.clone());
        assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 1999);
        let second = number(&first, ids.skip(1000));
        assert!(second.iter().all(|(id, number)| first[id] == *number));
        for number in first.values() {
            for has in [[true, true], [true, false], [false, true]] {
                let addresses = cable.addresses(*number, has);
                assert_eq!(cable.number(addresses), Some(*number));
                let subnets = cable.virtual_subnets();
                assert!(addresses.iter().all(|a| subnets.iter().any(|s| s.contains(a))));
            }
        }
        assert_eq!(
            number(&Numbers::new(), (0..70_000).map(ServiceId::from_u128)).len(),
            most_services()
        );
    }
}
