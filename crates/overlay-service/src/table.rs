//! Virtual addresses and the backends behind them.
//!
//! What a dataplane is told, or an embedder balances by itself: a pure function of the view and
//! the dead nodes.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{Addresses, EndpointId, EndpointMode, NetworkId, NodeId, ServiceId, View};

/// A task that takes flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    /// The task's endpoint.
    pub endpoint: EndpointId,
    /// The node that it lives on.
    pub node: NodeId,
    /// Its addresses on the network.
    pub addresses: Addresses,
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

/// All services of `view` on all their networks, in the order of service and network ids.
pub fn service_table<'a>(
    view: &'a View,
    dead: &'a BTreeSet<NodeId>,
) -> impl Iterator<Item = VirtualService> + 'a {
    view.services().keys().flat_map(|id| service_rows(view, dead, *id))
}

/// One service on all its networks: what to compute again after a change to it or its tasks.
pub fn service_rows(
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
            row.backends.push(Backend { endpoint: task.id, node, addresses });
        }
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{endpoint, town};
    use overlay_types::{Change, Object};

    fn rows(view: &View, dead: &[u128]) -> Vec<(u128, u128, String, Vec<u128>)> {
        let dead = dead.iter().map(|n| NodeId::from_u128(*n)).collect();
        service_table(view, &dead)
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
}
