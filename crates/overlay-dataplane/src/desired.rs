//! What one node's dataplane should be: the whole state, as a value.

pub mod derive;
pub mod mesh;
pub mod uplink;

use core::net::IpAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use overlay_types::{
    Addresses, EndpointId, MacAddr, NetworkId, NetworkSubnet, ServiceId, Subnet, Vni,
};

pub use derive::{Absence, Absences, Local, derive, mesh as derive_mesh};
pub use mesh::{Mesh, MeshPort, MeshService};
pub use uplink::{Publisher, Uplink, Uplinks, uplinks};

use crate::sa::SaSet;

/// The full state of one node's dataplane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Networks with an endpoint on this node.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Security associations with other nodes.
    pub sas: SaSet,
}

/// One network as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What holds for all of it.
    pub settings: Settings,
    /// Data-path addresses of the other nodes with endpoints on it. Frames from any other address
    /// are refused.
    pub members: BTreeSet<IpAddr>,
    /// Endpoints on this node.
    pub locals: BTreeMap<EndpointId, LocalEndpoint>,
    /// Endpoints on other nodes.
    pub remotes: BTreeMap<EndpointId, RemoteEndpoint>,
    /// Services in VIP mode.
    pub services: BTreeMap<ServiceId, Service>,
}

impl Network {
    /// A network with these settings and nobody on it.
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            members: BTreeSet::new(),
            locals: BTreeMap::new(),
            remotes: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }
}

/// What holds for all of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// Frames leave the node inside ESP or not at all.
    pub encrypted: bool,
    /// Broadcast and multicast reach every member node.
    pub multicast: bool,
    /// Largest IP packet, in octets.
    pub mtu: u16,
    /// Subnets, each with the gateway that the switch answers for.
    pub subnets: Vec<NetworkSubnet>,
}

impl Settings {
    /// Subnets that an endpoint with these addresses is not in, each with the address that it speaks from
    /// there: it reaches them without a gateway between, because a network is one link.
    pub(crate) fn subnets_beyond(
        &self,
        addresses: &Addresses,
    ) -> impl Iterator<Item = (Subnet, IpAddr)> {
        let addresses: Vec<IpAddr> = addresses.iter().collect();
        let subnets = self.subnets.iter().map(|subnet| subnet.subnet);
        subnets.filter_map(move |subnet| {
            let mut same = addresses.iter().filter(|a| a.is_ipv4() == subnet.is_ipv4());
            let source = same.next().filter(|a| !subnet.contains(**a))?;
            Some((subnet, *source))
        })
    }
}

/// How an endpoint is plugged into this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PortKind {
    /// A ring of frames in memory, for whoever runs the endpoint in this process.
    #[default]
    Memory,
    /// A TAP device.
    Tap {
        /// Name of the device.
        name: String,
        /// Namespace to put it in; `None` is the daemon's own.
        netns: Option<PathBuf>,
    },
    /// One end of a veth pair; the other is on the network's bridge. Kernel dataplane only.
    Veth {
        /// Name of the interface.
        name: String,
        /// Namespace to put it in: a file that stands for one, or `/proc/PID/ns/net`.
        netns: PathBuf,
    },
}

/// What an endpoint is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// It speaks for itself.
    #[default]
    Station,
    /// The node's own gate into the routing mesh: it forwards the packets of clients, so these may have
    /// any source address. Its frames have its own Ethernet address like everybody's.
    Gate,
}

/// An endpoint on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// The only source address its frames may have.
    pub mac: MacAddr,
    /// The only source addresses its packets may have, unless it is a gate.
    pub addresses: Addresses,
    /// How it is plugged in.
    pub port: PortKind,
    /// What it is there for.
    pub role: Role,
}

impl LocalEndpoint {
    /// An endpoint that speaks for itself.
    pub const fn new(mac: MacAddr, addresses: Addresses, port: PortKind) -> Self {
        Self { mac, addresses, port, role: Role::Station }
    }
}

/// An endpoint on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteEndpoint {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Addresses,
    /// Data-path address of its node.
    pub node: IpAddr,
}

/// A service in VIP mode on one network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Its virtual addresses on this network.
    pub vips: Addresses,
    /// Its tasks that may get traffic.
    pub backends: BTreeMap<EndpointId, Backend>,
}

/// A task of a service, on the service's network. Ports are not translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Addresses of the task.
    pub addresses: Addresses,
    /// It keeps the flows that it has and gets no new ones. A backend that is not listed loses
    /// its flows.
    pub draining: bool,
}
