//! Objects for tests.

use std::collections::BTreeMap;

use overlay_types::{
    Addresses, Availability, Capabilities, Change, DataplaneKind, Endpoint, EndpointId,
    EndpointMode, EndpointRole, FeatureLevel, MacAddr, Meta, Name, Network, NetworkDraft,
    NetworkId, NetworkSubnet, Node, NodeId, Object, PortSpec, Readiness, Revision, Role, Service,
    ServiceDraft, ServiceId, ServiceNetwork, Subnet, View, Vni, object::EndpointExtras,
};

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn addresses(list: &[&str]) -> Addresses {
    list.iter().map(|a| a.parse().unwrap()).collect()
}

pub(crate) fn network(id: u128, called: &str, subnets: &[&str]) -> Network {
    let subnets = subnets.iter().map(|text| {
        let subnet = Subnet::parse("subnet", text).unwrap();
        NetworkSubnet { subnet, gateway: subnet.first() }
    });
    let mut draft = NetworkDraft::new(name(called));
    draft.internal = called.starts_with("internal");
    draft.ingress = called.starts_with("ingress");
    draft.ipv6 = true;
    Network {
        id: NetworkId::from_u128(id),
        meta: Meta::default(),
        spec: draft.try_into().unwrap(),
        vni: Vni::for_overlay(4096 + u32::try_from(id).unwrap()).unwrap(),
        subnets: subnets.collect(),
    }
}

pub(crate) fn node(id: u128, availability: Availability) -> Node {
    let capabilities = Capabilities {
        dataplane: DataplaneKind::User,
        encryption: true,
        ipv6: true,
        level: FeatureLevel::OURS,
    };
    Node {
        id: NodeId::from_u128(id),
        meta: Meta::default(),
        name: name(&format!("n{id}")),
        role: Role::Worker,
        role_since: Revision::ZERO,
        host: None,
        availability,
        labels: BTreeMap::new(),
        control: "192.0.2.1:2377".parse().unwrap(),
        gossip: "192.0.2.1:7946".parse().unwrap(),
        data_path: "192.0.2.1".parse().unwrap(),
        capabilities,
        root: overlay_types::RootId::default(),
    }
}

/// A service on one network; in dnsrr mode if it has no address.
pub(crate) fn service(
    id: u128,
    called: &str,
    on: u128,
    aliases: &[&str],
    vip: &[&str],
    ports: &[&str],
) -> Service {
    let network = NetworkId::from_u128(on);
    let mode = if vip.is_empty() { EndpointMode::Dnsrr } else { EndpointMode::Vip };
    let draft = ServiceDraft {
        mode,
        networks: vec![ServiceNetwork {
            network,
            aliases: aliases.iter().map(|a| name(a)).collect(),
        }],
        ports: ports.iter().flat_map(|p| PortSpec::parse(p).unwrap()).collect(),
        ..ServiceDraft::new(name(called))
    };
    Service {
        id: ServiceId::from_u128(id),
        meta: Meta::default(),
        spec: draft.try_into().unwrap(),
        vips: BTreeMap::from([(network, addresses(vip))]),
        previous: None,
    }
}

pub(crate) fn endpoint(
    id: u128,
    called: Option<&str>,
    on: u128,
    node: u128,
    task_of: Option<u128>,
    at: &[&str],
) -> Endpoint {
    Endpoint {
        id: EndpointId::from_u128(id),
        meta: Meta::default(),
        network: NetworkId::from_u128(on),
        node: NodeId::from_u128(node),
        service: task_of.map(ServiceId::from_u128),
        name: called.map(name),
        addresses: addresses(at),
        mac: MacAddr::default(),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    }
}

pub(crate) fn with_extras(mut endpoint: Endpoint, aliases: &[&str], ports: &[&str]) -> Endpoint {
    endpoint.extras = Some(Box::new(EndpointExtras {
        aliases: aliases.iter().map(|a| name(a)).collect(),
        ports: ports.iter().flat_map(|p| PortSpec::parse(p).unwrap()).collect(),
        health: None,
    }));
    endpoint
}

pub(crate) fn with_readiness(endpoint: Endpoint, readiness: Readiness) -> Endpoint {
    Endpoint { readiness, ..endpoint }
}

pub(crate) fn view(objects: impl IntoIterator<Item = Object>) -> View {
    let mut view = View::default();
    view.apply(Revision::new(1), objects.into_iter().map(Change::Put));
    view
}

/// Networks `front` (1), `internal-back` (2), `ingress` (3) and `other` (4), with
/// `web` (VIP, nodes 1 to 3), `db` (dnsrr, on the internal network), `box` (standalone).
pub(crate) fn town() -> View {
    let mut box_ = endpoint(30, Some("box"), 1, 1, None, &["10.0.1.30", "fd00:1::30"]);
    box_ = with_extras(box_, &["crate", "Chest"], &["2222:22", "5353:53/udp"]);
    view([
        Object::Network(network(1, "front", &["10.0.1.0/24", "fd00:1::/64"])),
        Object::Network(network(2, "internal-back", &["10.0.2.0/24"])),
        Object::Network(network(3, "ingress", &["10.0.3.0/24"])),
        Object::Network(network(4, "other", &["10.0.4.0/24"])),
        Object::Service(service(
            10,
            "web",
            1,
            &["www", "shop.eu"],
            &["10.0.1.2", "fd00:1::2"],
            &["8080:80", "80:8443"],
        )),
        Object::Service(service(11, "db", 2, &["store"], &[], &[])),
        Object::Service(service(12, "mesh", 3, &[], &["10.0.3.2"], &[])),
        Object::Service(service(13, "far", 4, &["www"], &["10.0.4.2"], &[])),
        Object::Endpoint(endpoint(20, Some("web.1"), 1, 1, Some(10), &["10.0.1.20"])),
        Object::Endpoint(endpoint(21, Some("web.2"), 1, 2, Some(10), &["10.0.1.21", "fd00:1::21"])),
        Object::Endpoint(endpoint(22, None, 1, 3, Some(10), &["10.0.1.22"])),
        Object::Endpoint(endpoint(25, Some("db.1"), 2, 1, Some(11), &["10.0.2.25"])),
        Object::Endpoint(endpoint(26, Some("db.2"), 2, 2, Some(11), &["10.0.2.26"])),
        Object::Endpoint(endpoint(27, Some("mesh.1"), 3, 2, Some(12), &["10.0.3.27"])),
        Object::Endpoint(endpoint(28, Some("a..b"), 1, 1, None, &["10.0.1.28"])),
        Object::Endpoint(box_),
    ])
}
