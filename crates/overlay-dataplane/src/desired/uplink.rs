//! The ways out of a node's containers, and what they publish (N18, S15, S16).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use overlay_types::{Addresses, Endpoint, EndpointId, NodeId, PortSpec, Subnet, View};

use super::PortKind;

/// Ways out of all containers of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplinks {
    /// By the file that stands for the container's namespace.
    pub containers: BTreeMap<PathBuf, Uplink>,
    /// Subnets of the cluster's networks: the gateway bridge's overlaps none of them.
    pub subnets: BTreeSet<Subnet>,
}

/// The way out of one container, for all its endpoints that are on networks which have one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplink {
    /// What its endpoints publish.
    pub endpoints: BTreeMap<EndpointId, Publisher>,
    /// Subnets of the networks that it is on, with those that have no way out.
    pub subnets: BTreeSet<Subnet>,
}

/// What an endpoint publishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publisher {
    /// Its addresses on its network: published ports answer there too, but for those of a task.
    pub addresses: Addresses,
    /// Its ports. One without a published port is not published.
    pub ports: Vec<PortSpec>,
}

/// The ways out that `view` asks of a node whose endpoints are plugged in like this.
///
/// A container has one when an endpoint of it is on a network that is not `internal`. Endpoints
/// without a namespace of their own, and gates of the routing mesh, have the host's.
pub fn uplinks(view: &View, node: NodeId, ports: &BTreeMap<EndpointId, PortKind>) -> Uplinks {
    let mut uplinks = Uplinks { containers: BTreeMap::new(), subnets: subnets(view) };
    for (id, port) in ports {
        let (Some(netns), Some(endpoint)) = (container(port), view.endpoints().get(id)) else {
            continue;
        };
        let network = view.networks().get(&endpoint.network);
        let here = endpoint.node == node && !endpoint.is_mesh();
        let Some(network) = network.filter(|_| here) else { continue };
        let uplink = uplinks.containers.entry(netns.to_owned()).or_default();
        uplink.subnets.extend(network.subnets.iter().map(|s| s.subnet));
        if !network.spec.internal {
            uplink.endpoints.insert(*id, publisher(view, endpoint));
        }
    }
    uplinks.containers.retain(|_, uplink| !uplink.endpoints.is_empty());
    uplinks
}

/// Subnets of the cluster's networks.
pub(super) fn subnets(view: &View) -> BTreeSet<Subnet> {
    let networks = view.networks().values();
    networks.flat_map(|network| network.subnets.iter().map(|s| s.subnet)).collect()
}

/// A task publishes what its service does in host mode (S15): on the node, and not on its own address,
/// where its service's clients use the target port.
fn publisher(view: &View, endpoint: &Endpoint) -> Publisher {
    let Some(service) = endpoint.service else {
        return Publisher { addresses: endpoint.addresses, ports: endpoint.ports().to_vec() };
    };
    let service = view.services().get(&service);
    let ports = service.map(|service| service.spec.host_ports().copied().collect());
    Publisher { addresses: Addresses::default(), ports: ports.unwrap_or_default() }
}

fn container(port: &PortKind) -> Option<&Path> {
    match port {
        PortKind::Veth { netns, .. } | PortKind::Tap { netns: Some(netns), .. } => Some(netns),
        PortKind::Memory | PortKind::Tap { netns: None, .. } => None,
    }
}
