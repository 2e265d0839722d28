//! Nodes' places in the routing mesh.

use overlay_types::{Availability, Change, EndpointRole, FeatureLevel, ObjectKey, Readiness};

use super::*;
use crate::state::Class;

fn mesh(lab: &mut Lab, node: u128) -> Action {
    let ingress = lab.state.ingress().unwrap().id;
    lab.attach(EndpointDraft::mesh(ingress, NodeId::from_u128(node)))
}

fn place(lab: &mut Lab, node: u128) -> Endpoint {
    let action = mesh(lab, node);
    match lab.run(action) {
        Response::Endpoint(endpoint) => endpoint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn s10_a_node_has_one_place_in_the_mesh() {
    let mut lab = Lab::new();
    let first = place(&mut lab, 1);
    assert_eq!((first.role, first.addresses.v4.is_some()), (EndpointRole::Mesh, true));
    let again = mesh(&mut lab, 1);
    let refusal = lab.refuse(again);
    assert_eq!(refusal.code(), "MESH_ENDPOINT");
    assert!(refusal.to_string().contains(&first.id.to_string()), "{refusal}");
    let second = place(&mut lab, 2);
    assert_ne!(first.mac, second.mac);
    // It is nobody's to detach or to drain.
    assert_eq!(lab.refuse(Action::DetachEndpoint(first.id)).code(), "MESH_ENDPOINT");
    let drain = Action::SetReadiness { id: first.id, to: Readiness::Draining };
    assert_eq!(lab.refuse(drain).code(), "MESH_ENDPOINT");
}

#[test]
fn s10_places_are_on_the_ingress_network_only() {
    let mut lab = Lab::new();
    let network = lab.network(net("web"));
    let action = lab.attach(EndpointDraft::mesh(network.id, NodeId::from_u128(1)));
    let refusal = lab.refuse(action);
    assert_eq!((refusal.class(), refusal.field()), (Class::InvalidArgument, Some("network")));
}

/// A cluster of so many nodes whose ingress network is this.
fn lab_on(nodes: u128, subnet: &str) -> Lab {
    let mut lab = Lab::new();
    for number in 3..=nodes {
        lab.run(Action::JoinNode(Node { role: Role::Worker, ..node(number) }));
    }
    lab.run(Action::RemoveNetwork(lab.state.ingress().unwrap().id.into()));
    let draft = NetworkDraft { ingress: true, ..NetworkDraft::new("own".parse().unwrap()) };
    lab.network(subnets(draft, &[subnet]));
    lab
}

#[test]
fn s10_places_leave_addresses_for_tasks_and_services() {
    // 13 that can be had.
    let mut lab = lab_on(12, "10.77.0.0/28");
    for number in 1..=10 {
        place(&mut lab, number);
    }
    let action = mesh(&mut lab, 11);
    let early = lab.state.check_room_for(&action).unwrap_err();
    let refusal = lab.refuse(action);
    assert_eq!((refusal.code(), refusal.field()), ("ADDRESSES_EXHAUSTED", Some("address")));
    assert_eq!(refusal, early);
    // Who has one is told that, and not that there is no room.
    let again = mesh(&mut lab, 1);
    assert_eq!(lab.state.check_room_for(&again), Ok(()));
    assert_eq!(lab.refuse(again).code(), "MESH_ENDPOINT");
    let text = refusal.to_string();
    assert!(text.contains("keeps 3 ") && text.contains("make it anew"), "{text}");

    // The rest is there for others, to the last.
    let ingress = lab.state.ingress().unwrap().id;
    let web = lab.service(svc("web", &[], &[]));
    lab.endpoint(task(&web, ingress, 11));
    lab.endpoint(task(&web, ingress, 12));
    // A node that goes makes room.
    for number in 3..=6 {
        lab.run(Action::RemoveNode(NodeId::from_u128(number)));
    }
    place(&mut lab, 11);
}

#[test]
fn s10_of_a_large_network_some_addresses_are_kept() {
    let kept = [1, 13, 253, 1021, 65_533].map(crate::state::endpoint::kept);
    assert_eq!(kept, [0, 3, 63, 255, 256]);
}

#[test]
fn c06_a_drained_node_has_its_place_all_the_same() {
    let mut lab = Lab::new();
    let node = lab.state.node(NodeId::from_u128(2)).unwrap().clone();
    let based_on = node.meta.changed_at;
    let node = Node { availability: Availability::Drain, ..node };
    lab.run(Action::UpdateNode { node, based_on });
    place(&mut lab, 2);
}

#[test]
fn n07_ingress_goes_with_the_places_on_it_and_can_be_made_anew() {
    let mut lab = Lab::new();
    let places = [place(&mut lab, 1), place(&mut lab, 2)];
    let old = lab.state.ingress().unwrap().clone();
    let web = lab.service(svc("web", &[], &[]));
    let task = lab.endpoint(task(&web, old.id, 1));
    let refusal = lab.refuse(Action::RemoveNetwork(old.id.into()));
    assert_eq!(refusal.code(), "NETWORK_IN_USE");
    assert!(!refusal.to_string().contains(&places[0].id.to_string()), "{refusal}");
    lab.run(Action::DetachEndpoint(task.id));
    lab.run(Action::RemoveService(web.id.into()));

    let removed = lab.apply(Action::RemoveNetwork(old.id.into())).unwrap();
    let keys = places.map(|place| Change::Delete(ObjectKey::Endpoint(place.id)));
    let network = Change::Delete(ObjectKey::Network(old.id));
    assert_eq!(removed.changes, [keys[0].clone(), keys[1].clone(), network]);
    let draft = NetworkDraft { ingress: true, ..NetworkDraft::new("own".parse().unwrap()) };
    let new = lab.network(subnets(draft, &["10.77.0.0/24"]));
    assert_eq!(place(&mut lab, 1).network, new.id);
}

#[test]
fn c06_a_place_goes_with_its_node() {
    let mut lab = Lab::new();
    lab.run(Action::JoinNode(Node { role: Role::Worker, ..node(3) }));
    let place = place(&mut lab, 3);
    let ingress = lab.state.ingress().unwrap().id;
    lab.run(Action::RemoveNode(NodeId::from_u128(3)));
    assert!(lab.state.endpoint(place.id).is_err());
    assert_eq!(lab.state.usage(ingress).unwrap()[0].used, 0);
}

#[test]
fn r08_places_wait_for_nodes_of_an_older_release() {
    let mut lab = Lab::blank();
    let mut first = node(1);
    first.capabilities.level = FeatureLevel::FIRST;
    lab.run(Action::InitCluster(Box::new(InitCluster { node: first, ..init(cluster()) })));
    let action = mesh(&mut lab, 1);
    assert_eq!(lab.refuse(action.clone()).code(), "FEATURE_LEVEL");
    let node = NodeId::from_u128(1);
    lab.run(Action::AnnounceLevel { node, level: FeatureLevel::SECOND });
    lab.run(action);
}
