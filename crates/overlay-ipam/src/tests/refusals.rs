//! Each refusal: field, value, and a message that helps.

use overlay_types::{NetworkSpec, SubnetSpec};
use rstest::rstest;

use super::{ip, network, spec};
use crate::{Family, NetworkIpam};

#[rstest]
#[case("10.0.9.0/31", "subnet", "10.0.9.0/31", "no room")]
#[case("10.0.9.0/32", "subnet", "10.0.9.0/32", "no room")]
#[case("fd00::/127", "subnet", "fd00::/127", "no room")]
#[case("127.0.0.0/24", "subnet", "127.0.0.0/24", "loopback")]
#[case("0.0.0.0/0", "subnet", "0.0.0.0/0", "overlaps 0.0.0.0/8")]
#[case("224.1.0.0/16", "subnet", "224.1.0.0/16", "multicast")]
#[case("169.254.9.0/24", "subnet", "169.254.9.0/24", "link-local")]
#[case("::/0", "subnet", "::/0", "overlaps")]
#[case("fe80::/64", "subnet", "fe80::/64", "link-local")]
#[case("ff02::/64", "subnet", "ff02::/64", "multicast")]
#[case("::ffff:10.0.0.0/120", "subnet", "::ffff:10.0.0.0/120", "IPv4 addresses")]
#[case("10.0.9.0/24 range=10.0.8.0/25", "ip-range", "10.0.8.0/25", "in the subnet 10.0.9.0/24")]
#[case("10.0.9.0/24 range=10.0.8.0/23", "ip-range", "10.0.8.0/23", "in the subnet 10.0.9.0/24")]
#[case("10.0.9.0/24 range=fd00::/64", "ip-range", "fd00::/64", "in the subnet 10.0.9.0/24")]
#[case("10.0.9.0/24 range=10.0.9.0/32", "ip-range", "10.0.9.0/32", "leave none")]
#[case("10.0.9.0/24 range=10.0.9.255/32", "ip-range", "10.0.9.255/32", "leave none")]
#[case("10.0.9.0/24 range=10.0.9.1/32", "ip-range", "10.0.9.1/32", "leave none")]
#[case("10.0.9.0/24 gateway=10.0.8.1", "gateway", "10.0.8.1", "in the subnet 10.0.9.0/24")]
#[case("10.0.9.0/24 gateway=fd00::1", "gateway", "fd00::1", "in the subnet 10.0.9.0/24")]
#[case("10.0.9.0/24 gateway=10.0.9.0", "gateway", "10.0.9.0", "the address of the subnet")]
#[case("10.0.9.0/24 gateway=10.0.9.255", "gateway", "10.0.9.255", "broadcast")]
#[case("fd00::/64 gateway=fd00::", "gateway", "fd00::", "anycast")]
#[case("10.0.9.0/24 a=10.0.8.9", "aux-address", "a=10.0.8.9", "in the subnet 10.0.9.0/24")]
#[case("10.0.9.0/24 a=10.0.9.255", "aux-address", "a=10.0.9.255", "broadcast")]
#[case("10.0.9.0/24 gateway=10.0.9.9 a=10.0.9.9", "aux-address", "a=10.0.9.9", "the gateway")]
#[case("10.0.9.0/24 a=10.0.9.9 b=10.0.9.9", "aux-address", "b=10.0.9.9", "the aux address a")]
#[case("10.0.9.0/30 a=10.0.9.1 b=10.0.9.2", "subnet", "10.0.9.0/30", "none for the gateway")]
#[case("10.0.9.0/30 a=10.0.9.1", "subnet", "10.0.9.0/30", "leave none")]
fn n03_specs(#[case] text: &str, #[case] field: &str, #[case] value: &str, #[case] message: &str) {
    let error = NetworkIpam::new([spec(text)]).unwrap_err();
    assert_eq!((error.field(), error.value().as_str()), (field, value), "{error}");
    assert!(error.to_string().contains(message), "{error}");
    // The same when a network grows, and the network is as before.
    let mut grown = network(&["172.20.0.0/16"]);
    let before = grown.clone();
    assert_eq!(grown.add_subnet(spec(text)), Err(error));
    assert_eq!(grown, before);
}

#[rstest]
#[case("10.0.9.2", "address \"10.0.9.2\" is in use; 10.0.9.4 is free")]
#[case("10.0.9.1", "address \"10.0.9.1\" is the gateway; 10.0.9.4 is free")]
#[case("10.0.9.0", "address \"10.0.9.0\" is the address of the subnet itself; 10.0.9.4 is free")]
#[case("10.0.9.9", "address \"10.0.9.9\" is the aux address printer; 10.0.9.4 is free")]
#[case("fd00::", "address \"fd00::\" is the subnet-router anycast address; fd00::2 is free")]
#[case(
    "10.0.8.1",
    "address \"10.0.8.1\" is in no subnet of the network, which has 10.0.9.0/24, fd00::/64"
)]
fn n03_requested_addresses(#[case] address: &str, #[case] message: &str) {
    let mut ipam = network(&["10.0.9.0/24 printer=10.0.9.9", "fd00::/64"]);
    for _ in 0..2 {
        ipam.allocate(Family::V4).unwrap();
    }
    let before = ipam.clone();
    let error = ipam.allocate(ip(address)).unwrap_err();
    assert_eq!((error.field(), error.value().as_str()), ("address", address));
    assert_eq!(error.to_string(), message);
    assert_eq!(ipam, before);
}

#[rstest]
#[case("10.0.9.3", "it is free")]
#[case("10.0.9.2", "it is in quarantine")]
#[case("10.0.9.1", "it is the gateway")]
#[case("10.0.9.255", "it is the broadcast address")]
#[case("10.9.9.9", "in no subnet")]
fn n03_releases(#[case] address: &str, #[case] message: &str) {
    let mut ipam = network(&["10.0.9.0/24"]);
    let first = ipam.allocate(Family::V4).unwrap();
    ipam.release(first).unwrap();
    let before = ipam.clone();
    let error = ipam.release(ip(address)).unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
    assert_eq!(ipam, before);
}

#[test]
fn n03_a_full_network_with_quarantine_offers_the_oldest() {
    let mut ipam = network(&["10.0.9.0/29"]);
    let given: Vec<_> = (0..5).map(|_| ipam.allocate(Family::V4).unwrap()).collect();
    ipam.release(given[3]).unwrap();
    let error = ipam.allocate(given[0]).unwrap_err();
    assert!(error.to_string().ends_with("10.0.9.5 is free"), "{error}");
    ipam.allocate(Family::V4).unwrap();
    let error = ipam.allocate(given[0]).unwrap_err();
    assert!(error.to_string().ends_with("none is free"), "{error}");
}

#[test]
fn bounds_are_kept() {
    assert_eq!(NetworkIpam::new([]).unwrap_err().field(), "subnet");

    let mut many = spec("10.0.0.0/16");
    for n in 0..=SubnetSpec::MAX_AUX_ADDRESSES {
        let address = many.subnet.nth(n as u128 + 2).unwrap();
        many.aux_addresses.insert(format!("aux{n}").parse().unwrap(), address);
    }
    assert_eq!(NetworkIpam::new([many]).unwrap_err().field(), "aux-address");

    let specs = (0..=NetworkSpec::MAX_SUBNETS).map(|n| spec(&format!("10.{n}.0.0/24")));
    let error = NetworkIpam::new(specs).unwrap_err();
    assert_eq!(error.value(), "10.64.0.0/24");
    let overlap = NetworkIpam::new(["10.0.9.0/24", "10.0.0.0/16"].map(spec)).unwrap_err();
    assert_eq!(
        overlap.to_string(),
        "subnet \"10.0.0.0/16\": it overlaps 10.0.9.0/24 of the same network"
    );
}
