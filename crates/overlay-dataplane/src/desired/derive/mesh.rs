//! From the replicated view to one node's part of the routing mesh.

use std::collections::BTreeMap;

use overlay_types::{Service, ServiceId, View};

use super::{Absences, Local, backends, local_endpoint, mtu};
use crate::desired::{Mesh, MeshPort, MeshService, uplink::subnets};

/// The part of the mesh that `view` asks of a node, given which nodes are `absent`. `None` while the node
/// has no gate that is plugged in, and where there is no ingress network.
///
/// Gates of absent nodes stay, as their endpoints do: answers to what came through them find their way the
/// moment they are back.
pub fn mesh(view: &View, absent: &Absences, local: &Local) -> Option<Mesh> {
    let ingress = view.ingress()?;
    let network = ingress.id;
    let on_network = || view.endpoints_on(network);
    let own = on_network().find(|e| e.is_mesh() && e.node == local.node)?;
    let gate = local_endpoint(own, local)?;
    let service = |service: &Service| {
        let ports: Vec<MeshPort> = service
            .spec
            .mesh_ports()
            .filter_map(|port| {
                Some(MeshPort {
                    protocol: port.protocol,
                    bind: port.host_ip,
                    published: port.published?.get(),
                    target: port.target.get(),
                })
            })
            .collect();
        let backends = backends(view, service.id, ingress, absent);
        MeshService { ports, backends, prefer_local: service.spec.prefer_local }
    };
    let services = view.services_on(network).map(|s| (s.id, service(s)));
    let services: BTreeMap<ServiceId, MeshService> =
        services.filter(|(_, service)| !service.ports.is_empty()).collect();
    let tasks = on_network().filter(|e| {
        e.node == local.node && e.service.is_some_and(|service| services.contains_key(&service))
    });
    let tasks = tasks.filter_map(|e| Some((e.id, local_endpoint(e, local)?))).collect();
    let gates = on_network().filter(|e| e.is_mesh()).map(|e| (e.id, e.mac)).collect();
    let published = on_network().filter(|e| e.service.is_some_and(|s| services.contains_key(&s)));
    Some(Mesh {
        network,
        endpoint: own.id,
        gate,
        mtu: mtu(view, ingress, local),
        macs: published.map(|e| (e.id, e.mac)).collect(),
        gates,
        services,
        tasks,
        subnets: subnets(view),
    })
}
