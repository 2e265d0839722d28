//! A view with many names, for benches.

use std::{collections::BTreeMap, net::Ipv4Addr};

use overlay_types::{
    Addresses, Change, Endpoint, EndpointId, EndpointRole, MacAddr, Meta, Network, NetworkDraft,
    NetworkId, NetworkSubnet, NodeId, Object, Readiness, Revision, Service, ServiceDraft,
    ServiceId, ServiceNetwork, Subnet, View, Vni,
};

/// Tasks of each service.
pub(crate) const TASKS: u32 = 10;
/// The network that all are on.
pub(crate) const NETWORK: NetworkId = NetworkId::from_u128(1);

/// One network with services, and their tasks spread over 1000 nodes.
pub(crate) fn of(services: u32) -> View {
    let subnet = Subnet::parse("subnet", "10.0.0.0/8").expect("a subnet");
    let network = Network {
        id: NETWORK,
        meta: Meta::default(),
        spec: NetworkDraft::new("front".parse().expect("a name")).try_into().expect("a spec"),
        vni: Vni::for_overlay(4097).expect("a VNI"),
        subnets: vec![NetworkSubnet { subnet, gateway: subnet.first() }],
    };
    let mut objects = vec![Object::Network(network)];
    for service in 0..services {
        objects.push(Object::Service(new_service(service)));
        objects.extend((0..TASKS).map(|task| Object::Endpoint(new_task(service, task))));
    }
    let mut view = View::default();
    view.apply(Revision::new(1), objects.into_iter().map(Change::Put));
    view
}

pub(crate) fn task_address(service: u32, task: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a10_0000 + service * TASKS + task)
}

/// The virtual address of a service.
pub(crate) fn virtual_address(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0000 + service)
}

fn new_service(number: u32) -> Service {
    let draft = ServiceDraft {
        networks: vec![ServiceNetwork { network: NETWORK, aliases: Vec::new() }],
        ..ServiceDraft::new(format!("service-{number}").parse().expect("a name"))
    };
    let v4 = Some(virtual_address(number));
    Service {
        id: ServiceId::from_u128(scatter(number)),
        meta: Meta::default(),
        spec: draft.try_into().expect("a spec"),
        vips: BTreeMap::from([(NETWORK, Addresses { v4, v6: None })]),
        previous: None,
    }
}

fn new_task(service: u32, task: u32) -> Endpoint {
    Endpoint {
        id: EndpointId::from_u128(scatter(service * TASKS + task)),
        meta: Meta::default(),
        network: NETWORK,
        node: NodeId::from_u128(u128::from((service * TASKS + task) % 1000)),
        service: Some(ServiceId::from_u128(scatter(service))),
        name: Some(format!("service-{service}.{task}").parse().expect("a name")),
        addresses: Addresses { v4: Some(task_address(service, task)), v6: None },
        mac: MacAddr::from_ipv4(task_address(service, task)),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    }
}

/// Ids are random, so neighbours in number are none in order. Odd factor: no two are equal.
fn scatter(number: u32) -> u128 {
    u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}
