use overlay_types::{Addresses, MacAddr};

use super::*;
use crate::state::Class;

#[test]
fn n05_standalone_endpoints_need_an_attachable_network() {
    let mut lab = Lab::new();
    let closed = lab.network(NetworkDraft::new("closed".parse().unwrap()));
    let action = lab.attach(standalone(&closed, 1));
    let refusal = lab.refuse(action);
    assert_eq!(refusal.code(), "NOT_ATTACHABLE");
    assert!(refusal.to_string().contains("--attachable"), "{refusal}");
    let open = lab.network(net("open"));
    lab.endpoint(standalone(&open, 1));
}

#[test]
fn n04_ingress_is_hidden_from_standalone_endpoints() {
    let mut lab = Lab::new();
    let ingress = lab.state.ingress().unwrap().clone();
    let action = lab.attach(standalone(&ingress, 1));
    assert_eq!(lab.refuse(action).code(), "NOT_ATTACHABLE");
    let service = lab.service(svc("web", &[], &[]));
    lab.endpoint(task(&service, ingress.id, 1));
}

#[test]
fn a_task_attaches_where_its_service_is() {
    let mut lab = Lab::new();
    let (a, b) = (lab.network(net("a")), lab.network(net("b")));
    let service = lab.service(svc("web", &[a.id], &[]));
    let action = lab.attach(task(&service, b.id, 1));
    let refusal = lab.refuse(action);
    assert_eq!(refusal.code(), "SERVICE_NOT_ON_NETWORK");
    assert!(refusal.to_string().contains("but on a"), "{refusal}");
}

#[test]
fn n15_macs_come_from_addresses_and_are_unique() {
    let mut lab = Lab::new();
    let network = lab.network(net("a"));
    let first = lab.endpoint(standalone(&network, 1));
    assert_eq!(first.mac, MacAddr::from_ipv4(first.addresses.v4.unwrap()));
    let mut draft = standalone(&network, 1);
    draft.mac = Some(first.mac);
    let action = lab.attach(draft.clone());
    assert_eq!(lab.refuse(action).code(), "MAC_IN_USE");

    // Somebody asks for what the next endpoint would derive: that one still gets a unique one.
    let next = u32::from(first.addresses.v4.unwrap()) + 2;
    draft.mac = Some(MacAddr::from_ipv4(next.into()));
    lab.endpoint(draft);
    let third = lab.endpoint(standalone(&network, 2));
    assert_eq!(third.addresses.v4, Some(next.into()));
    assert_eq!(third.mac.0[..2], [0x06, 0x42]);

    let mut six = net("six");
    six.ipv4 = false;
    six.ipv6 = true;
    let six = lab.network(subnets(six, &["fd00::/64"]));
    let (a, b) = (lab.endpoint(standalone(&six, 1)), lab.endpoint(standalone(&six, 1)));
    assert_ne!(a.mac, b.mac);
    assert!(a.mac.is_unicast() && a.mac.0[0] == 0x06);
}

#[test]
fn n19_a_missing_capability_is_named() {
    let mut lab = Lab::new();
    let mut weak = node(3);
    weak.capabilities.encryption = false;
    weak.capabilities.ipv6 = false;
    lab.run(Action::JoinNode(weak));
    let sealed = lab.network(NetworkDraft { encrypted: true, ..net("sealed") });
    let action = lab.attach(standalone(&sealed, 3));
    let refusal = lab.refuse(action);
    assert_eq!(refusal.code(), "MISSING_CAPABILITY");
    assert!(refusal.to_string().contains("encryption"), "{refusal}");
    let dual = NetworkDraft { ipv6: true, ..subnets(net("dual"), &["10.9.0.0/24"]) };
    let mut dual = dual;
    dual.set_subnets(&["10.9.0.0/24".into(), "fd00::/64".into()], &[], &[], &[]).unwrap();
    let dual = lab.network(dual);
    let action = lab.attach(standalone(&dual, 3));
    assert!(lab.refuse(action).to_string().contains("ipv6"));
    lab.endpoint(standalone(&dual, 1));
}

#[test]
fn r01_a_refused_attach_leaves_no_address_behind() {
    let mut lab = Lab::new();
    let network = lab.network(subnets(net("a"), &["10.7.0.0/29"]));
    let mut draft = standalone(&network, 1);
    draft.addresses = "10.7.0.4".parse::<core::net::IpAddr>().into_iter().collect();
    lab.endpoint(draft.clone());
    let action = lab.attach(draft.clone());
    let refusal = lab.refuse(action);
    assert_eq!((refusal.code(), refusal.field()), ("ADDRESS_IN_USE", Some("address")));
    draft.addresses.v4 = Some([10, 8, 0, 4].into());
    let action = lab.attach(draft.clone());
    assert_eq!(lab.refuse(action).class(), Class::InvalidArgument);
    // A family that the network does not have.
    draft.addresses = Addresses { v4: None, v6: Some("fd00::1".parse().unwrap()) };
    let action = lab.attach(draft.clone());
    assert_eq!(lab.refuse(action).class(), Class::InvalidArgument);
    draft.addresses = Addresses::default();
    draft.node = NodeId::from_u128(99);
    let action = lab.attach(draft);
    assert_eq!(lab.refuse(action).code(), "NOT_FOUND");
    assert_eq!(lab.state.usage(network.id).unwrap()[0].used, 1);
}

#[test]
fn r01_a_freed_address_rests() {
    let mut lab = Lab::new();
    let network = lab.network(net("a"));
    let first = lab.endpoint(standalone(&network, 1));
    lab.run(Action::DetachEndpoint(first.id));
    assert_ne!(lab.endpoint(standalone(&network, 1)).addresses, first.addresses);
    assert_eq!(lab.refuse(Action::DetachEndpoint(first.id)).code(), "NOT_FOUND");
}
