//! Endpoints: addresses, capabilities, ports.

use core::net::IpAddr;

use overlay_ipam::{Family, Request};
use overlay_types::{
    Addresses, Availability, Endpoint, EndpointId, EndpointRole, EndpointSpec, MacAddr, Network,
    NetworkId, Node, NodeId, Object, ObjectKey, Readiness, object::EndpointExtras,
};

use super::{
    Action, Applied, Class, Rejection, Response, State,
    apply::{Context, MAX_ENDPOINTS, Outcome, check_room},
    index::PortUser,
    kind::Kind,
    rejection::some_of,
    service::families,
};

/// Most addresses of a family that nodes' places in the routing mesh leave to tasks and services.
const MOST_KEPT: u128 = 256;

impl State {
    pub(super) fn attach_endpoint(
        &mut self,
        context: Context,
        id: EndpointId,
        spec: &EndpointSpec,
    ) -> Outcome {
        check_room(Kind::Endpoint, self.view.endpoints().len(), MAX_ENDPOINTS)?;
        if self.view.endpoints().contains_key(&id) {
            return Err(Rejection::IdTaken { kind: Kind::Endpoint, id: id.to_string() });
        }
        let network = self.network(spec.network)?;
        let node = self.node(spec.node)?;
        check_capabilities(node, network)?;
        match spec.role {
            EndpointRole::Mesh => self.check_mesh(network, node)?,
            EndpointRole::Workload => self.check_admission(network, node, spec)?,
        }
        if let Some(mac) = spec.mac
            && let Some(holder) = self.index.macs.get(&(network.id, mac))
        {
            return Err(Rejection::MacTaken { mac, endpoint: holder.to_string() });
        }
        let user = PortUser::Endpoint(id);
        let ports = self.assign_ports(&spec.ports, &[], user)?;
        self.check_host_ports(spec.node, &ports.ports, user)?;

        let requests = requests(network, spec.addresses);
        let ipam = self.ipam.get_mut(&spec.network).expect("every network has its addresses");
        // Nothing after this can fail: an address is never left behind (R01).
        let addresses: Addresses = ipam.allocate_all(&requests)?.into_iter().collect();
        self.keep_port_cursor(&ports);
        let mac = spec.mac.unwrap_or_else(|| self.derive_mac(id, spec.network, addresses));
        let (aliases, health) = (spec.aliases.clone(), spec.health.clone());
        let readiness = if health.is_some() { Readiness::Starting } else { spec.readiness };
        let extras = EndpointExtras { aliases, ports: ports.ports, health };
        let endpoint = Endpoint {
            id,
            meta: context.created(),
            network: spec.network,
            node: spec.node,
            service: spec.service,
            name: spec.name.clone(),
            addresses,
            mac,
            role: spec.role,
            readiness,
            extras: (extras != EndpointExtras::default()).then(|| Box::new(extras)),
        };
        Ok(Applied::put(Response::Endpoint(endpoint.clone()), Object::Endpoint(endpoint)))
    }

    pub(super) fn detach_endpoint(&mut self, id: EndpointId) -> Outcome {
        let endpoint = self.view.endpoints().get(&id);
        let endpoint = endpoint.ok_or_else(|| Rejection::not_found(Kind::Endpoint, id))?;
        self.check_no_place_in_mesh(endpoint)?;
        let (network, addresses) = (endpoint.network, endpoint.addresses);
        for address in addresses.iter() {
            self.release(network, address);
        }
        Ok(Applied::deleted(ObjectKey::Endpoint(id)))
    }

    /// Gives an address of the view back.
    pub(super) fn release(&mut self, network: NetworkId, address: IpAddr) {
        let ipam = self.ipam.get_mut(&network).expect("every network has its addresses");
        ipam.release(address).expect("what the view holds is allocated");
    }

    /// An endpoint as messages name it.
    pub(super) fn endpoint_label(&self, endpoint: &Endpoint) -> String {
        let name = endpoint
            .name
            .as_ref()
            .map_or_else(|| endpoint.id.to_string(), |name| format!("{name} ({})", endpoint.id));
        match self.view.nodes().get(&endpoint.node) {
            Some(node) => format!("endpoint {name} on node {}", node.name),
            None => format!("endpoint {name}"),
        }
    }

    /// Whether the network takes this endpoint: tasks of services that are on it, and standalone
    /// ones if it is attachable (N04, N05).
    fn check_admission(
        &self,
        network: &Network,
        node: &Node,
        spec: &EndpointSpec,
    ) -> Result<(), Rejection> {
        if node.availability != Availability::Active {
            let (node, availability) = (node.name.clone(), node.availability);
            return Err(Rejection::NodeNotActive { node, availability });
        }
        let Some(service) = spec.service else {
            if network.spec.attachable {
                return Ok(());
            }
            let (name, ingress) = (network.spec.name.clone(), network.spec.ingress);
            return Err(Rejection::NotAttachable { network: name, ingress });
        };
        let service = self.service(service)?;
        if !service.vips.contains_key(&network.id) {
            let networks = service.vips.keys().filter_map(|id| self.view.networks().get(id));
            return Err(Rejection::ServiceNotOnNetwork {
                service: service.spec.name.clone(),
                network: network.spec.name.clone(),
                networks: some_of(networks.map(|n| n.spec.name.to_string())),
            });
        }
        let ports = &service.spec.ports;
        self.check_tasks_apart(service.id, ports, Some((spec.node, spec.network)))?;
        self.check_host_ports(spec.node, ports, PortUser::Service(service.id))
    }

    /// Whether the node gets a place in the routing mesh on this network, whatever its availability:
    /// it has none yet, and there is room.
    fn check_mesh(&self, network: &Network, node: &Node) -> Result<(), Rejection> {
        if !network.spec.ingress {
            let reason = "nodes have a place in the routing mesh on the ingress network only";
            return Err(Rejection::invalid("network", &network.spec.name, reason));
        }
        let there = self.place_on(network, node.id);
        there.map_or(Ok(()), |endpoint| self.check_no_place_in_mesh(endpoint))?;
        self.check_room_in_mesh(network)
    }

    /// A node's place in the routing mesh.
    fn place_on(&self, network: &Network, node: NodeId) -> Option<&Endpoint> {
        self.view.endpoints_at(node).find(|e| e.is_mesh() && e.network == network.id)
    }

    /// Refuses a place in the routing mesh for which there is no room, as far as it can be known before the
    /// write: thousands of nodes without one ask again and again, and would fill the log.
    pub fn check_room_for(&self, action: &Action) -> Result<(), Rejection> {
        match (action, self.ingress()) {
            (Action::AttachEndpoint { spec, .. }, Some(network))
                if spec.role == EndpointRole::Mesh
                    && self.place_on(network, spec.node).is_none() =>
            {
                self.check_room_in_mesh(network)
            }
            _ => Ok(()),
        }
    }

    /// Refuses a place that would leave too few addresses for tasks and virtual addresses. A node without
    /// one does not answer on published ports; a service without an address has nothing to answer with.
    fn check_room_in_mesh(&self, network: &Network) -> Result<(), Rejection> {
        let ipam = self.ipam_of(network.id)?;
        for family in families(&network.spec) {
            let usage = ipam.usage().filter(|usage| Family::of_subnet(usage.subnet) == family);
            let (all, left) = usage.fold((0_u128, 0_u128), |(all, left), usage| {
                let left = left.saturating_add(usage.available);
                (all.saturating_add(usage.used).saturating_add(usage.available), left)
            });
            let kept = kept(all);
            if left <= kept {
                let name = &network.spec.name;
                let message = format!(
                    "network {name:?} has {left} of {all} {family} addresses left, and keeps {kept} for \
                     tasks and virtual addresses: the node gets no place in the routing mesh; add a \
                     subnet to the network, or make it anew with a larger one (network rm {name}, \
                     network create --ingress --subnet SUBNET {name})"
                );
                return Err(Rejection::Addresses {
                    class: Class::ResourceExhausted,
                    field: "address".into(),
                    value: family.to_string(),
                    message,
                });
            }
        }
        Ok(())
    }

    /// Refuses to touch, or to have once more, a node's place in the routing mesh.
    pub(super) fn check_no_place_in_mesh(&self, endpoint: &Endpoint) -> Result<(), Rejection> {
        if !endpoint.is_mesh() {
            return Ok(());
        }
        let node = self.view.nodes().get(&endpoint.node);
        let node = node.map_or_else(|| endpoint.node.to_string(), |node| node.name.to_string());
        Err(Rejection::MeshEndpoint { endpoint: endpoint.id, node })
    }

    /// The Ethernet address of an endpoint that asked for none: from its IPv4 address (N15), or,
    /// without one or if somebody asked for that very address before, from its id.
    fn derive_mac(&self, id: EndpointId, network: NetworkId, addresses: Addresses) -> MacAddr {
        let free = |mac: &MacAddr| !self.index.macs.contains_key(&(network, *mac));
        if let Some(mac) = addresses.v4.map(MacAddr::from_ipv4).filter(free) {
            return mac;
        }
        let start = id.to_u128() as u32;
        (0..=u32::MAX)
            .map(|step| MacAddr::from_unique(start.wrapping_add(step)))
            .find(free)
            .expect("a network has fewer endpoints than there are 32-bit numbers")
    }
}

/// The requested address of each family of the network, or any. Requested addresses of other
/// families are passed on: IPAM says which subnets there are.
fn requests(network: &Network, requested: Addresses) -> Vec<Request<IpAddr>> {
    let mut requests: Vec<Request<IpAddr>> = requested.iter().map(Request::Exactly).collect();
    for family in families(&network.spec) {
        if !requested.iter().any(|address| Family::of(address) == family) {
            requests.push(Request::Any(family));
        }
    }
    requests
}

/// How many of the addresses of a family are not for places in the routing mesh.
pub(super) fn kept(all: u128) -> u128 {
    (all / 4).min(MOST_KEPT)
}

fn check_capabilities(node: &Node, network: &Network) -> Result<(), Rejection> {
    let needs = [
        ("encryption", network.spec.encrypted, node.capabilities.encryption),
        ("ipv6", network.spec.ipv6, node.capabilities.ipv6),
    ];
    match needs.into_iter().find(|(_, needed, has)| *needed && !has) {
        None => Ok(()),
        Some((capability, ..)) => Err(Rejection::MissingCapability {
            node: node.name.clone(),
            dataplane: node.capabilities.dataplane,
            capability: capability.into(),
            network: network.spec.name.clone(),
        }),
    }
}
