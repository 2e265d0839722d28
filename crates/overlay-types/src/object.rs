//! Replicated objects, as every node sees them.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Addresses, ClusterId, EndpointId, Epoch, MacAddr, Name, NetworkId, NetworkSpec, NodeId,
    PortSpec, Revision, ServiceId, ServiceSpec, Subnet, Vni,
};

/// Which writes made and last changed an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Revision of the write that created it.
    pub created_at: Revision,
    /// Revision of the last write that changed it. An update names it and is refused when old.
    pub changed_at: Revision,
}

impl Meta {
    /// An object made at `revision`.
    pub const fn created(revision: Revision) -> Self {
        Self { created_at: revision, changed_at: revision }
    }
}

/// A pool that networks without a requested subnet take theirs from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DefaultPool {
    /// The pool.
    pub pool: Subnet,
    /// Length of the prefix of each subnet cut from it.
    pub subnet_len: u8,
}

/// What holds for the whole cluster; one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id.
    pub id: ClusterId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// UDP port of plain VXLAN, 1024-49151.
    pub vxlan_port: u16,
    /// UDP port of VXLAN inside ESP; never seen outside it.
    pub encrypted_vxlan_port: u16,
    /// UDP port of ESP (RFC 3948).
    pub esp_port: u16,
    /// Pools for networks without a requested subnet, in order of preference.
    pub default_pools: Vec<DefaultPool>,
    /// Time from one key epoch to the next.
    pub rotation_period: Duration,
    /// Nodes that were removed while a certificate of theirs may still be valid, and until when:
    /// nobody talks to them.
    pub removed_nodes: BTreeMap<NodeId, UnixMillis>,
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
    /// do not resolve to them.
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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
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
}

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
}

/// A subnet of a network, with its gateway settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The subnet.
    pub subnet: Subnet,
    /// Its gateway.
    pub gateway: IpAddr,
}

/// An overlay network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// The network's id.
    pub id: NetworkId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// Its subnets, requested or taken from the default pools.
    pub subnets: Vec<NetworkSubnet>,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// The service's id.
    pub id: ServiceId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// What was asked for.
    pub spec: ServiceSpec,
    /// The networks it is on, each with its virtual addresses: none in dnsrr mode.
    pub vips: BTreeMap<NetworkId, Addresses>,
}

/// One interface of a task or container on one network.
///
/// Rarely used parts share one allocation: a node holds up to 200 000 of these.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The endpoint's id.
    pub id: EndpointId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// The network it is on.
    pub network: NetworkId,
    /// The node it lives on.
    pub node: NodeId,
    /// The service that it is a task of.
    pub service: Option<ServiceId>,
    /// Its name in DNS.
    pub name: Option<Name>,
    /// Its addresses.
    pub addresses: Addresses,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Aliases and ports; `None` when it has neither.
    pub extras: Option<Box<EndpointExtras>>,
}

/// The parts of an [`Endpoint`] that most do not have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointExtras {
    /// Further names in DNS.
    pub aliases: Vec<Name>,
    /// Ports that it publishes.
    pub ports: Vec<PortSpec>,
}

impl Endpoint {
    /// Further names in DNS.
    pub fn aliases(&self) -> &[Name] {
        self.extras.as_ref().map_or(&[], |e| &e.aliases)
    }

    /// Ports that it publishes.
    pub fn ports(&self) -> &[PortSpec] {
        self.extras.as_ref().map_or(&[], |e| &e.ports)
    }
}

/// State of a key epoch.
///
/// ```text
/// preparing ──► ready ──► active ──► retired
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EpochState {
    /// Nodes make key pairs and publish the public halves.
    Preparing,
    /// Public keys are known; nodes install their receive associations.
    Ready,
    /// Nodes send with it.
    Active,
    /// A newer epoch is active; receive associations drain, then keys are erased.
    Retired,
}

impl fmt::Display for EpochState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Retired => "retired",
        })
    }
}

/// Milliseconds since the start of 1970, UTC, without leap seconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The time `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this one; zero if it lies behind.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A generation of data-plane keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// How far it is.
    pub state: EpochState,
    /// When the state ends, whoever leads then: the grace period of `preparing` and `ready`, the
    /// rotation deadline of `active`.
    pub deadline: UnixMillis,
}

/// Public half of a node's X25519 key pair for one epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeKey {
    /// The node.
    pub node: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// Writes that made and changed it. A node that restarts publishes a new key for the epoch.
    pub meta: Meta,
    /// The public key (RFC 7748).
    pub public: [u8; 32],
    /// The node has installed its receive associations for this epoch.
    pub ready: bool,
}

/// A key of the gossip ring. Secret: only members and their managers see it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Its generation.
    pub epoch: Epoch,
    /// The AES-256 key.
    pub key: [u8; 32],
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The gossip ring: next, current and previous key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GossipKeys {
    /// Writes that made and changed it.
    pub meta: Meta,
    /// Sealed with by everyone.
    pub current: Epoch,
    /// Two or three keys, the current one among them, by epoch.
    pub keys: Vec<GossipKey>,
    /// When the next rotation step is due.
    pub deadline: UnixMillis,
}
