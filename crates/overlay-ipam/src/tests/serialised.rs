//! The serialised form: fixed, compact, and refused when damaged.

use rstest::rstest;

use super::{ip, network};
use crate::{Family, NetworkIpam};

fn sample() -> NetworkIpam {
    let mut ipam = network(&["10.0.9.0/24 printer=10.0.9.9", "fd00:9::/64"]);
    for _ in 0..4 {
        ipam.allocate(Family::V4).unwrap();
        ipam.allocate(Family::V6).unwrap();
    }
    ipam.allocate(ip("fd00:9::1:0:0:0")).unwrap();
    ipam.release(ip("10.0.9.3")).unwrap();
    ipam
}

/// What replicas exchange must not change by accident.
const SAMPLE: &str = concat!(
    r#"{"subnets":["#,
    r#"{"spec":{"subnet":"10.0.9.0/24","ip_range":null,"gateway":"10.0.9.1","#,
    r#""aux_addresses":{"printer":"10.0.9.9"}},"#,
    r#""taken":{"bitmap":[[0,9,0,[575,9223372036854775808]]]},"cursor":6},"#,
    r#"{"spec":{"subnet":"fd00:9::/64","ip_range":null,"gateway":"fd00:9::1","aux_addresses":{}},"#,
    r#""taken":{"runs":[[0,5],[281474976710656,281474976710656]]},"cursor":6}],"#,
    r#""quarantine":[["10.0.9.3"],[]]}"#,
);

#[test]
fn c09_form_is_fixed() {
    assert_eq!(serde_json::to_string(&sample()).unwrap(), SAMPLE);
    assert_eq!(serde_json::from_str::<NetworkIpam>(SAMPLE).unwrap(), sample());
}

#[rstest]
#[case("10.0.9.0/24", "10.0.9.0/31", "no room")]
#[case("10.0.9.0/24", "10.0.0.0/16", "beyond the subnet|not marked")]
#[case("fd00:9::/64", "10.0.9.128/25", "lie in the subnet")]
#[case("[0,9,0,[575,", "[0,9,1,[575,", "masks and words")]
#[case("[0,9,0,[575,", "[0,1,0,[575,", "masks and words")]
#[case("[0,9,0,[575,", "[0,9,0,[0,", "mask bit")]
#[case("[0,9,0,[575,", "[0,9,0,[18446744073709551615,", "mask bit")]
#[case("[0,9,0,[575,", "[0,9,0,[574,", "reserved")]
#[case("[0,9,0,[575,", "[0,17,0,[575,", "beyond the subnet")]
#[case("[0,9,0,[575,", "[1,9,0,[575,", "beyond the subnet")]
#[case("[0,9,0,[575,", "[4294967295,9,0,[575,", "beyond the subnet")]
#[case(r#"]]]},"cursor":6},"#, r#"]],[0,1,0,[2]]]},"cursor":6},"#, "out of order")]
#[case(r#""cursor":6},"#, r#""cursor":0},"#, "cursor")]
#[case(r#""cursor":6},"#, r#""cursor":255},"#, "cursor")]
#[case("[[0,5],", "[[0,5],[6,6],", "touch")]
#[case("[[0,5],", "[[5,0],", "out of order")]
#[case("[[0,5],", "[[1,5],", "reserved")]
#[case("281474976710656]]", "18446744073709551616]]", "beyond the subnet")]
#[case(r#"{"runs":"#, r#"{"bitmap":"#, "")]
#[case(r#""cursor":6},"#, r#""cursor":6,"mood":1},"#, "unknown field")]
#[case(r#""quarantine":"#, r#""mood":1,"quarantine":"#, "unknown field")]
#[case(r#"[["10.0.9.3"],[]]"#, r#"[["10.0.9.200"],[]]"#, "never handed out")]
#[case(r#"[["10.0.9.3"],[]]"#, r#"[["10.0.9.1"],[]]"#, "never handed out")]
#[case(r#"[["10.0.9.3"],[]]"#, r#"[["10.0.8.3"],[]]"#, "in no subnet")]
#[case(r#"[["10.0.9.3"],[]]"#, r#"[["10.0.9.3","10.0.9.3"],[]]"#, "twice")]
#[case(r#"[["10.0.9.3"],[]]"#, r#"[[],["10.0.9.3"]]"#, "quarantine of IPv6")]
fn r05_damage_is_refused(#[case] part: &str, #[case] damage: &str, #[case] message: &str) {
    assert!(SAMPLE.contains(part), "{part}");
    let damaged = SAMPLE.replacen(part, damage, 1);
    let error = serde_json::from_str::<NetworkIpam>(&damaged).unwrap_err().to_string();
    assert!(message.split('|').any(|message| error.contains(message)), "{error}");
}

#[test]
fn r05_a_network_without_subnets_is_refused() {
    let empty = r#"{"subnets":[],"quarantine":[[],[]]}"#;
    assert!(serde_json::from_str::<NetworkIpam>(empty).is_err());
}

#[test]
fn a_dense_network_serialises_small() {
    let mut ipam = network(&["10.0.0.0/12"]);
    while ipam.allocate(Family::V4).is_ok() {}
    let dense = serde_json::to_string(&ipam).unwrap().len();
    assert!(dense < 256 * 40, "256 full chunks in {dense} bytes");
    let copy: NetworkIpam = serde_json::from_str(&serde_json::to_string(&ipam).unwrap()).unwrap();
    assert_eq!(copy, ipam);
}
