//! Where published ports lead, and whom a task takes a client for; pure.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use overlay_types::{Addresses, EndpointId, MacAddr, ServiceId, Subnet};

use crate::desired::{Mesh, MeshPort};

/// A task that a flow leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) task: EndpointId,
    /// Where the task listens.
    pub(super) address: SocketAddr,
    pub(super) mac: MacAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    id: EndpointId,
    addresses: Addresses,
    mac: MacAddr,
    draining: bool,
}

#[derive(Debug, Default)]
struct Service {
    tasks: Vec<Task>,
    /// Whose turn it is, of those that take new flows.
    turn: usize,
}

/// All published ports, and what the gate needs to know to lead somewhere.
#[derive(Debug, Default)]
pub(super) struct Ways {
    ports: BTreeMap<MeshPort, ServiceId>,
    services: BTreeMap<ServiceId, Service>,
    own: Addresses,
    subnets: Vec<Subnet>,
    /// Tasks see the gate's address instead of clients'.
    masquerade: bool,
    /// Ethernet address of the gate.
    pub(super) mac: MacAddr,
    /// Largest packet on the ingress network, in octets.
    pub(super) mtu: u16,
}

impl Ways {
    pub(super) fn new(masquerade: bool) -> Self {
        Self { masquerade, ..Self::default() }
    }

    /// Leads as `mesh` says from now on. Turns go on.
    pub(super) fn set(&mut self, mesh: &Mesh) {
        (self.own, self.mac, self.mtu) = (mesh.gate.addresses, mesh.gate.mac, mesh.mtu);
        self.subnets = mesh.subnets.iter().copied().collect();
        let mut before = core::mem::take(&mut self.services);
        self.ports.clear();
        for (id, service) in &mesh.services {
            self.ports.extend(service.ports.iter().map(|port| (*port, *id)));
            let backends = mesh.backends(service).into_iter();
            let tasks = backends.filter_map(|(id, backend)| {
                let (addresses, draining) = (backend.addresses, backend.draining);
                Some(Task { id, addresses, mac: *mesh.macs.get(&id)?, draining })
            });
            let turn = before.remove(id).map_or(0, |before| before.turn);
            self.services.insert(*id, Service { tasks: tasks.collect(), turn });
        }
    }

    /// Whether new flows of a port lead anywhere.
    pub(super) fn is_open(&self, port: &MeshPort) -> bool {
        self.service(port).is_some_and(|service| service.tasks.iter().any(|task| !task.draining))
    }

    fn service(&self, port: &MeshPort) -> Option<&Service> {
        self.services.get(self.ports.get(port)?)
    }

    /// The task whose turn it is, at its address of the client's version of IP, if it has one.
    pub(super) fn choose(&mut self, port: &MeshPort, client: IpAddr) -> Option<Goal> {
        let service = self.services.get_mut(self.ports.get(port)?)?;
        let takers: Vec<&Task> = service.tasks.iter().filter(|task| !task.draining).collect();
        let task = takers.get(service.turn % takers.len().max(1))?;
        service.turn = service.turn.wrapping_add(1);
        let Addresses { v4, v6 } = task.addresses;
        let (v4, v6) = (v4.map(IpAddr::from), v6.map(IpAddr::from));
        let address = if client.is_ipv4() { v4.or(v6) } else { v6.or(v4) };
        let address = SocketAddr::new(address?, port.target);
        Some(Goal { task: task.id, address, mac: task.mac })
    }

    /// Whether a flow of a port may go on.
    pub(super) fn keeps(&self, port: &MeshPort, goal: &Goal) -> bool {
        let is_it = |task: &Task| {
            task.id == goal.task && task.addresses.iter().any(|a| a == goal.address.ip())
        };
        self.service(port).is_some_and(|service| service.tasks.iter().any(is_it))
    }

    /// The address that a task sees a client at: its own, unless answers could not find back through this
    /// gate then. `None` if the gate has none of the task's version of IP.
    pub(super) fn seen_as(&self, client: IpAddr, task: IpAddr) -> Option<IpAddr> {
        let is_elsewhere = match client {
            IpAddr::V4(client) => {
                !client.is_loopback() && !client.is_link_local() && !client.is_unspecified()
            }
            IpAddr::V6(client) => {
                !client.is_loopback() && !client.is_unicast_link_local() && !client.is_unspecified()
            }
        };
        let is_inside = self.subnets.iter().any(|subnet| subnet.contains(client));
        if !self.masquerade && is_elsewhere && !is_inside && client.is_ipv4() == task.is_ipv4() {
            return Some(client);
        }
        self.own.iter().find(|own| own.is_ipv4() == task.is_ipv4())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::collections::BTreeSet;

    use overlay_types::{NetworkId, Protocol};

    use super::*;
    use crate::desired::{Backend, LocalEndpoint, MeshService, PortKind};

    pub(in super::super) const PORT: MeshPort =
        MeshPort { protocol: Protocol::Tcp, bind: None, published: 8080, target: 80 };

    pub(in super::super) fn addresses(number: u8) -> Addresses {
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
        Addresses { v4: Some(Ipv4Addr::new(10, 0, 0, number)), v6: Some(v6) }
    }

    /// A mesh with a service of tasks of these numbers, of which some drain.
    pub(in super::super) fn mesh(tasks: &[(u8, bool)]) -> Mesh {
        let endpoint = |number: u8| EndpointId::from_u128(number.into());
        let mac = |number: u8| MacAddr([2, 0, 0, 0, 0, number]);
        let backend = |(number, draining): &(u8, bool)| {
            (endpoint(*number), Backend { addresses: addresses(*number), draining: *draining })
        };
        let service = MeshService {
            ports: vec![PORT],
            backends: tasks.iter().map(backend).collect(),
            prefer_local: false,
        };
        Mesh {
            network: NetworkId::from_u128(1),
            endpoint: endpoint(200),
            gate: LocalEndpoint::new(mac(200), addresses(200), PortKind::Memory),
            mtu: 1450,
            gates: BTreeMap::from([(endpoint(200), mac(200))]),
            services: BTreeMap::from([(ServiceId::from_u128(1), service)]),
            macs: tasks.iter().map(|(number, _)| (endpoint(*number), mac(*number))).collect(),
            tasks: BTreeMap::new(),
            subnets: BTreeSet::from(["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
        }
    }

    fn chosen(ways: &mut Ways, count: usize) -> Vec<u128> {
        let client = IpAddr::from([192, 0, 2, 1]);
        (0..count).filter_map(|_| Some(ways.choose(&PORT, client)?.task.to_u128())).collect()
    }

    #[test]
    fn s10_tasks_take_turns_and_those_that_drain_keep_what_they_have() {
        let mut ways = Ways::default();
        assert!(!ways.is_open(&PORT));
        ways.set(&mesh(&[(1, false), (2, false), (3, true)]));
        assert_eq!(chosen(&mut ways, 4), [1, 2, 1, 2]);
        let goal = ways.choose(&PORT, "2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(goal.address, "[fd00::1]:80".parse().unwrap());
        ways.set(&mesh(&[(1, true), (2, false)]));
        assert_eq!(chosen(&mut ways, 2), [2, 2]);
        assert!(ways.keeps(&PORT, &goal));
        ways.set(&mesh(&[(1, true)]));
        assert!(!ways.is_open(&PORT) && chosen(&mut ways, 1).is_empty());
        ways.set(&mesh(&[(2, false)]));
        assert!(!ways.keeps(&PORT, &goal));
    }

    #[test]
    fn s11_a_task_sees_the_client_unless_answers_would_not_find_back() {
        let mut ways = Ways::default();
        ways.set(&mesh(&[(1, false)]));
        let cases = [
            ("192.0.2.1", "10.0.0.1", "192.0.2.1"),
            ("2001:db8::1", "fd00::1", "2001:db8::1"),
            // This host, and what is an address of the cluster's networks.
            ("127.0.0.1", "10.0.0.1", "10.0.0.200"),
            ("::1", "fd00::1", "fd00::c8"),
            ("10.0.0.7", "10.0.0.1", "10.0.0.200"),
            ("fe80::1", "fd00::1", "fd00::c8"),
            // The task has no address of the client's version of IP.
            ("2001:db8::1", "10.0.0.1", "10.0.0.200"),
        ];
        let seen_as = |ways: &Ways, client: &str, task: &str| {
            ways.seen_as(client.parse().unwrap(), task.parse().unwrap()).unwrap().to_string()
        };
        for (client, task, expected) in cases {
            assert_eq!(seen_as(&ways, client, task), expected, "{client}");
        }
        ways.masquerade = true;
        assert_eq!(seen_as(&ways, "192.0.2.1", "10.0.0.1"), "10.0.0.200");
    }
}
