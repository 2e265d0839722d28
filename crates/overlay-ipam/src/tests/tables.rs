//! Layout, order and growth, as tables.

use rstest::rstest;

use super::{ip, network, spec};
use crate::{AddressState, Family, IpamError, NetworkIpam, QUARANTINE_LIMIT, Request, Reservation};

#[rstest]
#[case("10.0.9.0/24", "10.0.9.1", "10.0.9.2", 3, 253)]
#[case("10.0.9.0/24 gateway=10.0.9.254", "10.0.9.254", "10.0.9.1", 3, 253)]
#[case("10.0.9.0/24 a=10.0.9.1 b=10.0.9.3", "10.0.9.2", "10.0.9.4", 5, 251)]
#[case("10.0.9.0/24 range=10.0.9.64/26", "10.0.9.1", "10.0.9.64", 3, 64)]
#[case("10.0.9.0/24 range=10.0.9.192/26", "10.0.9.1", "10.0.9.192", 3, 63)]
#[case("10.0.9.0/24 range=10.0.9.0/30 a=10.0.9.2", "10.0.9.1", "10.0.9.3", 4, 1)]
#[case("10.0.9.0/30", "10.0.9.1", "10.0.9.2", 3, 1)]
#[case("10.0.0.0/8", "10.0.0.1", "10.0.0.2", 3, (1 << 24) - 3)]
#[case("64.0.0.0/4", "64.0.0.1", "64.0.0.2", 3, (1 << 28) - 3)]
#[case("fd00:9::/64", "fd00:9::1", "fd00:9::2", 2, (1 << 64) - 2)]
#[case("fd00:9::/64 range=fd00:9::ff00/120", "fd00:9::1", "fd00:9::ff00", 2, 256)]
#[case("fd00:9::/126", "fd00:9::1", "fd00:9::2", 2, 2)]
#[case("fd00::/8", "fd00::1", "fd00::2", 2, (1 << 120) - 2)]
fn n01_n12_layout(
    #[case] text: &str,
    #[case] gateway: &str,
    #[case] first: &str,
    #[case] reserved: u128,
    #[case] available: u128,
) {
    let mut ipam = network(&[text]);
    let subnet = ipam.subnets().next().unwrap();
    let usage = ipam.usage().next().unwrap();
    assert_eq!(subnet.gateway, ip(gateway));
    assert_eq!((usage.reserved, usage.available), (reserved, available));
    assert_eq!(usage.size, usage.reserved + usage.free);
    assert_eq!(ipam.allocate(Family::of(ip(first))), Ok(ip(first)));
}

#[rstest]
#[case("10.0.9.0/28", 13, "10.0.9.14")]
#[case("10.0.9.0/28 range=10.0.9.8/29", 7, "10.0.9.14")]
#[case("10.0.0.0/20", 4093, "10.0.15.254")]
#[case("10.0.0.0/19", 8189, "10.0.31.254")]
#[case("fd00::/120", 254, "fd00::ff")]
fn r01_all_are_given_once_and_the_edges_never(
    #[case] text: &str,
    #[case] count: usize,
    #[case] last: &str,
) {
    let mut ipam = network(&[text]);
    let family = Family::of(ip(last));
    let given: Vec<_> = (0..count).map(|_| ipam.allocate(family).unwrap()).collect();
    assert!(given.is_sorted_by(|a, b| a < b), "each once, in order");
    assert_eq!(given.last(), Some(&ip(last)));
    assert!(matches!(ipam.allocate(family), Err(IpamError::Exhausted { .. })));
    let subnet = ipam.subnets().next().unwrap().subnet;
    assert!(!given.contains(&subnet.first()));
    assert_eq!(given.contains(&subnet.last()), family == Family::V6);
    assert_eq!(ipam.allocated().collect::<Vec<_>>(), given);
}

#[test]
fn n03_reuse_is_oldest_first_and_only_when_nothing_else_is_left() {
    let mut ipam = network(&["10.0.9.0/29"]);
    let given: Vec<_> = (0..3).map(|_| ipam.allocate(Family::V4).unwrap()).collect();
    for at in [1, 0, 2] {
        ipam.release(given[at]).unwrap();
    }
    let next: Vec<_> = (0..5).map(|_| ipam.allocate(Family::V4).unwrap()).collect();
    let expected = ["10.0.9.5", "10.0.9.6"].map(ip).into_iter();
    assert_eq!(next, expected.chain([given[1], given[0], given[2]]).collect::<Vec<_>>());
}

#[test]
fn an_address_leaves_quarantine_after_enough_other_releases() {
    let mut ipam = network(&["10.0.0.0/16"]);
    let given: Vec<_> =
        (0..=QUARANTINE_LIMIT).map(|_| ipam.allocate(Family::V4).unwrap()).collect();
    for address in &given[..QUARANTINE_LIMIT] {
        ipam.release(*address).unwrap();
    }
    assert_eq!(ipam.state(given[0]), Ok(AddressState::Quarantined));
    ipam.release(given[QUARANTINE_LIMIT]).unwrap();
    assert_eq!(ipam.state(given[0]), Ok(AddressState::Free));
    assert_eq!(ipam.state(given[1]), Ok(AddressState::Quarantined));
    assert_eq!(ipam.usage().next().unwrap().quarantined, QUARANTINE_LIMIT as u128);
}

#[test]
fn the_search_goes_around_the_end_of_the_range() {
    let mut ipam = network(&["10.0.8.0/23"]);
    // The cursor stops at the last address, which is taken.
    ipam.allocate(ip("10.0.9.254")).unwrap();
    let given: Vec<_> = (0..508).map(|_| ipam.allocate(Family::V4).unwrap()).collect();
    for address in given.iter().rev().take(QUARANTINE_LIMIT + 2) {
        ipam.release(*address).unwrap();
    }
    let free = [given[506], given[507]];
    assert_eq!(free.map(|_| ipam.allocate(Family::V4).unwrap()), free);
    // Nothing is free any more: the oldest in quarantine.
    assert_eq!(ipam.allocate(Family::V4), Ok(given[505]));
}

#[test]
fn a_request_by_name_takes_an_address_out_of_quarantine() {
    let mut ipam = network(&["10.0.9.0/24"]);
    let address = ipam.allocate(Family::V4).unwrap();
    ipam.release(address).unwrap();
    assert_eq!(ipam.allocate(address), Ok(address));
    assert_eq!(ipam.state(address), Ok(AddressState::Allocated));
    let usage = ipam.usage().next().unwrap();
    assert_eq!((usage.used, usage.quarantined, usage.free), (1, 0, 252));
}

#[test]
fn outside_the_ip_range_only_by_name() {
    let mut ipam = network(&["10.0.9.0/24 range=10.0.9.8/31"]);
    let named = ip("10.0.9.200");
    assert_eq!(ipam.allocate(named), Ok(named));
    ipam.release(named).unwrap();
    assert_eq!(ipam.state(named), Ok(AddressState::Free));
    for expected in ["10.0.9.8", "10.0.9.9"] {
        assert_eq!(ipam.allocate(Family::V4), Ok(ip(expected)));
    }
    let error = ipam.allocate(Family::V4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not enough free IPv4 addresses (10.0.9.0/24: 2 used, 3 reserved, 251 free outside its ip-range); \
         release some or add a subnet"
    );
}

#[test]
fn n14_what_is_free_is_not_said_to_be_outside_the_range() {
    let mut ipam = network(&["10.0.9.0/29", "10.0.8.0/24 range=10.0.8.8/31"]);
    let shown = |ipam: &NetworkIpam| ipam.usage().map(|u| u.to_string()).collect::<Vec<_>>();
    let ranged = "10.0.8.0/24: 0 used, 3 reserved, 2 free, 251 more outside its ip-range";
    assert_eq!(shown(&ipam), ["10.0.9.0/29: 0 used, 3 reserved, 5 free", ranged]);
    let address = ipam.allocate(Family::V4).unwrap();
    ipam.release(address).unwrap();
    assert_eq!(shown(&ipam), ["10.0.9.0/29: 0 used, 3 reserved, 5 free", ranged]);

    let error = network(&["10.0.9.0/30"]).allocate_all(&[Request::Any(Family::V4); 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not enough free IPv4 addresses (10.0.9.0/30: 0 used, 3 reserved, 1 free); release some \
         or add a subnet"
    );
}

#[test]
fn n11_n17_growth_leaves_what_is_allocated() {
    let mut ipam = network(&["10.0.9.0/30"]);
    let first = ipam.allocate(Family::V4).unwrap();
    assert!(ipam.allocate(Family::V4).is_err());
    ipam.add_subnet(spec("10.0.10.0/30")).unwrap();
    ipam.add_subnet(spec("fd00:9::/64")).unwrap();
    assert_eq!(ipam.allocate(Family::V4), Ok(ip("10.0.10.2")));
    assert_eq!(ipam.allocate(Family::V6), Ok(ip("fd00:9::2")));
    assert_eq!(ipam.state(first), Ok(AddressState::Allocated));
    // The oldest of the network, whichever subnet it is in.
    ipam.release(ip("10.0.10.2")).unwrap();
    ipam.release(first).unwrap();
    assert_eq!(ipam.allocate(Family::V4), Ok(ip("10.0.10.2")));
    assert_eq!(ipam.allocate(Family::V4), Ok(first));
}

#[test]
fn n12_both_families_or_none() {
    let mut ipam = network(&["10.0.9.0/30", "fd00:9::/64"]);
    let both = [Request::Any(Family::V6), Request::Any(Family::V4)];
    assert_eq!(ipam.allocate_all(&both), Ok(vec![ip("fd00:9::2"), ip("10.0.9.2")]));
    let before = ipam.clone();
    assert!(matches!(
        ipam.allocate_all(&both),
        Err(IpamError::Exhausted { family: Family::V4, .. })
    ));
    assert_eq!(ipam, before);
    let mut only_v6 = network(&["fd00:9::/64"]);
    assert_eq!(only_v6.allocate(Family::V4), Err(IpamError::NoSubnet { family: Family::V4 }));
    assert!(only_v6.allocate(Family::V6).is_ok());
}

#[test]
fn any_beside_a_name_does_not_take_it() {
    let mut ipam = network(&["10.0.9.0/29"]);
    let requests = [Request::Any(Family::V4), Request::Exactly(ip("10.0.9.2"))];
    assert_eq!(ipam.allocate_all(&requests), Ok(vec![ip("10.0.9.3"), ip("10.0.9.2")]));
}

#[test]
fn n12_scattered_addresses_of_a_64_cost_what_they_are() {
    let mut ipam = network(&["fd00:9::/64"]);
    for n in 0..1_000_u128 {
        let subnet = ipam.subnets().next().unwrap().subnet;
        let scattered = subnet.nth((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 40) % (1 << 64));
        ipam.allocate(scattered.unwrap()).unwrap();
    }
    let text = serde_json::to_string(&ipam).unwrap();
    assert!(text.len() < 60 * 1_000, "{} bytes", text.len());
    assert_eq!(ipam.usage().next().unwrap().used, 1_000);
}

#[test]
fn reserved_addresses_say_why() {
    let ipam = network(&["10.0.9.0/24 printer=10.0.9.9", "fd00:9::/64"]);
    let printer = Reservation::Aux("printer".parse().unwrap());
    for (address, reservation) in [
        ("10.0.9.0", Reservation::Network),
        ("10.0.9.1", Reservation::Gateway),
        ("10.0.9.9", printer),
        ("10.0.9.255", Reservation::Broadcast),
        ("fd00:9::", Reservation::RouterAnycast),
        ("fd00:9::1", Reservation::Gateway),
    ] {
        assert_eq!(ipam.state(ip(address)), Ok(AddressState::Reserved(reservation)));
    }
}

#[test]
fn n02_a_full_12_gives_every_address_once() {
    let mut ipam = NetworkIpam::new([spec("10.0.0.0/12")]).unwrap();
    let mut last = ip("10.0.0.1");
    for _ in 0..(1 << 20) - 3 {
        let next = ipam.allocate(Family::V4).unwrap();
        assert!(next > last);
        last = next;
    }
    assert_eq!(last, ip("10.15.255.254"));
    let usage = ipam.usage().next().unwrap();
    assert_eq!((usage.used, usage.free, usage.available), ((1 << 20) - 3, 0, 0));
    // One free address, far behind the cursor, is found at once.
    ipam.release(ip("10.7.0.7")).unwrap();
    assert_eq!(ipam.allocate(Family::V4), Ok(ip("10.7.0.7")));
}
