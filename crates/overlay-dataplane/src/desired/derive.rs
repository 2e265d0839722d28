//! From the replicated view to one node's dataplane.

mod mesh;

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use overlay_types::{
    Encapsulation, Endpoint, EndpointId, NetworkId, Node, NodeId, ServiceId, View,
};

use super::{
    Backend, Desired, LocalEndpoint, Network, PortKind, RemoteEndpoint, Role, Service, Settings,
};
use crate::mtu;

pub use self::mesh::mesh;

/// What only this node knows.
#[derive(Debug, Clone)]
pub struct Local {
    /// The node.
    pub node: NodeId,
    /// How its endpoints are plugged in; an endpoint that is not listed is not plugged in.
    pub ports: BTreeMap<EndpointId, PortKind>,
    /// MTU of the interface that the data-path address is on.
    pub underlay_mtu: u16,
}

/// What is left of a node whose daemon is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Its dataplane goes on: its tasks keep the flows that they have, and get no new ones, because nobody
    /// would know that one of them has ended.
    Headless {
        /// On encrypted networks, too; else it is down there.
        encrypted: bool,
    },
    /// Nothing: flows to its tasks end.
    Down,
}

/// The nodes whose daemons are not heard.
pub type Absences = BTreeMap<NodeId, Absence>;

/// The dataplane that `view` asks of a node, given which nodes are `absent`.
///
/// Endpoints of absent nodes stay in the forwarding tables, so that traffic flows the moment the
/// node is back, but services send nothing new to them. Associations are left to the caller: their
/// keys are not in the view.
pub fn derive(view: &View, absent: &Absences, local: &Local) -> Desired {
    let mut desired = Desired::default();
    // A gate alone is no reason to carry a network, as long as it is not plugged in.
    let own = view.endpoints_at(local.node);
    let own = own.filter(|e| !e.is_mesh() || local.ports.contains_key(&e.id));
    let here: BTreeSet<NetworkId> = own.map(|e| e.network).collect();
    for network in view.networks().values().filter(|network| here.contains(&network.id)) {
        let mut entry = Network::new(Settings {
            vni: network.vni,
            encrypted: network.spec.encrypted,
            multicast: network.spec.multicast,
            mtu: mtu(view, network, local),
            subnets: network.subnets.clone(),
        });
        place_endpoints(view, network.id, local, &mut entry);
        place_services(view, network, absent, &mut entry);
        desired.networks.insert(network.id, entry);
    }
    desired
}

/// Largest IP packet of a network on this node.
fn mtu(view: &View, network: &overlay_types::Network, local: &Local) -> u16 {
    let own = view.nodes().get(&local.node);
    let over_ipv6 = own.is_some_and(|node| node.data_path.is_ipv6());
    let esp = view.cluster().map_or_else(Encapsulation::default, |cluster| cluster.esp);
    let esp = network.spec.encrypted.then_some(esp);
    network.spec.mtu.unwrap_or_else(|| mtu::overlay(local.underlay_mtu, over_ipv6, esp))
}

fn place_endpoints(view: &View, network: NetworkId, local: &Local, entry: &mut Network) {
    let (here, there): (Vec<_>, Vec<_>) =
        view.endpoints_on(network).partition(|endpoint| endpoint.node == local.node);
    let plugged = |e: &Endpoint| Some((e.id, local_endpoint(e, local)?));
    entry.locals = here.into_iter().filter_map(plugged).collect();
    let reachable = |e: &Endpoint| {
        let node = data_path(view, e.node)?;
        Some((e.id, RemoteEndpoint { mac: e.mac, addresses: e.addresses, node }))
    };
    // All at once: there may be tens of thousands, in the order of the map.
    entry.remotes = there.into_iter().filter_map(reachable).collect();
    // Nearly all of them are on a node that is known by then: that is cheaper to find out without an order.
    let members: HashSet<_> = entry.remotes.values().map(|remote| remote.node).collect();
    entry.members = members.into_iter().collect();
}

fn place_services(
    view: &View,
    network: &overlay_types::Network,
    absent: &Absences,
    entry: &mut Network,
) {
    for service in view.services().values() {
        let Some(vips) = service.vips.get(&network.id).copied() else { continue };
        let backends = backends(view, service.id, network, absent);
        entry.services.insert(service.id, Service { vips, backends });
    }
}

/// An endpoint of this node as it is plugged in.
fn local_endpoint(endpoint: &Endpoint, local: &Local) -> Option<LocalEndpoint> {
    let port = local.ports.get(&endpoint.id).cloned()?;
    let role = if endpoint.is_mesh() { Role::Gate } else { Role::Station };
    Some(LocalEndpoint { mac: endpoint.mac, addresses: endpoint.addresses, port, role })
}

/// Tasks of a service on a network that may have flows.
fn backends(
    view: &View,
    service: ServiceId,
    network: &overlay_types::Network,
    absent: &Absences,
) -> BTreeMap<EndpointId, Backend> {
    let tasks = view.tasks_of(service).filter(|e| e.network == network.id);
    let backends = tasks.filter_map(|e| {
        let takes_new = match absent.get(&e.node) {
            Some(Absence::Headless { encrypted }) if *encrypted || !network.spec.encrypted => false,
            Some(_) => return None,
            None => e.is_ready() && !view.nodes().get(&e.node).is_some_and(Node::is_drained),
        };
        Some((e.id, Backend { addresses: e.addresses, draining: !takes_new }))
    });
    backends.collect()
}

fn data_path(view: &View, node: NodeId) -> Option<IpAddr> {
    let data_path = view.nodes().get(&node).map(|node| node.data_path);
    // Unspecified: another node has its address, and it has not said where it is.
    data_path.filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests;
