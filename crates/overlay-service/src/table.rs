//! Virtual addresses and the backends behind them, for embedders that balance by themselves: a pure
//! function of the view and the dead nodes.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{
    Addresses, EndpointId, EndpointMode, NetworkId, Node, NodeId, ServiceId, View,
};

/// A task that takes flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    /// The task's endpoint.
    pub endpoint: EndpointId,
    /// The node that it lives on.
    pub node: NodeId,
    /// Its addresses on the network.
    pub addresses: Addresses,
    /// It is not ready, or its node is drained: it keeps the flows that it has and gets no new ones.
    pub draining: bool,
}

impl Backend {
    /// Its address of the same family as `other`.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.addresses.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.addresses.v6.map(IpAddr::V6),
        }
    }
}

/// A service on one of its networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualService {
    /// The network.
    pub network: NetworkId,
    /// The service.
    pub service: ServiceId,
    /// Its virtual addresses on the network; none in dnsrr mode.
    pub virtual_addresses: Addresses,
    /// Its tasks on live nodes, in the order of endpoint ids.
    pub backends: Vec<Backend>,
}

/// One service on all its networks, in the order of their ids: what to compute again after a change
/// to the service, its tasks or their nodes. Empty if the view has no such service.
pub fn virtual_services(
    view: &View,
    dead: &BTreeSet<NodeId>,
    service: ServiceId,
) -> Vec<VirtualService> {
    let Some(object) = view.services().get(&service) else { return Vec::new() };
    let mut rows: BTreeMap<NetworkId, VirtualService> = BTreeMap::new();
    for (network, addresses) in &object.vips {
        let virtual_addresses = match object.spec.mode {
            EndpointMode::Vip => *addresses,
            EndpointMode::Dnsrr => Addresses::default(),
        };
        let backends = Vec::new();
        let row = VirtualService { network: *network, service, virtual_addresses, backends };
        rows.insert(*network, row);
    }
    for task in view.tasks_of(service).filter(|task| !dead.contains(&task.node)) {
        if let Some(row) = rows.get_mut(&task.network) {
            let (node, addresses) = (task.node, task.addresses);
            let drained = view.nodes().get(&node).is_some_and(Node::is_drained);
            let draining = drained || !task.is_ready();
            row.backends.push(Backend { endpoint: task.id, node, addresses, draining });
        }
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{endpoint, node, town};
    use overlay_types::{Availability, Change, Object};

    fn rows(view: &View, dead: &[u128]) -> Vec<(u128, u128, String, Vec<u128>)> {
        let dead = dead.iter().map(|n| NodeId::from_u128(*n)).collect();
        view.services()
            .keys()
            .flat_map(|service| virtual_services(view, &dead, *service))
            .map(|row| {
                let vip: Vec<_> = row.virtual_addresses.iter().map(|a| a.to_string()).collect();
                let backends = row.backends.iter().map(|b| b.endpoint.to_u128()).collect();
                (row.service.to_u128(), row.network.to_u128(), vip.join(" "), backends)
            })
            .collect()
    }

    #[test]
    fn g04_backends_on_live_nodes_by_service_and_network() {
        let mut view = town();
        // A task on a network that its service is not on is no backend.
        let stray = endpoint(29, None, 4, 1, Some(10), &["10.0.4.29"]);
        view.apply(view.revision(), [Change::Put(Object::Endpoint(stray))]);
        let vip = "10.0.1.2 fd00:1::2".to_owned();
        let far = (13, 4, "10.0.4.2".to_owned(), vec![]);
        let mesh = |tasks| (12, 3, "10.0.3.2".to_owned(), tasks);
        assert_eq!(
            rows(&view, &[]),
            [
                (10, 1, vip.clone(), vec![20, 21, 22]),
                (11, 2, String::new(), vec![25, 26]),
                mesh(vec![27]),
                far.clone()
            ]
        );
        assert_eq!(
            rows(&view, &[2]),
            [(10, 1, vip, vec![20, 22]), (11, 2, String::new(), vec![25]), mesh(vec![]), far]
        );
    }

    #[test]
    fn c06_tasks_on_a_drained_node_are_draining() {
        let mut view = town();
        let drained = [node(1, Availability::Pause), node(2, Availability::Drain)];
        view.apply(view.revision(), drained.map(|node| Change::Put(Object::Node(node))));
        let rows = virtual_services(&view, &BTreeSet::new(), ServiceId::from_u128(10));
        let draining: Vec<_> =
            rows[0].backends.iter().map(|b| (b.endpoint.to_u128(), b.draining)).collect();
        assert_eq!(draining, [(20, false), (21, true), (22, false)]);
    }
}
