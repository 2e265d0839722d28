//! The choice of a subnet.

use overlay_types::{DefaultPool, Subnet};
use proptest::prelude::*;
use rstest::rstest;

use super::subnet;
use crate::{Family, IpamError, Occupied, Owner, Pools, Request};

fn pool(text: &str, subnet_len: u8) -> DefaultPool {
    DefaultPool { pool: subnet(text), subnet_len }
}

fn networks(list: &[&'static str]) -> Vec<Occupied<'static>> {
    let occupied =
        |text: &'static str| Occupied { subnet: subnet(text), owner: Owner::Network(text) };
    list.iter().copied().map(occupied).collect()
}

fn routes(list: &[&'static str]) -> Vec<Occupied<'static>> {
    let occupied =
        |text: &'static str| Occupied { subnet: subnet(text), owner: Owner::HostRoute(text) };
    list.iter().copied().map(occupied).collect()
}

fn any(pools: &Pools, family: Family, occupied: &[Occupied<'_>]) -> Result<Subnet, IpamError> {
    let claimed = pools.claim(&[Request::Any(family)], occupied.iter().copied());
    let claimed = claimed.map(|answer| answer[0]);
    let (routes, mut networks): (Vec<Occupied<'_>>, Vec<Occupied<'_>>) =
        occupied.iter().partition(|o| matches!(o.owner, Owner::HostRoute(_)));
    networks.sort_by_key(|o| o.subnet);
    let routes: Vec<_> = routes.into_iter().map(|o| o.subnet).collect();
    let free = pools.first_free(family, networks.into_iter().map(|o| o.subnet), &routes);
    assert_eq!(free, claimed.clone().ok());
    claimed
}

#[rstest]
#[case(&[], &[], "10.0.0.0/24")]
#[case(&["10.0.0.0/24"], &[], "10.0.1.0/24")]
#[case(&["10.0.1.0/24"], &[], "10.0.0.0/24")]
#[case(&["10.0.0.0/24", "10.0.2.0/24"], &["10.0.1.77/32"], "10.0.3.0/24")]
#[case(&["10.0.0.0/16"], &["192.168.0.0/16"], "10.1.0.0/24")]
#[case(&["10.0.0.0/16", "10.0.1.0/24"], &[], "10.1.0.0/24")]
#[case(&[], &["0.0.0.0/0"], "10.0.0.0/24")]
#[case(&[], &["0.0.0.0/1", "128.0.0.0/1"], "10.0.0.0/24")]
#[case(&["fd00::/8"], &["::/0"], "10.0.0.0/24")]
fn n02_default_pool(
    #[case] used: &[&'static str],
    #[case] hosts: &[&'static str],
    #[case] expected: &str,
) {
    let occupied: Vec<_> = networks(used).into_iter().chain(routes(hosts)).collect();
    assert_eq!(any(&Pools::default(), Family::V4, &occupied), Ok(subnet(expected)));
}

#[test]
fn n02_pools_are_searched_in_order_until_all_are_used() {
    let pools = Pools::new([pool("10.20.0.0/26", 27), pool("10.10.0.0/27", 27)]).unwrap();
    let mut occupied = Vec::new();
    for expected in ["10.20.0.0/27", "10.20.0.32/27", "10.10.0.0/27"] {
        let next = any(&pools, Family::V4, &occupied).unwrap();
        assert_eq!(next, subnet(expected));
        occupied.push(Occupied { subnet: next, owner: Owner::Network("n") });
    }
    let error = any(&pools, Family::V4, &occupied).unwrap_err();
    assert_eq!((error.field(), error.value().as_str()), ("subnet", "IPv4"));
    assert_eq!(
        error.to_string(),
        "no free IPv4 subnet in the default address pools (10.20.0.0/26 in /27, 10.10.0.0/27 in \
         /27), the largest part taken by 10.20.0.0/27 (network n); give a --subnet"
    );
}

#[test]
fn n02_a_route_that_covers_the_pool_is_named() {
    let error = any(&Pools::default(), Family::V4, &routes(&["10.0.0.0/8"])).unwrap_err();
    assert!(error.to_string().contains("10.0.0.0/8 (host route 10.0.0.0/8)"), "{error}");
}

#[rstest]
#[case("10.0.9.0/24", "10.0.8.0/21", "network 10.0.8.0/21")]
#[case("10.0.0.0/9", "10.0.8.0/21", "network 10.0.8.0/21")]
#[case("192.168.1.128/25", "192.168.0.0/16", "host route 192.168.0.0/16")]
fn n02_n03_a_conflict_is_named(#[case] wanted: &str, #[case] with: &str, #[case] owner: &str) {
    let occupied = networks(&["10.0.8.0/21"]).into_iter().chain(routes(&["192.168.0.0/16"]));
    let error = Pools::default().claim(&[Request::Exactly(subnet(wanted))], occupied).unwrap_err();
    let expected = IpamError::Overlap {
        subnet: subnet(wanted),
        occupied: subnet(with),
        owner: owner.to_owned(),
        free: Some(subnet("10.0.0.0/24")),
    };
    assert_eq!(error, expected);
}

#[test]
fn n12_n17_several_subnets_at_once_keep_clear_of_each_other() {
    let ula = Pools::unique_local([1, 2, 3, 4, 5]);
    let pools = Pools::new(Pools::default().iter().chain([ula])).unwrap();
    let wanted = [
        Request::Any(Family::V4),
        Request::Any(Family::V6),
        Request::Exactly(subnet("10.0.0.0/23")),
        Request::Any(Family::V4),
    ];
    let answer = pools.claim::<&str>(&wanted, []).unwrap();
    let expected = ["10.0.2.0/24", "fd01:203:405::/64", "10.0.0.0/23", "10.0.3.0/24"];
    assert_eq!(answer, expected.map(subnet));
    let twice = [Request::Exactly(subnet("10.0.0.0/23")), Request::Exactly(subnet("10.0.1.0/24"))];
    assert!(matches!(pools.claim::<&str>(&twice, []), Err(IpamError::Overlap { .. })));
}

#[test]
fn n12_without_an_ipv6_pool_the_answer_says_so() {
    let error = any(&Pools::default(), Family::V6, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no free IPv6 subnet in the default address pools (none); give a --subnet"
    );
}

#[rstest]
#[case(&[("10.0.0.0/8", 7)], "default-addr-pool-mask-length", "7")]
#[case(&[("10.0.0.0/8", 31)], "default-addr-pool-mask-length", "31")]
#[case(&[("fd00::/48", 127)], "default-addr-pool-mask-length", "127")]
#[case(&[("127.0.0.0/8", 24)], "default-addr-pool", "127.0.0.0/8")]
#[case(&[("10.0.0.0/8", 24), ("10.9.0.0/16", 24)], "default-addr-pool", "10.9.0.0/16")]
fn n02_pools_that_make_no_sense(
    #[case] pools: &[(&str, u8)],
    #[case] field: &str,
    #[case] value: &str,
) {
    let pools: Vec<_> = pools.iter().map(|(text, len)| pool(text, *len)).collect();
    let error = Pools::new(pools.clone()).unwrap_err();
    assert_eq!((error.field(), error.value().as_str()), (field, value), "{error}");
    let text = serde_json::to_string(&pools).unwrap();
    assert!(serde_json::from_str::<Pools>(&text).is_err());
}

#[test]
fn n02_default_pools() {
    let pools = Pools::default();
    let text = serde_json::to_string(&pools).unwrap();
    assert_eq!(text, r#"[{"pool":"10.0.0.0/8","subnet_len":24}]"#);
    assert_eq!(serde_json::from_str::<Pools>(&text).unwrap(), pools);
}

proptest! {
    /// The lowest slot that overlaps nothing, as trying one after the other finds it.
    #[test]
    fn n02_agrees_with_trying_each(blocks in prop::collection::vec((0..256_u32, 20..=32_u8), 0..40)) {
        let pools = Pools::new([pool("10.0.0.0/20", 24)]).unwrap();
        let occupied: Vec<_> = blocks
            .into_iter()
            .map(|(at, len)| {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + at * 32);
                let net = ipnet::Ipv4Net::new(address, len).unwrap();
                Occupied { subnet: net.into(), owner: Owner::Network("n") }
            })
            .filter(|o| o.subnet.prefix_len() > 21)
            .collect();
        let slots = (0..16).map(|n| subnet(&format!("10.0.{n}.0/24")));
        let expected = { slots }.find(|s| !occupied.iter().any(|o| o.subnet.overlaps(*s)));
        prop_assert_eq!(any(&pools, Family::V4, &occupied).ok(), expected);
    }
}
