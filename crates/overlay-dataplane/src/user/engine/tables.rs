//! Forwarding tables: immutable, built from the desired state, swapped whole.

use core::{fmt, net::IpAddr};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use overlay_types::{Addresses, EndpointId, MacAddr, Vni};

use super::hash::{Seed, mix};
use crate::{
    desired,
    wire::announcement::{Announcement, telling},
};

/// A port of the switch; chosen by whoever opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The switch itself, as endpoints see it: every gateway and virtual address answers with it.
///
/// Frames to it never leave the node as they are, so all networks and nodes can share it. `0a:42`
/// is no prefix that endpoints get theirs from.
pub const ROUTER_MAC: MacAddr = MacAddr([0x0a, 0x42, 0, 0, 0, 1]);

/// Where a port is and what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortBinding {
    /// The port.
    pub port: PortId,
    /// It takes and gives super-frames.
    pub offload: bool,
}

/// Who sits behind a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalPort {
    pub(super) binding: PortBinding,
    pub(super) mac: MacAddr,
    pub(super) addresses: Addresses,
    /// It is a gate, which sends packets of clients: from any IP address.
    pub(super) forwards: bool,
}

impl LocalPort {
    /// Whether its packets may have this source address.
    pub(super) fn may_send_from(&self, source: IpAddr) -> bool {
        self.forwards || self.addresses.contains(source)
    }
}

/// Where an Ethernet address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Station {
    /// Behind the port with this index in `NetworkTable::locals`.
    Local(u32),
    /// On the node with this data-path address.
    Remote(IpAddr),
}

/// One task of a service, in one address family.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackendEntry {
    pub(super) address: IpAddr,
    pub(super) mac: MacAddr,
    pub(super) draining: bool,
    /// From the address: a backend keeps its share of the flows whoever else comes and goes.
    weight: u64,
}

/// A service, in one address family.
#[derive(Debug, Default)]
pub(super) struct ServiceTable {
    pub(super) backends: Vec<BackendEntry>,
}

impl ServiceTable {
    /// The backend for a new flow: highest random weight (Thaler and Ravishankar 1998), so that a
    /// flow whose entry was lost finds its backend again, and a change moves few flows.
    pub(super) fn choose(&self, flow: u64) -> Option<&BackendEntry> {
        let takes_new = self.backends.iter().filter(|backend| !backend.draining);
        takes_new.max_by_key(|backend| mix(flow, backend.weight))
    }

    pub(super) fn find(&self, address: IpAddr) -> Option<&BackendEntry> {
        self.backends.iter().find(|backend| backend.address == address)
    }
}

/// One network's forwarding table.
#[derive(Debug)]
pub struct NetworkTable {
    pub(super) vni: Vni,
    pub(super) encrypted: bool,
    pub(super) multicast: bool,
    pub(super) mtu: usize,
    pub(super) members: HashSet<IpAddr, Seed>,
    pub(super) locals: Vec<LocalPort>,
    pub(super) fdb: HashMap<MacAddr, Station, Seed>,
    /// Endpoints by address, for ARP, ND and routing between subnets.
    pub(super) neighbors: HashMap<IpAddr, MacAddr, Seed>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) services: HashMap<IpAddr, ServiceTable, Seed>,
}

impl NetworkTable {
    /// The table of `network`. `binding` says which port an endpoint is on; endpoints without one
    /// are unreachable.
    pub fn build(
        network: &desired::Network,
        binding: impl Fn(EndpointId) -> Option<PortBinding>,
    ) -> Self {
        let settings = &network.settings;
        let mut table = Self {
            vni: settings.vni,
            encrypted: settings.encrypted,
            multicast: settings.multicast,
            mtu: settings.mtu.into(),
            members: network.members.iter().copied().collect(),
            locals: Vec::new(),
            fdb: HashMap::default(),
            neighbors: HashMap::default(),
            gateways: settings.subnets.iter().map(|subnet| subnet.gateway).collect(),
            services: HashMap::default(),
        };
        for endpoint in network.remotes.values() {
            table.fdb.insert(endpoint.mac, Station::Remote(endpoint.node));
            table.neighbors.extend(endpoint.addresses.iter().map(|a| (a, endpoint.mac)));
        }
        for (id, endpoint) in &network.locals {
            let Some(binding) = binding(*id) else { continue };
            let (mac, addresses) = (endpoint.mac, endpoint.addresses);
            table.fdb.insert(mac, Station::Local(table.locals.len() as u32));
            table.neighbors.extend(addresses.iter().map(|a| (a, mac)));
            let forwards = endpoint.role == desired::Role::Gate;
            table.locals.push(LocalPort { binding, mac, addresses, forwards });
        }
        for service in network.services.values() {
            for vip in service.vips.iter() {
                let entry = table.service_table(service, vip);
                table.services.insert(vip, entry);
            }
        }
        table
    }

    fn service_table(&self, service: &desired::Service, vip: IpAddr) -> ServiceTable {
        let mut backends = Vec::new();
        for backend in service.backends.values() {
            let same_family = backend.addresses.iter().filter(|a| a.is_ipv4() == vip.is_ipv4());
            for address in same_family {
                // A backend that is not on the network yet cannot be reached.
                let Some(mac) = self.neighbors.get(&address) else { continue };
                let bits = address_bits(address);
                let weight = mix(bits as u64, (bits >> 64) as u64);
                let draining = backend.draining;
                backends.push(BackendEntry { address, mac: *mac, draining, weight });
            }
        }
        ServiceTable { backends }
    }

    /// Whether the switch itself answers for `address`.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.gateways.contains(&address) || self.services.contains_key(&address)
    }

    /// Who has `address`: an endpoint, or the switch itself.
    pub(super) fn resolve(&self, address: IpAddr) -> Option<MacAddr> {
        let endpoint = self.neighbors.get(&address).copied();
        endpoint.or_else(|| self.is_own(address).then_some(ROUTER_MAC))
    }

    /// What its ports are to be told: addresses that resolve to something else than `before`, or did not
    /// there.
    pub fn announcements(&self, before: &Self) -> Vec<(PortId, Announcement)> {
        if self.locals.is_empty() {
            return Vec::new();
        }
        let virtuals = self.services.keys().map(|vip| (*vip, ROUTER_MAC));
        let all = self.neighbors.iter().map(|(address, mac)| (*address, *mac)).chain(virtuals);
        let new = all.filter(|(address, mac)| before.resolve(*address) != Some(*mac));
        let new = new.map(|(address, mac)| Announcement { address, mac });
        let ports: Vec<_> = self.locals.iter().map(|l| (l.binding.port, l.mac)).collect();
        telling(&ports, new).collect()
    }

    /// The gateway of `family_of`'s family, or `fallback`: who errors come from.
    pub(super) fn router_address(&self, family_of: IpAddr, fallback: IpAddr) -> IpAddr {
        let same = self.gateways.iter().find(|g| g.is_ipv4() == family_of.is_ipv4());
        same.copied().unwrap_or(fallback)
    }
}

/// An address as 128 bits; IPv4 mapped.
pub(super) fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// All networks of a node. Networks that did not change are shared with the tables before.
#[derive(Debug, Default)]
pub struct Tables {
    networks: Vec<Arc<NetworkTable>>,
    by_vni: HashMap<Vni, u32, Seed>,
    /// Network and index in its `locals`, by port number.
    ports: Vec<Option<(u32, u32)>>,
}

impl Tables {
    /// The tables of these networks.
    pub fn new(networks: impl IntoIterator<Item = Arc<NetworkTable>>) -> Self {
        let mut tables = Self::default();
        for network in networks {
            let index = tables.networks.len() as u32;
            tables.by_vni.insert(network.vni, index);
            for (local, port) in network.locals.iter().enumerate() {
                let number = port.binding.port.0 as usize;
                if tables.ports.len() <= number {
                    tables.ports.resize(number + 1, None);
                }
                tables.ports[number] = Some((index, local as u32));
            }
            tables.networks.push(network);
        }
        tables
    }

    pub(super) fn network(&self, vni: Vni) -> Option<&NetworkTable> {
        self.by_vni.get(&vni).map(|index| &*self.networks[*index as usize])
    }

    pub(super) fn port(&self, port: PortId) -> Option<(&NetworkTable, &LocalPort)> {
        let (network, local) = (*self.ports.get(port.0 as usize)?)?;
        let network = &self.networks[network as usize];
        Some((network, &network.locals[local as usize]))
    }
}
