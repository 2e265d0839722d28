//! Endpoints as the cluster made them.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{
    Addresses, EndpointId, HealthProbe, MacAddr, Name, NetworkId, NodeId, PortSpec, ServiceId,
    SpecError,
};

/// What an endpoint is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointRole {
    /// A task or something standalone.
    #[default]
    Workload,
    /// A node's place in the routing mesh: what comes to its published ports enters the ingress
    /// network here. Each node makes its own; it goes with the network or the node.
    Mesh,
}

impl fmt::Display for EndpointRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Workload => "workload",
            Self::Mesh => "mesh",
        })
    }
}

/// Whether an endpoint takes new flows, and is in DNS answers. Flows that it has go on in every
/// state.
///
/// ```text
///  attach ──► starting ──► ready ◄──► failing    by a probe of its node, which begins as starting
///     └──────────────────►
///
///  any ──► starting, ready or draining            by its owner
/// ```
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It does.
    #[default]
    Ready,
    /// Not yet.
    Starting,
    /// Its probe fails.
    Failing,
    /// Not any more: its owner is about to detach it.
    Draining,
}

impl Readiness {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Failing => "failing",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Readiness {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let all = [Self::Ready, Self::Starting, Self::Failing, Self::Draining];
        all.into_iter().find(|readiness| readiness.as_str() == text).ok_or_else(|| {
            SpecError::new("readiness", text, "it is ready, starting, failing or draining")
        })
    }
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
    /// What it is for.
    pub role: EndpointRole,
    /// Whether it takes new flows.
    pub readiness: Readiness,
    /// Aliases, ports and probe; `None` when it has none of them.
    pub extras: Option<Box<EndpointExtras>>,
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

    /// How its node finds out whether it can take traffic.
    pub fn health(&self) -> Option<&HealthProbe> {
        self.extras.as_ref()?.health.as_ref()
    }

    /// Whether it is a node's place in the routing mesh.
    pub fn is_mesh(&self) -> bool {
        self.role == EndpointRole::Mesh
    }

    /// Whether it takes new flows, as far as it is up to itself.
    pub fn is_ready(&self) -> bool {
        self.readiness == Readiness::Ready
    }
}

/// The parts of an [`Endpoint`] that most do not have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointExtras {
    /// Further names in DNS.
    pub aliases: Vec<Name>,
    /// Ports that it publishes.
    pub ports: Vec<PortSpec>,
    /// How its node finds out whether it can take traffic.
    pub health: Option<HealthProbe>,
}
