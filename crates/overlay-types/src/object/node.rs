//! Nodes: what they may do and what they can do.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{FeatureLevel, Name, NodeId, Revision, RootId, SpecError};

/// A host with a daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// The node's id.
    pub id: NodeId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// Its host name.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// The write that gave it this role.
    pub role_since: Revision,
    /// Whether it takes endpoints.
    pub availability: Availability,
    /// What its operator notes about it.
    pub labels: BTreeMap<String, String>,
    /// Where managers answer: gRPC over TLS. For a worker the address it would answer on.
    pub control: SocketAddr,
    /// Where its gossip answers, UDP and TCP.
    pub gossip: SocketAddr,
    /// Address that VXLAN and ESP leave from and arrive at.
    pub data_path: IpAddr,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What it says of its host; `None` until it has.
    pub host: Option<Box<HostReport>>,
    /// The root that signed the certificate that managers last saw it use.
    pub root: RootId,
}

impl Node {
    /// Whether its tasks get no new flows.
    pub fn is_drained(&self) -> bool {
        self.availability == Availability::Drain
    }
}

/// What a node may do in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the replicated state and votes.
    Manager,
    /// Carries endpoints.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        })
    }
}

/// Whether a node takes endpoints and new flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// It takes both.
    #[default]
    Active,
    /// It takes no new endpoints; those that are there go on.
    Pause,
    /// As [`Pause`](Self::Pause), and its tasks get no new flows: flows that they have go on, names
    /// do not resolve to them. What stands alone is no task, and stays.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

/// Which implementation carries a node's data traffic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataplaneKind {
    /// The Linux kernel.
    Kernel,
    /// The switch in user space.
    User,
}

impl fmt::Display for DataplaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::User => "user",
        })
    }
}

/// What a node can do; an attach that needs more is refused with the name of what is missing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// The dataplane it runs.
    pub dataplane: DataplaneKind,
    /// It can seal and open ESP.
    pub encryption: bool,
    /// It can carry IPv6 in overlays.
    pub ipv6: bool,
    /// What its release knows.
    pub level: FeatureLevel,
}

/// What a node says of its host: at each start, and when it changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostReport {
    /// Release of the kernel, as `uname -r` says it.
    pub kernel: String,
    /// What the host lacks for the kernel dataplane, and how to get it.
    pub missing: Vec<String>,
    /// MTU of the interface that the data-path address is on, in bytes.
    pub data_path_mtu: u16,
    /// What follows from it for networks without an MTU of their own, in bytes.
    pub plain_mtu: u16,
    /// The same for encrypted networks.
    pub encrypted_mtu: u16,
}

impl HostReport {
    /// Most lines of what is missing: every node holds those of all nodes.
    pub const MAX_MISSING: usize = 8;
    /// Most octets of one of them, and of the kernel's release.
    pub const MAX_LEN: usize = 160;

    /// A text as long as a report takes it, cut before a character that would be too much.
    pub fn cut(text: &str) -> &str {
        &text[..text.floor_char_boundary(Self::MAX_LEN)]
    }

    /// Refuses a report that is longer than reports are.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.missing.len() > Self::MAX_MISSING {
            let reason = format!("there are at most {} lines", Self::MAX_MISSING);
            return Err(SpecError::new("host.missing", self.missing.len(), reason));
        }
        let long = |text: &str| text.len() > Self::MAX_LEN;
        let texts = self.missing.iter().map(|line| ("host.missing", line));
        match core::iter::once(("host.kernel", &self.kernel)).chain(texts).find(|t| long(t.1)) {
            None => Ok(()),
            Some((field, text)) => {
                let reason = format!("it has at most {} octets", Self::MAX_LEN);
                Err(SpecError::new(field, text.chars().take(32).collect::<String>(), reason))
            }
        }
    }

    /// MTU of a network that asks for none.
    pub const fn derived_mtu(&self, encrypted: bool) -> u16 {
        if encrypted { self.encrypted_mtu } else { self.plain_mtu }
    }
}
