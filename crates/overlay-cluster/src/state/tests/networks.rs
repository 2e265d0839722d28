use overlay_types::{Change, DefaultPool, NetworkSpec, ObjectKey, Vni};
use rstest::rstest;

use super::*;
use crate::state::{Class, Kind, Wanted};

fn subnet_texts(network: &Network) -> Vec<String> {
    network.subnets.iter().map(|s| s.subnet.to_string()).collect()
}

#[test]
fn n02_ingress_takes_the_first_subnet_of_a_custom_pool_and_networks_follow() {
    let mut lab = Lab::blank();
    let mut cluster = cluster();
    let pool = "172.20.0.0/14".parse().unwrap();
    cluster.default_pools = vec![DefaultPool { pool, subnet_len: 20 }];
    lab.run(Action::InitCluster(Box::new(init(cluster))));
    let ingress = lab.state.ingress().unwrap().clone();
    assert_eq!(subnet_texts(&ingress), ["172.20.0.0/20"]);
    assert_eq!(subnet_texts(&lab.network(net("a"))), ["172.20.16.0/20"]);
    assert_eq!(subnet_texts(&lab.network(net("b"))), ["172.20.32.0/20"]);
}

#[test]
fn n02_overlap_with_a_network_or_a_route_of_the_host_is_refused_by_name() {
    let mut lab = Lab::new();
    lab.network(subnets(net("web"), &["10.7.0.0/16"]));
    let action = lab.create_network(subnets(net("db"), &["10.7.3.0/24"]));
    let refusal = lab.refuse(action);
    assert_eq!(refusal.class(), Class::FailedPrecondition);
    let text = refusal.to_string();
    assert!(text.contains("10.7.3.0/24") && text.contains("network web"), "{text}");

    let mut action = lab.create_network(subnets(net("db"), &["10.8.0.0/24"]));
    if let Action::CreateNetwork { host_routes, .. } = &mut action {
        host_routes.push("10.8.0.0/16".parse().unwrap());
    }
    let text = lab.refuse(action).to_string();
    assert!(text.contains("host route 10.8.0.0/16"), "{text}");
}

#[test]
fn n03_exhausted_pools_are_told_at_create() {
    let mut lab = Lab::blank();
    let mut cluster = cluster();
    let pool = "172.20.0.0/23".parse().unwrap();
    cluster.default_pools = vec![DefaultPool { pool, subnet_len: 24 }];
    lab.run(Action::InitCluster(Box::new(init(cluster))));
    lab.network(net("a"));
    let action = lab.create_network(net("b"));
    assert_eq!(lab.refuse(action).class(), Class::ResourceExhausted);
}

#[test]
fn n01_names_are_unique_without_regard_to_case() {
    let mut lab = Lab::new();
    lab.network(net("web"));
    let action = lab.create_network(net("WEB"));
    assert_eq!(lab.refuse(action).code(), "NAME_TAKEN");
}

#[test]
fn n06_there_is_one_ingress_network() {
    let mut lab = Lab::new();
    let mut draft = NetworkDraft::new("mesh".parse().unwrap());
    draft.ingress = true;
    let action = lab.create_network(draft);
    let refusal = lab.refuse(action);
    assert_eq!(refusal.code(), "INGRESS_EXISTS");
    assert!(refusal.to_string().contains("\"ingress\""), "{refusal}");
}

#[test]
fn n07_ingress_can_be_recreated_under_any_name() {
    let mut lab = Lab::new();
    let ingress = lab.state.ingress().unwrap().id;
    let published = lab.service(svc("web", &[], &["8080:80"]));
    let quiet = lab.service(svc("quiet", &[], &[]));
    let refusal = lab.refuse(Action::RemoveNetwork(ingress.into()));
    assert!(refusal.to_string().contains("service web"), "{refusal}");
    assert!(!refusal.to_string().contains("quiet"), "{refusal}");

    lab.run(Action::RemoveService(published.id.into()));
    lab.run(Action::RemoveNetwork(ingress.into()));
    assert!(lab.state.service(quiet.id).unwrap().vips.is_empty());
    let action = lab.create_service(svc("web", &[], &["8080:80"]));
    assert_eq!(lab.refuse(action).code(), "NO_INGRESS");
    lab.service(svc("silent", &[], &[]));

    let mut draft = subnets(NetworkDraft::new("mesh".parse().unwrap()), &["192.168.9.0/24"]);
    draft.ingress = true;
    draft.mtu = Some(1300);
    let mesh = lab.network(draft);
    let vips = &lab.state.service(quiet.id).unwrap().vips;
    assert_eq!(vips.keys().copied().collect::<Vec<_>>(), [mesh.id]);
    assert!(vips[&mesh.id].v4.is_some());
    let again = lab.service(svc("web", &[], &["8080:80"]));
    assert!(again.vips.contains_key(&mesh.id));
}

#[test]
fn n10_vnis_are_unique_and_a_freed_one_rests() {
    let mut lab = Lab::new();
    let chosen = NetworkDraft { vni: Vni::new(5000), ..net("a") };
    assert_eq!(lab.network(chosen.clone()).vni.get(), 5000);
    let action = lab.create_network(NetworkDraft { name: "b".parse().unwrap(), ..chosen });
    let refusal = lab.refuse(action);
    assert_eq!(refusal.code(), "VNI_IN_USE");
    assert!(refusal.to_string().contains("is free"), "{refusal}");
    let (c, d) = (lab.network(net("c")), lab.network(net("d")));
    assert_eq!(d.vni.get(), c.vni.get() + 1);
    lab.run(Action::RemoveNetwork(c.id.into()));
    assert_eq!(lab.network(net("e")).vni.get(), d.vni.get() + 1);
}

#[test]
fn n11_labels_and_subnets_grow_and_endpoints_stay() {
    let mut lab = Lab::new();
    let network = lab.network(subnets(net("web"), &["10.7.0.0/30"]));
    let endpoint = lab.endpoint(standalone(&network, 1));
    let full = lab.attach(standalone(&network, 2));
    assert_eq!(lab.refuse(full.clone()).class(), Class::ResourceExhausted);
    let mut draft = subnets(net("web"), &["10.7.0.0/30", "10.7.1.0/24"]);
    draft.labels.insert("team".into(), "blue".into());
    let update = |based_on, draft: NetworkDraft| Action::UpdateNetwork {
        id: network.id,
        based_on,
        spec: draft.try_into().unwrap(),
        host_routes: vec!["10.9.0.0/16".parse().unwrap()],
    };
    let stale = update(overlay_types::Revision::new(1), draft.clone());
    assert_eq!(lab.refuse(stale).code(), "STALE");
    lab.run(update(network.meta.changed_at, draft.clone()));
    let grown = lab.state.network(network.id).unwrap().clone();
    assert_eq!(subnet_texts(&grown), ["10.7.0.0/30", "10.7.1.0/24"]);
    assert_eq!(grown.meta.created_at, network.meta.created_at);
    lab.run(full);
    assert_eq!(lab.state.endpoint(endpoint.id).unwrap(), &endpoint);

    let overlap = subnets(draft, &["10.7.0.0/30", "10.7.1.0/24", "10.9.1.0/24"]);
    let refusal = lab.refuse(update(grown.meta.changed_at, overlap));
    assert!(refusal.to_string().contains("host route"), "{refusal}");
}

#[rstest]
#[case("internal", |d: &mut NetworkDraft| d.internal = true)]
#[case("encrypted", |d: &mut NetworkDraft| d.encrypted = true)]
#[case("ipv6", |d: &mut NetworkDraft| d.ipv6 = true)]
#[case("mtu", |d: &mut NetworkDraft| d.mtu = Some(1400))]
#[case("vni", |d: &mut NetworkDraft| d.vni = Vni::new(9000))]
#[case("name", |d: &mut NetworkDraft| d.name = "other".parse().unwrap())]
#[case("attachable", |d: &mut NetworkDraft| d.attachable = false)]
#[case("multicast", |d: &mut NetworkDraft| d.multicast = true)]
#[case("subnet", |d: &mut NetworkDraft| d.subnets.clear())]
fn n11_nothing_else_changes(#[case] field: &str, #[case] change: fn(&mut NetworkDraft)) {
    let mut lab = Lab::new();
    let network = lab.network(subnets(net("web"), &["10.7.0.0/24"]));
    let mut draft = network.spec.clone().into_draft();
    change(&mut draft);
    let refusal = lab.refuse(Action::UpdateNetwork {
        id: network.id,
        based_on: network.meta.changed_at,
        spec: draft.try_into().unwrap(),
        host_routes: Vec::new(),
    });
    assert_eq!((refusal.class(), refusal.field()), (Class::InvalidArgument, Some(field)));
}

#[test]
fn n13_removal_names_who_is_attached() {
    let mut lab = Lab::new();
    let network = lab.network(net("web"));
    let mut draft = standalone(&network, 2);
    draft.name = Some("box".parse().unwrap());
    let endpoint = lab.endpoint(draft);
    let refusal = lab.refuse(Action::RemoveNetwork(network.id.into()));
    assert_eq!(refusal.code(), "NETWORK_IN_USE");
    let text = refusal.to_string();
    assert!(text.contains("box") && text.contains("node2"), "{text}");
    lab.run(Action::DetachEndpoint(endpoint.id));
    let service = lab.service(svc("api", &[network.id], &[]));
    assert!(
        lab.refuse(Action::RemoveNetwork(network.id.into())).to_string().contains("service api")
    );
    lab.run(Action::RemoveService(service.id.into()));
    lab.run(Action::RemoveNetwork(network.id.into()));
    assert_eq!(lab.refuse(Action::RemoveNetwork(network.id.into())).code(), "NOT_FOUND");
}

#[test]
fn n13_a_refusal_stays_small() {
    let mut lab = Lab::new();
    let network = lab.network(net("web"));
    for _ in 0..100 {
        lab.endpoint(standalone(&network, 1));
    }
    let text = lab.refuse(Action::RemoveNetwork(network.id.into())).to_string();
    assert!(text.contains("92 more") && text.len() < 1000, "{text}");
}

#[test]
fn n14_usage_is_exact() {
    let mut lab = Lab::new();
    let network = lab.network(subnets(net("web"), &["10.7.0.0/24"]));
    let endpoint = lab.endpoint(standalone(&network, 1));
    lab.service(svc("api", &[network.id], &[]));
    lab.run(Action::DetachEndpoint(endpoint.id));
    let [usage] = lab.state.usage(network.id).unwrap().try_into().unwrap();
    assert_eq!((usage.used, usage.quarantined, usage.reserved), (1, 1, 3));
    let peers: Vec<_> = lab.state.peers_on(network.id).collect();
    assert_eq!(peers.len(), 0);
    assert_eq!(lab.state.services_on(network.id).count(), 1);
}

#[test]
fn n12_v6_only_and_dual_stack_get_what_they_ask_for() {
    let mut lab = Lab::blank();
    let mut cluster = cluster();
    let pools = ["10.0.0.0/8", "fd12:3456:789a::/48"];
    cluster.default_pools = pools
        .map(|p| DefaultPool {
            pool: p.parse().unwrap(),
            subnet_len: if p.contains(':') { 64 } else { 24 },
        })
        .into();
    lab.run(Action::InitCluster(Box::new(init(cluster))));
    let dual = lab.network(NetworkDraft { ipv6: true, ..net("dual") });
    assert_eq!(subnet_texts(&dual), ["10.0.1.0/24", "fd12:3456:789a::/64"]);
    let six = lab.network(NetworkDraft { ipv4: false, ipv6: true, ..net("six") });
    let endpoint = lab.endpoint(standalone(&six, 1));
    assert!(endpoint.addresses.v4.is_none() && endpoint.addresses.v6.is_some());
    // A draft that is refused by itself never becomes a spec.
    assert!(NetworkSpec::try_from(NetworkDraft { ipv4: false, ..net("none") }).is_err());
}

#[test]
fn n13_a_network_is_removed_by_name_once_however_often_it_is_asked_for() {
    let mut lab = Lab::new();
    let network = lab.network(net("web"));
    let wanted = |text: &str| Wanted::new(Kind::Network, text.to_owned()).unwrap();
    let request = RequestId::from_u128(5);
    let command =
        |text| Command { request, at: lab.now, action: Action::RemoveNetwork(wanted(text)) };
    let command = command("WEB");
    let removed = lab.state.apply(&command).unwrap();
    assert_eq!(removed.changes, [Change::Delete(ObjectKey::Network(network.id))]);
    // Its name is free, and the repeated request does not remove who has it now.
    lab.network(net("web"));
    let again = lab.state.apply(&command).unwrap();
    assert_eq!((again.response, again.changes), (Response::Done, vec![]));
    assert_eq!(lab.refuse(Action::RemoveNetwork(wanted("db"))).code(), "NOT_FOUND");
    assert!(Wanted::new(Kind::Network, "a".repeat(64)).is_err());
}
