use overlay_types::{EndpointMode, Revision};
use rstest::rstest;

use super::*;
use crate::state::Class;

#[test]
fn s01_a_vip_of_each_family_on_each_network() {
    let mut lab = Lab::new();
    let a = lab.network(net("a"));
    let b = lab.network(NetworkDraft { ipv6: true, ..subnets(net("b"), &["10.9.0.0/24"]) }.tap6());
    let service = lab.service(svc("web", &[a.id, b.id], &[]));
    assert!(service.vips[&a.id].v4.is_some() && service.vips[&a.id].v6.is_none());
    assert!(service.vips[&b.id].v4.is_some() && service.vips[&b.id].v6.is_some());
}

trait Tap6 {
    fn tap6(self) -> NetworkDraft;
}

impl Tap6 for NetworkDraft {
    /// The draft with an IPv6 subnet beside its own.
    fn tap6(mut self) -> NetworkDraft {
        self.set_subnets(&["10.9.0.0/24".into(), "fd00:9::/64".into()], &[], &[], &[]).unwrap();
        self
    }
}

#[test]
fn s01_a_service_gets_all_its_vips_or_none() {
    let mut lab = Lab::new();
    let roomy = lab.network(net("roomy"));
    let full = lab.network(subnets(net("full"), &["10.7.0.0/30"]));
    lab.endpoint(standalone(&full, 1));
    let action = lab.create_service(svc("web", &[roomy.id, full.id], &[]));
    let refusal = lab.refuse(action);
    assert_eq!(refusal.class(), Class::ResourceExhausted);
}

#[test]
fn s03_a_change_of_mode_leaves_no_vip_behind() {
    let mut lab = Lab::new();
    let network = lab.network(net("a"));
    let service = lab.service(svc("web", &[network.id], &[]));
    let vip = service.vips[&network.id].v4.unwrap();
    let dnsrr = ServiceDraft { mode: EndpointMode::Dnsrr, ..svc("web", &[network.id], &[]) };
    let action = lab.update_service(&service, dnsrr);
    lab.run(action);
    let vips = &lab.state.service(service.id).unwrap().vips;
    assert_eq!(vips[&network.id].iter().count(), 0);
    assert_eq!(lab.state.usage(network.id).unwrap()[0].used, 0);

    let action = lab.update_service(&service, svc("web", &[network.id], &[]));
    lab.run(action);
    let new = lab.state.service(service.id).unwrap().vips[&network.id].v4.unwrap();
    assert_ne!(new, vip, "a freed address rests");
    assert_eq!(lab.state.usage(network.id).unwrap()[0].used, 1);
}

#[test]
fn s08_an_open_port_is_chosen_and_kept_for_life() {
    let mut lab = Lab::new();
    let service = lab.service(svc("web", &[], &["80", "81"]));
    let published = |s: &Service| -> Vec<u16> {
        s.spec.ports.iter().map(|p| p.published.unwrap().get()).collect()
    };
    assert_eq!(published(&service), [30_000, 30_001]);
    assert_eq!(published(&lab.service(svc("other", &[], &["80"]))), [30_002]);
    let action = lab.update_service(&service, svc("web", &[], &["82", "81", "8080:80"]));
    lab.run(action);
    let updated = lab.state.service(service.id).unwrap().clone();
    assert_eq!(published(&updated), [30_003, 30_001, 8080]);
    let before = lab.state.revision();
    let action = lab.update_service(&service, svc("web", &[], &["82", "81", "8080:80"]));
    lab.run(action);
    assert_eq!(lab.state.revision(), before, "the same again changes nothing");
}

#[test]
fn s08_all_ports_taken_is_an_error() {
    let mut lab = Lab::new();
    for (name, range) in
        [("a", "30000-30999:1-1000"), ("b", "31000-31999:1-1000"), ("c", "32000-32767:1-768")]
    {
        lab.service(svc(name, &[], &[range]));
    }
    let action = lab.create_service(svc("web", &[], &["80"]));
    assert_eq!(lab.refuse(action).code(), "PORTS_EXHAUSTED");
    lab.service(svc("web", &[], &["80/udp"]));
}

#[rstest]
#[case("8080:80", "8080:81", true)]
#[case("8080:80", "8080:81/udp", false)]
#[case("8080:80", "published=8080,target=80,mode=host", true)]
#[case("published=8080,target=80,mode=host", "8080:80", true)]
#[case("published=8080,target=80,mode=host", "published=8080,target=81,mode=host", false)]
#[case("192.0.2.1:8080:80", "192.0.2.2:8080:80", false)]
#[case("192.0.2.1:8080:80", "8080:80", true)]
fn s09_ports_clash_across_services(#[case] a: &str, #[case] b: &str, #[case] clash: bool) {
    let mut lab = Lab::new();
    let first = lab.service(svc("a", &[], &[a]));
    let action = lab.create_service(svc("b", &[], &[b]));
    if clash {
        let refusal = lab.refuse(action.clone());
        assert_eq!(refusal.code(), "PORT_IN_USE");
        assert!(refusal.to_string().contains("service a"), "{refusal}");
        lab.run(Action::RemoveService(first.id.into()));
    }
    lab.run(action);
}

#[test]
fn s09_host_ports_clash_on_one_node() {
    let mut lab = Lab::new();
    let network = lab.network(net("n"));
    let host = "published=8080,target=80,mode=host";
    let a = lab.service(svc("a", &[network.id], &[host]));
    let b = lab.service(svc("b", &[network.id], &[host]));
    lab.endpoint(task(&a, network.id, 1));
    let action = lab.attach(task(&a, network.id, 1));
    assert_eq!(lab.refuse(action).code(), "PORT_IN_USE");
    let action = lab.attach(task(&b, network.id, 1));
    assert!(lab.refuse(action).to_string().contains("service a"));
    lab.endpoint(task(&b, network.id, 2));

    let mut draft = standalone(&network, 1);
    draft.ports = PortSpec::parse("8080:80").unwrap();
    let action = lab.attach(draft.clone());
    assert_eq!(lab.refuse(action).code(), "PORT_IN_USE");
    draft.ports = PortSpec::parse("8081:80").unwrap();
    lab.endpoint(draft.clone());
    let action = lab.attach(draft.clone());
    assert_eq!(lab.refuse(action).code(), "PORT_IN_USE");
    draft.node = NodeId::from_u128(2);
    lab.endpoint(draft);
    // The mesh answers on every node, so also on those of the two standalone endpoints.
    let action = lab.create_service(svc("c", &[], &["8081:80"]));
    assert!(lab.refuse(action).to_string().contains("endpoint"));

    let c = lab.service(svc("c", &[network.id], &[]));
    lab.endpoint(task(&c, network.id, 1));
    let action = lab.update_service(&c, svc("c", &[network.id], &[host]));
    assert!(lab.refuse(action).to_string().contains("service a"));
}

#[test]
fn s17_a_service_that_names_no_network_joins_ingress() {
    let mut lab = Lab::new();
    let ingress = lab.state.ingress().unwrap().id;
    let service = lab.service(svc("web", &[], &[]));
    assert_eq!(service.vips.keys().copied().collect::<Vec<_>>(), [ingress]);
    let own = lab.network(net("own"));
    let quiet = lab.service(svc("quiet", &[own.id], &[]));
    assert_eq!(quiet.vips.keys().copied().collect::<Vec<_>>(), [own.id]);
    let published = lab.service(svc("loud", &[own.id], &["8080:80"]));
    assert_eq!(published.vips.keys().copied().collect::<Vec<_>>(), [ingress, own.id]);
    let action = lab.create_service(svc("direct", &[ingress], &[]));
    assert_eq!(lab.refuse(action).class(), Class::InvalidArgument);
}

#[test]
fn s10_removing_a_service_leaves_the_ingress_network() {
    let mut lab = Lab::new();
    let service = lab.service(svc("web", &[], &["8080:80"]));
    lab.run(Action::RemoveService(service.id.into()));
    let ingress = lab.state.ingress().unwrap().id;
    assert_eq!(lab.state.usage(ingress).unwrap()[0].used, 0);
}

#[test]
fn a_service_with_tasks_keeps_their_network_and_itself() {
    let mut lab = Lab::new();
    let (a, b) = (lab.network(net("a")), lab.network(net("b")));
    let service = lab.service(svc("web", &[a.id], &[]));
    let endpoint = lab.endpoint(task(&service, a.id, 1));
    assert_eq!(lab.refuse(Action::RemoveService(service.id.into())).code(), "SERVICE_IN_USE");
    let action = lab.update_service(&service, svc("web", &[b.id], &[]));
    assert_eq!(lab.refuse(action).code(), "SERVICE_IN_USE");
    let action = lab.update_service(&service, svc("web", &[b.id, a.id], &[]));
    lab.run(action);
    let kept = lab.state.service(service.id).unwrap().vips[&a.id];
    assert_eq!(kept, service.vips[&a.id], "networks that stay keep their VIP");
    lab.run(Action::DetachEndpoint(endpoint.id));
    let action = lab.update_service(&service, svc("web", &[b.id], &[]));
    lab.run(action);
    lab.run(Action::RemoveService(service.id.into()));
    for network in [a.id, b.id] {
        assert_eq!(lab.state.usage(network).unwrap()[0].used, 0);
    }
}

#[test]
fn names_are_unique_and_kept() {
    let mut lab = Lab::new();
    let service = lab.service(svc("web", &[], &[]));
    let action = lab.create_service(svc("Web", &[], &[]));
    assert_eq!(lab.refuse(action).code(), "NAME_TAKEN");
    let action = lab.update_service(&service, svc("other", &[], &[]));
    assert_eq!(lab.refuse(action).field(), Some("name"));
    let stale = Action::UpdateService {
        id: service.id,
        based_on: Revision::ZERO,
        spec: svc("web", &[], &[]).try_into().unwrap(),
    };
    assert_eq!(lab.refuse(stale).code(), "STALE");
}

#[test]
fn s01_the_spec_before_the_last_update_is_kept() {
    let mut lab = Lab::new();
    let created = lab.service(svc("web", &[], &["80"]));
    assert_eq!(created.previous, None);
    let update = |lab: &mut Lab, draft| {
        let action = lab.update_service(&created, draft);
        lab.run(action);
        lab.state.service(created.id).unwrap().clone()
    };
    let updated = update(&mut lab, svc("web", &[], &["8080:80"]));
    assert_eq!(updated.previous.as_deref(), Some(&created.spec));
    // The same again is no update.
    assert_eq!(update(&mut lab, svc("web", &[], &["8080:80"])), updated);
    // Back, with the port that it had, and back again.
    let back = update(&mut lab, created.spec.clone().into_draft());
    assert_eq!((&back.spec, back.previous.as_deref()), (&created.spec, Some(&updated.spec)));
}

/// However often the service changes, and whoever had the port before.
#[test]
fn s10_a_published_port_survives_updates_and_is_free_after_removal() {
    let mut lab = Lab::new();
    for name in ["first", "second"] {
        let service = lab.service(svc(name, &[], &["8080:80"]));
        for ports in [&["8080:80", "8081:81"][..], &["8080:88"], &["8080:80"]] {
            let action = lab.update_service(&service, svc(name, &[], ports));
            lab.run(action);
            let other = lab.create_service(svc("other", &[], &["8080:80"]));
            assert_eq!(lab.refuse(other).code(), "PORT_IN_USE");
        }
        lab.run(Action::RemoveService(service.id.into()));
    }
    lab.service(svc("other", &[], &["8080:80"]));
}
