//! Published ports, in both grammars that Docker's `--publish` knows.
//!
//! ```text
//! short   [HOST_IP:][PUBLISHED[-LAST]:]TARGET[-LAST][/tcp|udp|sctp]
//! long    published=8080,target=80,protocol=tcp,mode=ingress,host_ip=192.0.2.7
//! ```
//!
//! A HOST_IP of version 6 stands in brackets. Ranges must have the same length on both sides and
//! give one [`PortSpec`] for each port.

use core::{fmt, net::IpAddr, num::NonZeroU16, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{SpecError, number::from_digits};

/// Transport protocol of a port.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The protocol's lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(SpecError::new("protocol", text, "a protocol is tcp, udp or sctp")),
        }
    }
}

/// Where a published port answers.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node, through the routing mesh.
    #[default]
    Ingress,
    /// On the node of the task only.
    Host,
}

impl PublishMode {
    /// The mode's name as `mode=` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for PublishMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PublishMode {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "ingress" => Ok(Self::Ingress),
            "host" => Ok(Self::Host),
            _ => Err(SpecError::new("mode", text, "a publish mode is ingress or host")),
        }
    }
}

/// One published port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PortSpec {
    /// Transport protocol on both sides.
    pub protocol: Protocol,
    /// Port on which the task listens.
    pub target: NonZeroU16,
    /// Port on which the nodes answer; `None` lets the cluster choose one from 30000-32767.
    pub published: Option<NonZeroU16>,
    /// Where it answers.
    pub mode: PublishMode,
    /// Address on which it answers; `None` for all of the node's.
    pub host_ip: Option<IpAddr>,
}

impl PortSpec {
    /// The ports that `text` publishes, in either grammar.
    pub fn parse(text: &str) -> Result<Vec<Self>, SpecError> {
        let parts = if text.contains('=') { parse_long(text)? } else { parse_short(text)? };
        parts.expand(text)
    }

    /// Whether this port and `other` are one socket address on a node that has both. An
    /// unspecified address (`0.0.0.0`, `::`) stands for all of its family.
    pub fn is_same_socket(&self, other: &Self) -> bool {
        let same_address = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => {
                let any = a.is_unspecified() || b.is_unspecified();
                a == b || (any && a.is_ipv4() == b.is_ipv4())
            }
            _ => true,
        };
        self.published.is_some()
            && self.published == other.published
            && self.protocol == other.protocol
            && same_address
    }
}

/// Shown in the short grammar, with the mode behind it when it is `host`.
impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        match self.published {
            Some(published) => write!(f, "{published}:")?,
            None if self.host_ip.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{}", self.target, self.protocol)?;
        if self.mode == PublishMode::Host { f.write_str(" (host)") } else { Ok(()) }
    }
}

/// What either grammar yields before ranges are expanded.
struct Parts {
    protocol: Protocol,
    target: RangeInclusive<u16>,
    published: Option<RangeInclusive<u16>>,
    mode: PublishMode,
    host_ip: Option<IpAddr>,
}

impl Parts {
    fn expand(self, text: &str) -> Result<Vec<PortSpec>, SpecError> {
        let published: Vec<Option<u16>> = match &self.published {
            Some(range) if range.len() != self.target.len() => {
                let reason = format!(
                    "{} published and {} target ports; both ranges must have the same length",
                    range.len(),
                    self.target.len()
                );
                return Err(SpecError::new("publish", text, reason));
            }
            Some(range) => range.clone().map(Some).collect(),
            None => self.target.clone().map(|_| None).collect(),
        };
        Ok(self
            .target
            .zip(published)
            .filter_map(|(target, published)| {
                Some(PortSpec {
                    protocol: self.protocol,
                    target: NonZeroU16::new(target)?,
                    published: published.and_then(NonZeroU16::new),
                    mode: self.mode,
                    host_ip: self.host_ip,
                })
            })
            .collect())
    }
}

fn parse_short(text: &str) -> Result<Parts, SpecError> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => {
            (rest, protocol.parse().map_err(|e: SpecError| e.found_in(text, protocol))?)
        }
        None => (text, Protocol::default()),
    };
    let (rest, target) = match rest.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, rest),
    };
    let (host_ip, published) = match rest {
        None => (None, None),
        Some(rest) => match rest.rsplit_once(':') {
            // Without brackets nothing tells where the address ends.
            Some((address, _)) if address.contains(':') && !address.starts_with('[') => {
                return Err(address_error(text, address));
            }
            Some((address, published)) => (Some(parse_address(text, address)?), Some(published)),
            None => (None, Some(rest)),
        },
    };
    Ok(Parts {
        protocol,
        target: parse_range("target", text, target)?,
        // `192.0.2.7::80` leaves the published port open, as Docker does.
        published: published
            .filter(|p| !(p.is_empty() && host_ip.is_some()))
            .map(|p| parse_range("published", text, p))
            .transpose()?,
        mode: PublishMode::default(),
        host_ip,
    })
}

fn parse_long(text: &str) -> Result<Parts, SpecError> {
    let mut target = None;
    let mut parts = Parts {
        protocol: Protocol::default(),
        target: 0..=0,
        published: None,
        mode: PublishMode::default(),
        host_ip: None,
    };
    let mut seen: Vec<&str> = Vec::new();
    for pair in text.split(',') {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(SpecError::new("publish", pair, "expected KEY=VALUE").found_in(text, pair));
        };
        if seen.contains(&key) {
            return Err(SpecError::new("publish", key, "given twice").found_in(text, pair));
        }
        seen.push(key);
        let here = |error: SpecError| error.found_in(text, value);
        match key {
            "target" => target = Some(parse_range("target", text, value)?),
            "published" => parts.published = Some(parse_range("published", text, value)?),
            "protocol" => parts.protocol = value.parse().map_err(here)?,
            "mode" => parts.mode = value.parse().map_err(here)?,
            "host_ip" => parts.host_ip = Some(parse_address(text, value)?),
            _ => {
                let reason = "keys are target, published, protocol, mode and host_ip";
                return Err(SpecError::new("publish", key, reason).found_in(text, key));
            }
        }
    }
    parts.target = target.ok_or_else(|| SpecError::new("target", text, "target=PORT is needed"))?;
    Ok(parts)
}

fn parse_address(text: &str, part: &str) -> Result<IpAddr, SpecError> {
    let bare = part.strip_prefix('[').and_then(|p| p.strip_suffix(']'));
    let parsed = match bare {
        Some(inside) => inside.parse().ok().map(IpAddr::V6),
        None => part.parse().ok(),
    };
    parsed.ok_or_else(|| address_error(text, part))
}

fn address_error(text: &str, part: &str) -> SpecError {
    let reason = "an address is like 192.0.2.7 or [2001:db8::7]";
    SpecError::new("host_ip", part, reason).found_in(text, part)
}

fn parse_range(
    field: &'static str,
    text: &str,
    part: &str,
) -> Result<RangeInclusive<u16>, SpecError> {
    let port = |digits: &str| match from_digits::<NonZeroU16>(digits) {
        Some(port) => Ok(port.get()),
        None => Err(SpecError::new(field, digits, "a port is 1-65535").found_in(text, digits)),
    };
    let Some((first, last)) = part.split_once('-') else {
        return port(part).map(|p| p..=p);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        let reason = "a range counts upwards";
        return Err(SpecError::new(field, part, reason).found_in(text, part));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
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
}
