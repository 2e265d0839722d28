//! Published ports, in both grammars that Docker's `--publish` knows.
//!
//! ```text
//! short   [HOST_IP:][PUBLISHED[-LAST]:]TARGET[-LAST][/tcp|udp|sctp]
//! long    published=8080,target=80,protocol=tcp,mode=ingress,host_ip=192.0.2.7
//! ```
//!
//! A HOST_IP of version 6 stands in brackets. Ranges must have the same length on both sides and
//! give one [`PortSpec`] for each port.

mod grammar;

use core::{fmt, net::IpAddr, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::SpecError;

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
        grammar::parse(text)
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

#[cfg(test)]
mod tests;
