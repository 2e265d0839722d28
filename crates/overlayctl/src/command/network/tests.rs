use rstest::rstest;

use super::*;
use crate::flag::parsed;

fn request(line: &str) -> Result<v1::NetworkSpec, SpecError> {
    parsed::<Create>(line).unwrap().request().map(|request| request.spec.unwrap())
}

#[test]
fn n01_every_flag_reaches_the_request() {
    let spec = request(
        "-d overlay --subnet 10.11.0.0/16 --subnet fd00:9::/64 --ip-range 10.11.4.0/24 \
         --gateway 10.11.0.2,fd00:9::1 --aux-address router=10.11.0.5 --label a=b --label c \
         --internal --attachable --ipv6 -o encrypted --opt mtu=1300 --opt vni=5000 net",
    )
    .unwrap();
    let subnet = |subnet: &str, range: &str, gateway: &str, aux: &[(&str, &str)]| v1::SubnetSpec {
        subnet: subnet.into(),
        ip_range: range.into(),
        gateway: gateway.into(),
        aux_addresses: aux.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    };
    let expected = v1::NetworkSpec {
        name: "net".into(),
        labels: [("a".into(), "b".into()), ("c".into(), String::new())].into(),
        subnets: vec![
            subnet("10.11.0.0/16", "10.11.4.0/24", "10.11.0.2", &[("router", "10.11.0.5")]),
            subnet("fd00:9::/64", "", "fd00:9::1", &[]),
        ],
        disable_ipv4: false,
        ipv6: true,
        internal: true,
        attachable: true,
        ingress: false,
        encrypted: true,
        multicast: false,
        mtu: 1300,
        vni: 5000,
    };
    assert_eq!(spec, expected);
}

#[rstest]
#[case("net")]
#[case("--driver overlay net")]
#[case("--ipv4 net")]
#[case("--ipv4=true net")]
fn n01_what_is_not_asked_for_is_left_to_the_cluster(#[case] line: &str) {
    let expected = v1::NetworkSpec { name: "net".into(), ..v1::NetworkSpec::default() };
    assert_eq!(request(line), Ok(expected));
}

#[test]
fn n12_a_network_without_ipv4() {
    let spec = request("--ipv4=false --ipv6 net").unwrap();
    assert!(spec.disable_ipv4 && spec.ipv6);
}

#[test]
fn n07_ingress() {
    assert!(request("--ingress --opt com.docker.network.driver.mtu=1300 mesh").unwrap().ingress);
}

#[rstest]
#[case("--subnet 10.11.0.1/16 net", "subnet", "10.11.0.1/16")]
#[case("--subnet 10.1.0.0/16 --ip-range 10.2.0.0/24 net", "ip-range", "10.2.0.0/24")]
#[case("--gateway 10.1.0.1 net", "gateway", "10.1.0.1")]
#[case("--subnet 10.1.0.0/16 --aux-address 10.1.0.9 net", "aux-address", "10.1.0.9")]
#[case("--subnet fd00::/64 net", "subnet", "fd00::/64")]
#[case("--ipv4=false net", "ipv4", "false")]
#[case("--opt colour=red net", "opt", "colour")]
#[case("--opt mtu=x net", "mtu", "x")]
#[case("--label =x net", "label", "=x")]
#[case("--ingress --attachable net", "attachable", "true")]
#[case("n@t", "name", "@")]
fn n01_refusals_name_flag_and_value(
    #[case] line: &str,
    #[case] field: &'static str,
    #[case] value: &str,
) {
    let error = request(line).unwrap_err();
    assert_eq!((error.field(), error.value()), (field, value));
}

#[rstest]
#[case("")]
#[case("-d bridge net")]
#[case("--colour net")]
#[case("one two")]
#[case("--ipv4 false net")]
fn o02_a_wrong_grammar_is_a_usage_error(#[case] line: &str) {
    assert_eq!(parsed::<Create>(line).unwrap_err().exit_code(), 2);
}

#[rstest]
#[case("y\n", true)]
#[case("yes\n", true)]
#[case("Y", true)]
#[case("n\n", false)]
#[case("\n", false)]
#[case("", false)]
#[case("yesterday\n", false)]
fn n07_only_a_yes_is_one(#[case] answer: &str, #[case] expected: bool) {
    let mut terminal = Vec::new();
    assert_eq!(confirmed(&mut answer.as_bytes(), &mut terminal).unwrap(), expected);
    assert_eq!(terminal, INGRESS_WARNING.as_bytes());
}
