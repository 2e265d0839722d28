use rstest::rstest;

use super::*;

fn shown(text: &str) -> Result<String, (&'static str, String)> {
    let ports = PortSpec::parse(text).map_err(|e| (e.field(), e.value().to_owned()))?;
    Ok(ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

#[rstest]
#[case("80", "80/tcp")]
#[case("8080:80", "8080:80/tcp")]
#[case("8080:80/udp", "8080:80/udp")]
#[case("8080:80/sctp", "8080:80/sctp")]
#[case("8000-8002:80-82", "8000:80/tcp, 8001:81/tcp, 8002:82/tcp")]
#[case("65535:65535", "65535:65535/tcp")]
#[case("192.0.2.7:8080:80", "192.0.2.7:8080:80/tcp")]
#[case("192.0.2.7::80", "192.0.2.7::80/tcp")]
#[case("[::1]::80", "[::1]::80/tcp")]
#[case("[2001:db8::7]:8080:80/udp", "[2001:db8::7]:8080:80/udp")]
#[case("published=8080,target=80", "8080:80/tcp")]
#[case("target=80", "80/tcp")]
#[case("published=8080,target=80,protocol=udp,mode=host", "8080:80/udp (host)")]
#[case("published=1-2,target=3-4,host_ip=::1", "[::1]:1:3/tcp, [::1]:2:4/tcp")]
fn s07_grammars(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(shown(text).as_deref(), Ok(expected));
}

#[rstest]
#[case("", "target", "")]
#[case("0:80", "published", "0")]
#[case("8080:", "target", "")]
#[case(":80", "published", "")]
#[case("8080:80/icmp", "protocol", "icmp")]
#[case("65536:80", "published", "65536")]
#[case("+80:80", "published", "+80")]
#[case("8002-8000:80-82", "published", "8002-8000")]
#[case("8000-8001:80", "publish", "8000-8001:80")]
#[case("300.0.2.7:8080:80", "host_ip", "300.0.2.7")]
#[case("::1:8080:80", "host_ip", "::1")]
#[case("published=8080", "target", "published=8080")]
#[case("target=80,target=81", "publish", "target")]
#[case("target=80,colour=red", "publish", "colour")]
#[case("target=80,mode", "publish", "mode")]
#[case("target=80,mode=mesh", "mode", "mesh")]
fn s07_errors_point_at_the_field(
    #[case] text: &str,
    #[case] field: &'static str,
    #[case] value: &str,
) {
    assert_eq!(shown(text), Err((field, value.to_owned())));
}

#[test]
fn s07_the_offending_part_is_underlined() {
    let error = PortSpec::parse("8080:80/icmp").unwrap_err();
    assert_eq!(error.pointer().unwrap(), "8080:80/icmp\n        ^^^^");
    let message = r#"protocol "icmp" in "8080:80/icmp": a protocol is tcp, udp or sctp"#;
    assert_eq!(error.to_string(), message);
}

#[rstest]
#[case("8080:80", "8080:81", true)]
#[case("8080:80", "8080:80/udp", false)]
#[case("8080:80", "published=8080,target=80,mode=host", true)]
#[case("published=8080,target=80,mode=host", "published=8080,target=81,mode=host", true)]
#[case("192.0.2.7:8080:80", "192.0.2.8:8080:80", false)]
#[case("192.0.2.7:8080:80", "8080:80", true)]
#[case("192.0.2.7:8080:80", "0.0.0.0:8080:80", true)]
#[case("[2001:db8::7]:8080:80", "[::]:8080:80", true)]
#[case("[2001:db8::7]:8080:80", "0.0.0.0:8080:80", false)]
#[case("80", "80", false)]
fn s09_same_socket(#[case] a: &str, #[case] b: &str, #[case] conflict: bool) {
    let (a, b) = (PortSpec::parse(a).unwrap()[0], PortSpec::parse(b).unwrap()[0]);
    assert_eq!(a.is_same_socket(&b), conflict);
    assert_eq!(b.is_same_socket(&a), conflict);
}
