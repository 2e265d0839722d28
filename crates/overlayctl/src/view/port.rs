//! Published ports.

use std::fmt;

use overlay_api::v1;
use serde::Serialize;

use super::optional;

/// One published port.
#[derive(Serialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Port {
    protocol: &'static str,
    target: u32,
    published: Option<u32>,
    mode: &'static str,
    host_ip: Option<String>,
}

/// As Docker shows it: `*:8080->80/tcp`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip.as_deref() {
            Some(address) if address.contains(':') => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => f.write_str("*:")?,
        }
        if let Some(published) = self.published {
            write!(f, "{published}")?;
        }
        write!(f, "->{}/{}", self.target, self.protocol)?;
        if self.mode == "host" { f.write_str(" (host)") } else { Ok(()) }
    }
}

impl From<&v1::PortSpec> for Port {
    fn from(message: &v1::PortSpec) -> Self {
        Self {
            protocol: match v1::Protocol::try_from(message.protocol) {
                Ok(v1::Protocol::Tcp) => "tcp",
                Ok(v1::Protocol::Udp) => "udp",
                Ok(v1::Protocol::Sctp) => "sctp",
                Err(_) => "unknown",
            },
            target: message.target,
            published: (message.published != 0).then_some(message.published),
            mode: match v1::PublishMode::try_from(message.mode) {
                Ok(v1::PublishMode::Ingress) => "ingress",
                Ok(v1::PublishMode::Host) => "host",
                Err(_) => "unknown",
            },
            host_ip: optional(&message.host_ip),
        }
    }
}

/// In the order of their numbers.
pub(super) fn ports(messages: &[v1::PortSpec]) -> Vec<Port> {
    let mut ports: Vec<Port> = messages.iter().map(Into::into).collect();
    ports.sort();
    ports
}

#[cfg(test)]
mod tests {
    use overlay_types::PortSpec;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("8080:80", "*:8080->80/tcp")]
    #[case("80/udp", "*:->80/udp")]
    #[case("192.0.2.7:8080:80/sctp", "192.0.2.7:8080->80/sctp")]
    #[case("published=8080,target=80,mode=host,host_ip=::1", "[::1]:8080->80/tcp (host)")]
    fn s07_a_port_is_shown(#[case] text: &str, #[case] expected: &str) {
        let port = PortSpec::parse(text).unwrap()[0];
        assert_eq!(Port::from(&v1::PortSpec::from(&port)).to_string(), expected);
    }
}
