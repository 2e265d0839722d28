//! A node's part of the routing mesh: which ports answer on it, and where they lead (S10, S11).
//!
//! Each node has one endpoint on the ingress network, its **gate** ([`Role::Gate`](super::Role)), in a
//! network namespace of the daemon's own. What clients send to a published port of the node goes
//! through its gate to a task anywhere, under the client's address; the task's namespace sends the
//! answer back to the gate that the question came through, which it knows by the gate's Ethernet
//! address.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{EndpointId, MacAddr, NetworkId, Protocol, ServiceId, Subnet};

use super::{Backend, LocalEndpoint};

/// A node's part of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The ingress network.
    pub network: NetworkId,
    /// This node's gate.
    pub endpoint: EndpointId,
    /// The same as it is plugged in.
    pub gate: LocalEndpoint,
    /// Largest IP packet of the ingress network, in octets.
    pub mtu: u16,
    /// Ethernet addresses of the gates of all nodes, this one's included: tasks answer to these.
    pub gates: BTreeMap<EndpointId, MacAddr>,
    /// Services that publish ports in ingress mode.
    pub services: BTreeMap<ServiceId, MeshService>,
    /// Ethernet addresses of the tasks of these services, on whatever node.
    pub macs: BTreeMap<EndpointId, MacAddr>,
    /// Endpoints of this node that are tasks of these services, as they are plugged in. Their
    /// namespaces get what sends answers back.
    pub tasks: BTreeMap<EndpointId, LocalEndpoint>,
    /// Subnets of the cluster's networks: no client has an address in them.
    pub subnets: BTreeSet<Subnet>,
}

impl Mesh {
    /// Backends of a service: those that get new flows, and those that keep what they have.
    pub fn backends(&self, service: &MeshService) -> BTreeMap<EndpointId, Backend> {
        let mut backends = service.backends.clone();
        let is_here = |id: &EndpointId| self.tasks.contains_key(id);
        let has_own = backends.iter().any(|(id, backend)| is_here(id) && !backend.draining);
        if service.prefer_local && has_own {
            for (_, backend) in backends.iter_mut().filter(|(id, _)| !is_here(id)) {
                backend.draining = true;
            }
        }
        backends
    }
}

/// A service that publishes ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshService {
    /// Its ports in ingress mode.
    pub ports: Vec<MeshPort>,
    /// Its tasks that may get traffic, with their addresses on the ingress network, on whatever node.
    pub backends: BTreeMap<EndpointId, Backend>,
    /// New flows go to tasks of this node while it has any that takes some.
    pub prefer_local: bool,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshPort {
    /// Transport protocol on both sides.
    pub protocol: Protocol,
    /// Address that it answers on; `None` for all of the node's, an unspecified one for all of its
    /// version of IP. A node that does not have the address does not answer.
    pub bind: Option<IpAddr>,
    /// Port on which the node answers.
    pub published: u16,
    /// Port on which the task listens.
    pub target: u16,
}
