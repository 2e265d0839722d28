use core::net::Ipv4Addr;

use rstest::rstest;

use super::*;

fn draft() -> NetworkDraft {
    NetworkDraft::new("net".parse().unwrap())
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Flags as `network create` gets them; the error's field and value, if it is refused.
fn check(
    subnets: &[&str],
    ranges: &[&str],
    gateways: &[&str],
    aux: &[&str],
    options: &[&str],
) -> Result<NetworkSpec, (&'static str, String)> {
    let mut draft = draft();
    let outcome = (|| {
        draft.ipv6 = subnets.iter().any(|s| s.contains(':'));
        draft.set_subnets(
            &strings(subnets),
            &strings(ranges),
            &strings(gateways),
            &strings(aux),
        )?;
        options.iter().try_for_each(|o| draft.set_option(o))?;
        NetworkSpec::try_from(draft)
    })();
    outcome.map_err(|e: SpecError| (e.field(), e.value().to_owned()))
}

#[test]
fn n01_flags_go_to_the_subnet_that_contains_them() {
    let spec = check(
        &["10.11.0.0/16", "fd00:9::/64"],
        &["10.11.4.0/24"],
        &["fd00:9::1", "10.11.0.2"],
        &["router=10.11.0.5"],
        &["encrypted", "com.docker.network.driver.mtu=1300", "vni=5000"],
    )
    .unwrap();
    assert_eq!(spec.subnets[0].ip_range, Some("10.11.4.0/24".parse().unwrap()));
    assert_eq!(spec.subnets[0].gateway, Some("10.11.0.2".parse().unwrap()));
    assert_eq!(spec.subnets[0].aux_addresses["router"], "10.11.0.5".parse::<IpAddr>().unwrap());
    assert_eq!(spec.subnets[1].gateway, Some("fd00:9::1".parse().unwrap()));
    assert_eq!((spec.encrypted, spec.mtu, spec.vni), (true, Some(1300), Vni::new(5000)));
}

#[rstest]
#[case(&["10.11.0.1/16"], &[], &[], &[], &[], "subnet", "10.11.0.1/16")]
#[case(&["10.11.0.0/31"], &[], &[], &[], &[], "subnet", "10.11.0.0/31")]
#[case(&["224.0.0.0/8"], &[], &[], &[], &[], "subnet", "224.0.0.0/8")]
#[case(&["192.0.0.0/2"], &[], &[], &[], &[], "subnet", "192.0.0.0/2")]
#[case(&["127.0.0.0/8"], &[], &[], &[], &[], "subnet", "127.0.0.0/8")]
#[case(&["fe80::/64"], &[], &[], &[], &[], "subnet", "fe80::/64")]
#[case(&["10.1.0.0/16", "10.1.2.0/24"], &[], &[], &[], &[], "subnet", "10.1.2.0/24")]
#[case(&["10.1.0.0/16"], &["10.2.0.0/24"], &[], &[], &[], "ip-range", "10.2.0.0/24")]
#[case(&["10.1.0.0/16"], &[], &["10.1.0.0"], &[], &[], "gateway", "10.1.0.0")]
#[case(&["10.1.0.0/16"], &[], &["10.1.255.255"], &[], &[], "gateway", "10.1.255.255")]
#[case(&["10.1.0.0/16"], &[], &["10.1.0.1", "10.1.0.2"], &[], &[], "gateway", "10.1.0.2")]
#[case(&[], &[], &["10.1.0.1"], &[], &[], "gateway", "10.1.0.1")]
#[case(&["10.1.0.0/16"], &[], &[], &["10.1.0.9"], &[], "aux-address", "10.1.0.9")]
#[case(&["10.1.0.0/16"], &[], &["10.1.0.9"], &["a=10.1.0.9"], &[], "aux-address", "10.1.0.9")]
#[case(&[], &[], &[], &[], &["mtu=67"], "mtu", "67")]
#[case(&["fd00::/64"], &[], &[], &[], &["mtu=1279"], "mtu", "1279")]
#[case(&[], &[], &[], &[], &["mtu=x"], "mtu", "x")]
#[case(&[], &[], &[], &[], &["mtu=+1400"], "mtu", "+1400")]
#[case(&[], &[], &[], &[], &["vni=4095"], "vni", "4095")]
#[case(&[], &[], &[], &[], &["vni=+5000"], "vni", "+5000")]
#[case(&[], &[], &[], &[], &["encrypted=maybe"], "opt", "maybe")]
#[case(&[], &[], &[], &[], &["colour=red"], "opt", "colour")]
fn n01_refusals_name_field_and_value(
    #[case] subnets: &[&str],
    #[case] ranges: &[&str],
    #[case] gateways: &[&str],
    #[case] aux: &[&str],
    #[case] options: &[&str],
    #[case] field: &'static str,
    #[case] value: &str,
) {
    let refused = check(subnets, ranges, gateways, aux, options).unwrap_err();
    assert_eq!(refused, (field, value.to_owned()));
}

#[test]
fn n12_a_subnet_needs_its_family() {
    let v6 = SubnetSpec::new("fd00:9::/64".parse().unwrap());
    let without = NetworkDraft { subnets: vec![v6.clone()], ..draft() };
    assert_eq!(NetworkSpec::try_from(without).unwrap_err().field(), "subnet");
    let only_v6 = NetworkDraft { subnets: vec![v6], ipv4: false, ipv6: true, ..draft() };
    assert!(NetworkSpec::try_from(only_v6).is_ok());
    let none = NetworkDraft { ipv4: false, ..draft() };
    assert_eq!(NetworkSpec::try_from(none).unwrap_err().field(), "ipv4");
}

fn refused(draft: NetworkDraft) -> (&'static str, String) {
    let error = NetworkSpec::try_from(draft).unwrap_err();
    (error.field(), error.value().to_owned())
}

#[test]
fn r06_aux_addresses_of_a_subnet_are_bounded() {
    let with = |count: u32| {
        let mut spec = SubnetSpec::new("10.11.0.0/16".parse().unwrap());
        spec.aux_addresses = (0..count)
            .map(|n| (format!("a{n}").parse().unwrap(), Ipv4Addr::from(0x0a0b_0101 + n).into()))
            .collect();
        NetworkDraft { subnets: vec![spec], ..draft() }
    };
    assert!(NetworkSpec::try_from(with(256)).is_ok());
    assert_eq!(refused(with(257)), ("aux-address", "257".to_owned()));
}

#[test]
fn r06_labels_and_subnets_of_a_network_are_bounded() {
    let labels = |count: u32| (0..count).map(|n| (n.to_string(), String::new())).collect();
    assert!(NetworkSpec::try_from(NetworkDraft { labels: labels(64), ..draft() }).is_ok());
    let many = NetworkDraft { labels: labels(65), ..draft() };
    assert_eq!(refused(many), ("label", "65".to_owned()));
    let subnet = |n| SubnetSpec::new(format!("10.{n}.0.0/16").parse().unwrap());
    let many = NetworkDraft { subnets: (0..65).map(subnet).collect(), ..draft() };
    assert_eq!(refused(many), ("subnet", "65".to_owned()));
}
