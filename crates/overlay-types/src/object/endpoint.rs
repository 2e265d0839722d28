//! Endpoints as the cluster made them.

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{Addresses, EndpointId, MacAddr, Name, NetworkId, NodeId, PortSpec, ServiceId};

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

/// The parts of an [`Endpoint`] that most do not have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointExtras {
    /// Further names in DNS.
    pub aliases: Vec<Name>,
    /// Ports that it publishes.
    pub ports: Vec<PortSpec>,
}
