//! What is asked.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use overlay_types::{Protocol, number::from_digits};

/// Longest name that is looked up: 255 octets on the wire (RFC 1035 §2.3.4) are 253 in text.
pub const MAX_NAME_LEN: usize = 253;

/// The type of record that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordKind {
    /// IPv4 addresses (RFC 1035 §3.4.1).
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// The name of an address (RFC 1035 §3.3.12).
    Ptr,
    /// Where a service listens (RFC 2782).
    Srv,
    /// Whatever there is: addresses of both families (RFC 8482 allows a part), or the PTR or SRV
    /// records if the name is of that form.
    Any,
    /// A type that the overlay has no records of.
    Other,
}

/// A question of class IN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// Labels joined by dots, in any case, with or without a dot at the end.
    pub name: &'a str,
    /// The type of record that is asked for.
    pub kind: RecordKind,
}

/// A name in lower case without a dot at the end.
pub(crate) struct LowerName {
    text: [u8; MAX_NAME_LEN],
    len: usize,
}

impl LowerName {
    /// `None` if the name is too long or not ASCII, like no name of an overlay.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mut text = [0; MAX_NAME_LEN];
        let place = text.get_mut(..name.len()).filter(|_| name.is_ascii())?;
        place.copy_from_slice(name);
        place.make_ascii_lowercase();
        Some(Self { text, len: name.len() })
    }

    pub(crate) fn as_str(&self) -> &str {
        // Only ASCII was copied.
        core::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }
}

/// The address that a lower-case name under `in-addr.arpa` (RFC 1035 §3.5) or `ip6.arpa`
/// (RFC 3596 §2.5) stands for, if it is a whole one in its only spelling.
pub(crate) fn parse_reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = digits.split('.');
        for octet in octets.iter_mut().rev() {
            let label = labels.next()?;
            let canonical = label == "0" || !label.starts_with('0');
            *octet = from_digits(label).filter(|_| canonical)?;
        }
        labels.next().is_none().then(|| Ipv4Addr::from(octets).into())
    } else {
        let digits = name.strip_suffix(".ip6.arpa")?;
        let mut number = 0_u128;
        let mut count = 0;
        for label in digits.split('.') {
            let digit = label.chars().next()?.to_digit(16).filter(|_| label.len() == 1)?;
            number |= u128::from(digit).checked_shl(4 * count)?;
            count += 1;
        }
        (count == 32).then(|| Ipv6Addr::from(number).into())
    }
}

/// The port, protocol and rest of `_PORT._PROTOCOL.rest`.
pub(crate) fn parse_srv(name: &str) -> Option<(u16, Protocol, &str)> {
    let (port, rest) = name.strip_prefix('_')?.split_once("._")?;
    let (protocol, rest) = rest.split_once('.')?;
    let canonical = !port.starts_with('0');
    Some((from_digits(port).filter(|_| canonical)?, protocol.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("4.3.2.10.in-addr.arpa", Some("10.2.3.4"))]
    #[case("255.0.0.127.in-addr.arpa", Some("127.0.0.255"))]
    #[case("3.2.10.in-addr.arpa", None)]
    #[case("5.4.3.2.10.in-addr.arpa", None)]
    #[case("04.3.2.10.in-addr.arpa", None)]
    #[case("+4.3.2.10.in-addr.arpa", None)]
    #[case("256.3.2.10.in-addr.arpa", None)]
    #[case("in-addr.arpa", None)]
    // The example of RFC 3596 §2.5.
    #[case(
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
        Some("4321:0:1:2:3:4:567:89ab")
    )]
    #[case("b.a.9.8.ip6.arpa", None)]
    #[case("0.b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa", None)]
    #[case("web", None)]
    fn reverse_names(#[case] name: &str, #[case] address: Option<&str>) {
        assert_eq!(parse_reverse(name), address.map(|a| a.parse().unwrap()));
    }

    #[rstest]
    #[case("_8080._tcp.web", Some((8080, Protocol::Tcp, "web")))]
    #[case("_53._udp.tasks.dns.front", Some((53, Protocol::Udp, "tasks.dns.front")))]
    #[case("_7._sctp.a", Some((7, Protocol::Sctp, "a")))]
    #[case("_http._tcp.web", None)]
    #[case("_+80._tcp.web", None)]
    #[case("_080._tcp.web", None)]
    #[case("_80000._tcp.web", None)]
    #[case("_80._tcp", None)]
    #[case("_80.web", None)]
    fn srv_names(#[case] name: &str, #[case] parts: Option<(u16, Protocol, &str)>) {
        assert_eq!(parse_srv(name), parts);
    }

    #[test]
    fn names_in_any_case_with_or_without_dot() {
        for name in ["web.front", "WEB.Front", "web.FRONT."] {
            assert_eq!(LowerName::new(name).unwrap().as_str(), "web.front");
        }
        assert!(LowerName::new(&"a".repeat(MAX_NAME_LEN)).is_some());
        assert!(LowerName::new(&"a".repeat(MAX_NAME_LEN + 1)).is_none());
        assert!(LowerName::new("wéb").is_none());
    }
}
