//! What a user asks of an endpoint: one interface on one network.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
};

use serde::{Deserialize, Serialize};

use crate::{
    EndpointRole, HealthProbe, MacAddr, Name, NetworkId, NodeId, PortSpec, Readiness, ServiceId,
    SpecError, service::check_ports,
};

/// At most one address of each family.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Addresses {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Both addresses, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Whether `address` is one of the two.
    pub fn contains(self, address: IpAddr) -> bool {
        self.iter().any(|a| a == address)
    }

    /// Sets the address of its family.
    pub fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.v4 = Some(a),
            IpAddr::V6(a) => self.v6 = Some(a),
        }
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut this = Self::default();
        addresses.into_iter().for_each(|a| this.set(a));
        this
    }
}

/// An endpoint as it was asked for, before it is known to make sense.
///
/// A container on two networks has two endpoints. [`EndpointSpec::try_from`] checks the draft.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointDraft {
    /// The network it is on.
    pub network: NetworkId,
    /// The node that it lives on.
    pub node: NodeId,
    /// The service that it is a task of; `None` for a standalone endpoint.
    pub service: Option<ServiceId>,
    /// Its name in DNS.
    pub name: Option<Name>,
    /// Further names in DNS.
    pub aliases: Vec<Name>,
    /// Requested addresses; the cluster chooses the others.
    pub addresses: Addresses,
    /// Requested Ethernet address; `None` derives it.
    pub mac: Option<MacAddr>,
    /// Ports that a standalone endpoint publishes.
    pub ports: Vec<PortSpec>,
    /// What it is for.
    pub role: EndpointRole,
    /// Whether it takes new flows from the start.
    pub readiness: Readiness,
    /// How its node finds out whether it can take traffic. With a probe it begins as starting.
    pub health: Option<HealthProbe>,
}

impl EndpointDraft {
    /// A standalone endpoint without names, whose addresses the cluster chooses.
    pub const fn new(network: NetworkId, node: NodeId) -> Self {
        Self {
            network,
            node,
            service: None,
            name: None,
            aliases: Vec::new(),
            addresses: Addresses { v4: None, v6: None },
            mac: None,
            ports: Vec::new(),
            role: EndpointRole::Workload,
            readiness: Readiness::Ready,
            health: None,
        }
    }

    /// A node's place in the routing mesh.
    pub fn mesh(ingress: NetworkId, node: NodeId) -> Self {
        Self { role: EndpointRole::Mesh, ..Self::new(ingress, node) }
    }
}

/// An endpoint that makes sense in itself. Read it like an [`EndpointDraft`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "EndpointDraft", into = "EndpointDraft")]
pub struct EndpointSpec(EndpointDraft);

impl EndpointSpec {
    /// Most aliases of one endpoint.
    pub const MAX_ALIASES: usize = 64;

    /// A draft with the same content, to be changed and checked again.
    pub fn into_draft(self) -> EndpointDraft {
        self.0
    }
}

impl Deref for EndpointSpec {
    type Target = EndpointDraft;

    fn deref(&self) -> &EndpointDraft {
        &self.0
    }
}

impl From<EndpointSpec> for EndpointDraft {
    fn from(spec: EndpointSpec) -> Self {
        spec.0
    }
}

impl TryFrom<EndpointDraft> for EndpointSpec {
    type Error = SpecError;

    fn try_from(draft: EndpointDraft) -> Result<Self, SpecError> {
        if let Some(mac) = draft.mac.filter(|mac| !mac.is_unicast()) {
            return Err(SpecError::new("mac", mac, "an endpoint needs a unicast address"));
        }
        if draft.aliases.len() > Self::MAX_ALIASES {
            let reason = "an endpoint has at most 64 aliases";
            return Err(SpecError::new("alias", draft.aliases.len(), reason));
        }
        if let Some(port) = draft.ports.first().filter(|_| draft.service.is_some()) {
            let reason = "the ports of a task are published by its service";
            return Err(SpecError::new("publish", port, reason));
        }
        check_ports(&draft.ports)?;
        let begins = matches!(draft.readiness, Readiness::Ready | Readiness::Starting);
        if !begins {
            let reason = "an endpoint begins as ready or starting";
            return Err(SpecError::new("readiness", draft.readiness, reason));
        }
        check_mesh(&draft)?;
        Ok(Self(draft))
    }
}

/// A place in the routing mesh is its node's, and nobody asks for it by name.
fn check_mesh(draft: &EndpointDraft) -> Result<(), SpecError> {
    let plain = EndpointDraft {
        addresses: draft.addresses,
        mac: draft.mac,
        ..EndpointDraft::mesh(draft.network, draft.node)
    };
    if draft.role != EndpointRole::Mesh || *draft == plain {
        return Ok(());
    }
    let reason = "a node's place in the routing mesh has no service, name, port or probe";
    Err(SpecError::new("role", draft.role, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> EndpointDraft {
        EndpointDraft::new(NetworkId::from_u128(1), NodeId::from_u128(2))
    }

    #[test]
    fn a_group_address_is_refused() {
        let draft = EndpointDraft { mac: Some(MacAddr::BROADCAST), ..draft() };
        let error = EndpointSpec::try_from(draft).unwrap_err();
        assert_eq!((error.field(), error.value()), ("mac", "ff:ff:ff:ff:ff:ff"));
    }

    #[test]
    fn a_task_publishes_through_its_service() {
        let ports = PortSpec::parse("8080:80").unwrap();
        let standalone = EndpointDraft { ports: ports.clone(), ..draft() };
        assert!(EndpointSpec::try_from(standalone).is_ok());
        let task = EndpointDraft { ports, service: Some(ServiceId::from_u128(3)), ..draft() };
        assert_eq!(EndpointSpec::try_from(task).unwrap_err().field(), "publish");
    }

    #[test]
    fn s10_a_place_in_the_mesh_is_nothing_else() {
        let mesh = EndpointDraft::mesh(NetworkId::from_u128(1), NodeId::from_u128(2));
        assert!(EndpointSpec::try_from(mesh.clone()).is_ok());
        let named = EndpointDraft { name: Some("gate".parse().unwrap()), ..mesh.clone() };
        let task = EndpointDraft { service: Some(ServiceId::from_u128(3)), ..mesh };
        for draft in [named, task] {
            assert_eq!(EndpointSpec::try_from(draft).unwrap_err().field(), "role");
        }
    }

    #[test]
    fn s13_an_endpoint_does_not_begin_at_its_end() {
        let begins = |readiness| EndpointSpec::try_from(EndpointDraft { readiness, ..draft() });
        assert!(begins(Readiness::Starting).is_ok());
        assert_eq!(begins(Readiness::Draining).unwrap_err().field(), "readiness");
    }
}
