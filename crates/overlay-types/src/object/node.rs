//! Nodes: what they may do and what they can do.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{FeatureLevel, Name, NodeId, Revision, RootId};

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
