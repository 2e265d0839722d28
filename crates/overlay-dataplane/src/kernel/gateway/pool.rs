//! Addresses of the gateway bridge and of the uplinks on it. Pure.
//!
//! Nothing is remembered: what an uplink has is what it keeps. A new one gets the first free address
//! from a place that its endpoint's id says, so that an address that was just given up, and that old
//! flows still go to, is not the next one's.

use core::net::IpAddr;
use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_types::{Addresses, Subnet};

use crate::Error;

/// Offset of the bridge's own address in a subnet.
const GATEWAY: u128 = 1;
/// Addresses that are neither the network's, the bridge's nor for broadcast have offsets from here.
const FIRST: u128 = 2;
/// Hosts of a subnet that are used at most: a /64 has more than can be counted.
const MOST: u128 = 1 << 32;

/// Subnets that are tried when none is configured: the rest of what Docker takes from. Overlay
/// networks have 10.0.0.0/8.
fn candidates() -> impl Iterator<Item = Subnet> {
    let large = (18..32).map(|second| ([172, second, 0, 0], 16));
    let small = (0..16).map(|third| ([192, 168, third * 16, 0], 20));
    large.chain(small).filter_map(|(first, length)| {
        IpNet::new(IpAddr::from(first), length).ok().map(Subnet::containing)
    })
}

/// Subnets for a new bridge, with its address in each: those that are configured, or a free one.
pub(super) fn choose(configured: &[Subnet], used: &[Subnet]) -> Result<Vec<IpNet>, Error> {
    let overlapped = |subnet: Subnet| used.iter().copied().find(|other| other.overlaps(subnet));
    for subnet in configured {
        if let Some(other) = overlapped(*subnet) {
            return Err(Error::GatewayOverlap { subnet: *subnet, other });
        }
    }
    if !configured.is_empty() {
        return Ok(configured.iter().filter_map(|subnet| with_gateway(*subnet)).collect());
    }
    let free = candidates().find(|subnet| overlapped(*subnet).is_none());
    Ok(vec![free.and_then(with_gateway).ok_or(Error::NoGatewaySubnet)?])
}

/// A subnet with the bridge's address in it.
pub(super) fn with_gateway(subnet: Subnet) -> Option<IpNet> {
    IpNet::new(subnet.nth(GATEWAY)?, subnet.prefix_len()).ok()
}

/// Addresses of one uplink: those that it has and may keep, else free ones of each of the bridge's
/// subnets. `taken` gets them.
pub(super) fn assign(
    bridge: &[IpNet],
    has: &[IpNet],
    seed: u128,
    taken: &mut BTreeSet<IpAddr>,
) -> Result<Vec<IpNet>, Error> {
    let mut assigned = Vec::new();
    for net in bridge {
        let subnet = Subnet::containing(*net);
        let kept = has.iter().find(|has| Subnet::containing(**has) == subnet);
        let address = match kept.filter(|kept| !taken.contains(&kept.addr())) {
            Some(kept) => kept.addr(),
            None => free(subnet, seed, taken).ok_or(Error::GatewayFull(subnet))?,
        };
        assigned.extend(IpNet::new(address, subnet.prefix_len()).ok());
    }
    taken.extend(assigned.iter().map(IpNet::addr));
    Ok(assigned)
}

fn free(subnet: Subnet, seed: u128, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let last = if subnet.is_ipv4() { subnet.size().checked_sub(1)? } else { subnet.size() };
    let count = last.checked_sub(FIRST)?.min(MOST);
    let start = scatter(seed).checked_rem(count)?;
    // Of so many, one is free, unless there are no more.
    let tries = count.min(taken.len() as u128 + 1);
    let offsets = (0..tries).map(|step| FIRST + (start + step) % count);
    offsets.filter_map(|offset| subnet.nth(offset)).find(|address| !taken.contains(address))
}

/// Ids that follow one another lie apart.
const fn scatter(seed: u128) -> u128 {
    // 2^64 divided by the golden ratio: Knuth, The Art of Computer Programming 3, 6.4.
    let folded = (seed ^ seed >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u128
}

/// At most one address of each version of IP.
pub(super) fn addresses(nets: &[IpNet]) -> Addresses {
    nets.iter().rev().map(IpNet::addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse("subnet", text).unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn n18_a_subnet_is_chosen_that_the_host_does_not_route() {
        let chosen = |used: &[&str]| {
            let used: Vec<_> = used.iter().map(|text| subnet(text)).collect();
            choose(&[], &used).map(|nets| nets[0].to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(chosen(&[]), Ok("172.18.0.1/16".into()));
        assert_eq!(chosen(&["172.18.3.0/24", "172.19.0.0/16"]), Ok("172.20.0.1/16".into()));
        assert_eq!(chosen(&["172.16.0.0/12"]), Ok("192.168.0.1/20".into()));
        let all = chosen(&["172.16.0.0/12", "192.168.0.0/16"]).unwrap_err();
        assert!(all.contains("gateway-subnet"), "{all}");
        // The configured ones and no others.
        let own = [subnet("192.0.2.0/24"), subnet("fd00:9::/64")];
        assert_eq!(choose(&own, &[]).unwrap(), [net("192.0.2.1/24"), net("fd00:9::1/64")]);
        let error = choose(&own, &[subnet("fd00::/16")]).unwrap_err().to_string();
        assert!(error.contains("fd00:9::/64") && error.contains("fd00::/16"), "{error}");
    }

    #[test]
    fn n18_an_address_that_is_there_is_kept_and_no_two_have_one() {
        let bridge = [net("192.0.2.1/29"), net("fd00:9::1/64")];
        let mut taken: BTreeSet<IpAddr> = bridge.iter().map(IpNet::addr).collect();
        let kept = [net("192.0.2.4/29")];
        let first = assign(&bridge, &kept, 7, &mut taken).unwrap();
        assert_eq!(first[0], kept[0]);
        // The second one has the same: it gets another.
        let mut all = vec![first.clone(), assign(&bridge, &kept, 7, &mut taken).unwrap()];
        for seed in 0..3 {
            all.push(assign(&bridge, &[], seed, &mut taken).unwrap());
        }
        let (v4, v6): (BTreeSet<_>, BTreeSet<_>) =
            all.iter().map(|nets| (nets[0], nets[1])).unzip();
        assert_eq!((v4.len(), v6.len()), (5, 5));
        let hosts = (2..7).map(|host| net(&format!("192.0.2.{host}/29")));
        assert!(hosts.eq(v4), "neither the network's, nor the bridge's, nor the broadcast address");
        let full = assign(&bridge, &[], 9, &mut taken).unwrap_err().to_string();
        assert!(full.contains("192.0.2.0/29"), "{full}");
    }

    #[test]
    fn n18_an_address_that_was_given_up_is_not_the_next_ones() {
        let bridge = [net("172.18.0.1/16")];
        let assigned = (0..100).map(|seed| {
            let mut taken = bridge.iter().map(IpNet::addr).collect();
            assign(&bridge, &[], seed, &mut taken).unwrap()[0]
        });
        assert!(assigned.collect::<BTreeSet<_>>().len() > 95);
    }
}
