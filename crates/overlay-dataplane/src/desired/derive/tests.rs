use core::net::Ipv4Addr;

use overlay_types::{
    Addresses, Availability, Capabilities, Change, DataplaneKind, Endpoint, EndpointRole,
    FeatureLevel, MacAddr, Meta, Name, NetworkDraft, NetworkId, NetworkSpec, NetworkSubnet, Node,
    Object, Readiness, Revision, Role, ServiceDraft, ServiceId, ServiceSpec, Subnet, Vni,
};

use super::*;
use crate::{Observed, Op, desired::Role as DesiredRole, diff};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn node(number: u8) -> Object {
    let address = IpAddr::from([192, 0, 2, number]);
    Object::Node(Node {
        id: NodeId::from_u128(number.into()),
        meta: Meta::default(),
        name: name(&format!("node{number}")),
        role: Role::Worker,
        role_since: Revision::ZERO,
        host: None,
        control: (address, 2377).into(),
        gossip: (address, 7946).into(),
        data_path: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        capabilities: Capabilities {
            dataplane: DataplaneKind::User,
            encryption: true,
            ipv6: true,
            level: FeatureLevel::OURS,
        },
        root: overlay_types::RootId::default(),
    })
}

fn network(number: u8, change: impl FnOnce(&mut NetworkDraft)) -> Object {
    let mut draft = NetworkDraft::new(name(&format!("net{number}")));
    change(&mut draft);
    Object::Network(overlay_types::Network {
        id: NetworkId::from_u128(number.into()),
        meta: Meta::default(),
        spec: NetworkSpec::try_from(draft).unwrap(),
        vni: Vni::for_overlay(5000 + u32::from(number)).unwrap(),
        subnets: vec![NetworkSubnet {
            subnet: Subnet::parse("subnet", &format!("10.0.{number}.0/24")).unwrap(),
            gateway: [10, 0, number, 1].into(),
        }],
    })
}

fn endpoint(number: u8, network: u8, node: u8, service: Option<u8>) -> Object {
    let v4 = Ipv4Addr::new(10, 0, network, number);
    Object::Endpoint(Endpoint {
        id: EndpointId::from_u128(number.into()),
        meta: Meta::default(),
        network: NetworkId::from_u128(network.into()),
        node: NodeId::from_u128(node.into()),
        service: service.map(|s| ServiceId::from_u128(s.into())),
        name: None,
        addresses: Addresses { v4: Some(v4), v6: None },
        mac: MacAddr::from_ipv4(v4),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    })
}

fn service(number: u8, network: u8) -> Object {
    let vip = Addresses { v4: Some([10, 0, network, 100].into()), v6: None };
    Object::Service(overlay_types::Service {
        id: ServiceId::from_u128(number.into()),
        meta: Meta::default(),
        spec: ServiceSpec::try_from(ServiceDraft::new(name("web"))).unwrap(),
        vips: [(NetworkId::from_u128(network.into()), vip)].into(),
        previous: None,
    })
}

/// Nodes 1-3. Network 1 is on all, network 2 on 2 and 3 only, network 3 encrypted on 1 and 2.
fn view() -> View {
    let mut view = View::default();
    let objects = [
        node(1),
        node(2),
        node(3),
        network(1, |_| {}),
        network(2, |_| {}),
        network(3, |draft| draft.encrypted = true),
        service(7, 1),
        endpoint(11, 1, 1, Some(7)),
        endpoint(21, 1, 2, Some(7)),
        endpoint(31, 1, 3, Some(7)),
        endpoint(22, 2, 2, None),
        endpoint(32, 2, 3, None),
        endpoint(13, 3, 1, None),
        endpoint(23, 3, 2, None),
    ];
    view.apply(Revision::new(1), objects.map(Change::Put));
    view
}

fn local() -> Local {
    let ports = [11, 13].map(|id| (EndpointId::from_u128(id), PortKind::Memory));
    Local { node: NodeId::from_u128(1), ports: ports.into(), underlay_mtu: 1500 }
}

fn of(number: u128) -> NetworkId {
    NetworkId::from_u128(number)
}

#[test]
fn a_node_carries_the_networks_of_its_endpoints() {
    let desired = derive(&view(), &Absences::new(), &local());
    assert_eq!(desired.networks.keys().copied().collect::<Vec<_>>(), [of(1), of(3)]);
    let plain = &desired.networks[&of(1)];
    let others = [2, 3].map(|number| IpAddr::from([192, 0, 2, number]));
    assert_eq!(plain.members, BTreeSet::from(others));
    assert_eq!(plain.locals.keys().map(|e| e.to_u128()).collect::<Vec<_>>(), [11]);
    assert_eq!(plain.remotes.keys().map(|e| e.to_u128()).collect::<Vec<_>>(), [21, 31]);
    assert_eq!((plain.settings.mtu, desired.networks[&of(3)].settings.mtu), (1450, 1408));
    assert!(desired.networks[&of(3)].settings.encrypted);
}

#[test]
fn g04_a_dead_node_leaves_the_services_and_stays_in_the_tables() {
    let before = derive(&view(), &Absences::new(), &local());
    let after = derive(&view(), &[(NodeId::from_u128(2), Absence::Down)].into(), &local());
    let backends = |desired: &Desired| {
        let service = &desired.networks[&of(1)].services[&ServiceId::from_u128(7)];
        service.backends.keys().map(|e| e.to_u128()).collect::<Vec<_>>()
    };
    assert_eq!((backends(&before), backends(&after)), (vec![11, 21, 31], vec![11, 31]));
    assert_eq!(before.networks[&of(1)].remotes, after.networks[&of(1)].remotes);
    // One operation does it.
    let observed = Observed { networks: before.networks, ..Observed::default() };
    assert!(matches!(diff(&after, &observed)[..], [Op::PutService(..)]));
}

#[test]
fn d05_g04_tasks_keep_their_flows_while_their_nodes_daemon_is_away() {
    let plain = view();
    let mut sealed = view();
    let mut network = sealed.networks()[&of(1)].clone();
    let mut draft = network.spec.into_draft();
    draft.encrypted = true;
    network.spec = draft.try_into().unwrap();
    sealed.apply(Revision::new(2), [Change::Put(Object::Network(network))]);
    let backends = |view: &View, encrypted: bool| {
        let absent = [(NodeId::from_u128(2), Absence::Headless { encrypted })].into();
        let desired = derive(view, &absent, &local());
        let backends = &desired.networks[&of(1)].services[&ServiceId::from_u128(7)].backends;
        let backends = backends.iter().map(|(id, backend)| (id.to_u128(), backend.draining));
        backends.collect::<Vec<_>>()
    };
    let kept = [(11, false), (21, true), (31, false)];
    assert_eq!((backends(&plain, false), backends(&sealed, true)), (kept.into(), kept.into()));
    assert_eq!(backends(&sealed, false), [kept[0], kept[2]]);
}

#[test]
fn an_endpoint_that_is_not_plugged_in_yet_is_not_there() {
    let none = Local { ports: BTreeMap::new(), ..local() };
    let desired = derive(&view(), &Absences::new(), &none);
    assert_eq!(desired.networks[&of(1)].locals, BTreeMap::new());
}

#[test]
fn s15_a_task_publishes_what_its_service_does_in_host_mode() {
    let Object::Service(mut web) = service(7, 1) else { unreachable!() };
    let mut draft = web.spec.into_draft();
    let host = "published=8080,target=80,mode=host";
    for text in [host, "9090:90"] {
        draft.ports.extend(overlay_types::PortSpec::parse(text).unwrap());
    }
    web.spec = draft.try_into().unwrap();
    let mut view = view();
    view.apply(Revision::new(2), [Change::Put(Object::Service(web))]);
    let veth = PortKind::Veth { name: "eth0".into(), netns: "/run/netns/web".into() };
    let plugged = [(EndpointId::from_u128(11), veth)].into();
    let uplinks = super::super::uplinks(&view, NodeId::from_u128(1), &plugged);
    let publishers = uplinks.containers.values().flat_map(|uplink| uplink.endpoints.values());
    let publishers: Vec<_> = publishers.map(|p| (p.addresses, p.ports.clone())).collect();
    let expected = overlay_types::PortSpec::parse(host).unwrap();
    assert_eq!(publishers, [(Addresses::default(), expected)]);
}

#[test]
fn s13_only_who_is_ready_gets_new_flows() {
    let mut view = view();
    for (id, readiness) in [(11, Readiness::Starting), (21, Readiness::Draining)] {
        let Object::Endpoint(mut task) = endpoint(id, 1, id / 10, Some(7)) else { unreachable!() };
        task.readiness = readiness;
        view.apply(Revision::new(2), [Change::Put(Object::Endpoint(task))]);
    }
    let desired = derive(&view, &Absences::new(), &local());
    let backends = &desired.networks[&of(1)].services[&ServiceId::from_u128(7)].backends;
    let draining: Vec<_> = backends.values().map(|backend| backend.draining).collect();
    assert_eq!(draining, [true, true, false]);
}

/// A container is a namespace: its endpoints share one way out, if a network of them has any.
#[test]
fn n18_a_container_has_a_way_out_unless_all_its_networks_are_internal() {
    let mut publishing = endpoint(1, 1, 1, None);
    let Object::Endpoint(e) = &mut publishing else { unreachable!() };
    let ports = overlay_types::PortSpec::parse("8080:80").unwrap();
    e.extras = Some(Box::new(overlay_types::object::EndpointExtras {
        ports: ports.clone(),
        ..Default::default()
    }));
    let objects = [
        node(1),
        node(2),
        network(1, |_| {}),
        network(2, |draft| draft.internal = true),
        publishing,
        endpoint(2, 2, 1, None),
        endpoint(3, 2, 1, None),
        endpoint(4, 1, 1, None),
        endpoint(5, 1, 2, None),
    ];
    let mut view = View::default();
    view.apply(Revision::new(1), objects.map(Change::Put));
    let veth = |path: &str| PortKind::Veth { name: "eth0".into(), netns: path.into() };
    let tap =
        |netns: Option<&str>| PortKind::Tap { name: "tap0".into(), netns: netns.map(Into::into) };
    let ports_of = [
        (1, veth("/run/netns/both")),
        (2, tap(Some("/run/netns/both"))),
        (3, veth("/run/netns/inner")),
        (4, tap(None)),
        (5, veth("/run/netns/elsewhere")),
    ];
    let plugged = ports_of.map(|(id, port)| (EndpointId::from_u128(id), port)).into();
    let uplinks = super::super::uplinks(&view, NodeId::from_u128(1), &plugged);
    let all: Vec<_> = uplinks.containers.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(all, ["/run/netns/both"]);
    let uplink = uplinks.containers.values().next().unwrap();
    let endpoints: Vec<_> = uplink.endpoints.iter().map(|(id, p)| (*id, p.ports.clone())).collect();
    assert_eq!(endpoints, [(EndpointId::from_u128(1), ports)]);
    assert_eq!((uplink.subnets.len(), uplinks.subnets.len()), (2, 2));
}

/// An ingress network (9) with gates on all nodes, and a service that publishes there.
fn with_mesh() -> View {
    let mut view = view();
    let gate = |number: u8, node: u8| {
        let Object::Endpoint(e) = endpoint(number, 9, node, None) else { unreachable!() };
        Object::Endpoint(Endpoint { role: EndpointRole::Mesh, ..e })
    };
    let Object::Service(mut web) = service(8, 9) else { unreachable!() };
    let mut draft = web.spec.into_draft();
    for text in ["8080:80", "[::1]:53:5353/udp", "published=9090,target=90,mode=host"] {
        draft.ports.extend(overlay_types::PortSpec::parse(text).unwrap());
    }
    draft.prefer_local = true;
    web.spec = draft.try_into().unwrap();
    let objects = [
        network(9, |draft| draft.ingress = true),
        Object::Service(web),
        service(6, 9),
        gate(191, 1),
        gate(192, 2),
        gate(193, 3),
        endpoint(91, 9, 1, Some(8)),
        endpoint(92, 9, 2, Some(8)),
        endpoint(93, 9, 3, Some(8)),
        endpoint(94, 9, 1, Some(6)),
    ];
    view.apply(Revision::new(2), objects.map(Change::Put));
    view
}

fn with_gate() -> Local {
    let mut local = local();
    let more = [191, 91, 94].map(|id| (EndpointId::from_u128(id), PortKind::Memory));
    local.ports.extend(more);
    local
}

#[test]
fn s10_a_nodes_part_of_the_mesh_is_who_publishes_and_who_answers() {
    let dead = Absences::from([(NodeId::from_u128(3), Absence::Down)]);
    let mesh = mesh(&with_mesh(), &dead, &with_gate()).unwrap();
    assert_eq!((mesh.network, mesh.endpoint), (of(9), EndpointId::from_u128(191)));
    let gates: Vec<u128> = mesh.gates.keys().map(|id| id.to_u128()).collect();
    assert_eq!(gates, [191, 192, 193], "that of a dead node stays");
    let services: Vec<_> = mesh.services.iter().collect();
    let [(id, web)] = services[..] else { panic!("who publishes nothing is not there") };
    assert_eq!((*id, web.prefer_local), (ServiceId::from_u128(8), true));
    let ports: Vec<_> = web.ports.iter().map(|p| (p.bind, p.published, p.target)).collect();
    assert_eq!(ports, [(None, 8080, 80), (Some("::1".parse().unwrap()), 53, 5353)]);
    let backends: Vec<u128> = web.backends.keys().map(|id| id.to_u128()).collect();
    assert_eq!(backends, [91, 92]);
    let all = super::super::uplinks(&with_mesh(), local().node, &BTreeMap::new()).subnets;
    assert!(!all.is_empty() && mesh.subnets == all, "{all:?}");
    // Of this node's tasks those of services that publish.
    assert_eq!(mesh.tasks.keys().map(|id| id.to_u128()).collect::<Vec<_>>(), [91]);
}

#[test]
fn s10_without_a_gate_that_is_plugged_in_there_is_no_mesh() {
    let alive = Absences::new();
    assert_eq!(mesh(&view(), &alive, &local()), None);
    assert_eq!(mesh(&with_mesh(), &alive, &local()), None);
    let mut gate_only = with_mesh();
    let tasks = [91, 94].map(|id| overlay_types::ObjectKey::Endpoint(EndpointId::from_u128(id)));
    gate_only.apply(Revision::new(3), tasks.map(Change::Delete));
    assert!(!derive(&gate_only, &alive, &local()).networks.contains_key(&of(9)));
    assert!(derive(&gate_only, &alive, &with_gate()).networks.contains_key(&of(9)));
    let elsewhere = Local { node: NodeId::from_u128(4), ..with_gate() };
    assert_eq!(mesh(&with_mesh(), &alive, &elsewhere), None);
}

#[test]
fn s11_only_the_gate_sends_for_others() {
    let desired = derive(&with_mesh(), &Absences::new(), &with_gate());
    let roles = desired.networks[&of(9)].locals.iter().map(|(id, e)| (id.to_u128(), e.role));
    let expected =
        [(91, DesiredRole::Station), (94, DesiredRole::Station), (191, DesiredRole::Gate)];
    assert_eq!(roles.collect::<Vec<_>>(), expected);
}

#[test]
fn n18_a_gate_has_no_way_out_of_its_own() {
    let veth = |path: &str| PortKind::Veth { name: "eth0".into(), netns: path.into() };
    let ports = [(191, veth("/gate")), (91, veth("/task"))];
    let ports = ports.map(|(id, port)| (EndpointId::from_u128(id), port)).into();
    let uplinks = super::super::uplinks(&with_mesh(), local().node, &ports);
    assert_eq!(uplinks.containers.keys().collect::<Vec<_>>(), [std::path::Path::new("/task")]);
}
