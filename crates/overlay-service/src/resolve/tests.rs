use std::collections::BTreeSet;

use overlay_types::{
    Availability, Change, EndpointId, NetworkId, NodeId, Object, ObjectKey,
    Readiness::{Draining, Failing, Ready, Starting},
    ServiceId, View,
};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::fixture::{endpoint, network, node, service, town, view, with_extras, with_readiness};

fn scope(networks: &[u128]) -> Scope {
    Scope::new(networks.iter().map(|n| NetworkId::from_u128(*n)))
}

/// The answer as text: records in order, or what else was decided.
fn ask(directory: &Directory, from: &[u128], kind: RecordKind, name: &str) -> String {
    match resolve(directory, &scope(from), Question { name, kind }, 7) {
        Answer::Records(mut records) => {
            records.sort();
            let text = records.into_iter().map(|record| match record {
                Record::A(a) => a.to_string(),
                Record::Aaaa(a) => a.to_string(),
                Record::Ptr(name) => name,
                Record::Srv { port, target } => format!("{port} {target}"),
            });
            text.collect::<Vec<_>>().join(" ")
        }
        Answer::NoSuchName => "nxdomain".to_owned(),
        Answer::Forward => "forward".to_owned(),
        Answer::Refuse => "refuse".to_owned(),
    }
}

fn check(from: &[u128], kind: RecordKind, name: &str, answer: &str) {
    assert_eq!(ask(&Directory::new(&town()), from, kind, name), answer, "{name}");
}

#[rstest]
#[case("web", "10.0.1.2")]
#[case("WEB.", "10.0.1.2")]
#[case("web.front", "10.0.1.2")]
#[case("Web.FRONT.", "10.0.1.2")]
#[case("www", "10.0.1.2")]
#[case("shop.eu", "10.0.1.2")]
#[case("shop.eu.front", "10.0.1.2")]
#[case("tasks.web", "10.0.1.20 10.0.1.21 10.0.1.22")]
#[case("Tasks.Web.front.", "10.0.1.20 10.0.1.21 10.0.1.22")]
#[case("tasks.www", "10.0.1.20 10.0.1.21 10.0.1.22")]
#[case("web.1", "10.0.1.20")]
#[case("web.2.front", "10.0.1.21")]
#[case("box", "10.0.1.30")]
#[case("chest", "10.0.1.30")]
#[case("crate.front.", "10.0.1.30")]
#[case("db", "10.0.2.25 10.0.2.26")]
#[case("store.internal-back", "10.0.2.25 10.0.2.26")]
#[case("tasks.db", "10.0.2.25 10.0.2.26")]
#[case("tasks.box", "forward")]
#[case("mesh", "forward")]
#[case("web.other", "forward")]
#[case("web.internal-back", "forward")]
#[case("tasks.", "forward")]
#[case("front", "forward")]
#[case(".front", "forward")]
#[case("a..b", "forward")]
#[case("example.com", "forward")]
#[case("", "forward")]
#[case(".", "forward")]
fn s04_name_forms(#[case] name: &str, #[case] answer: &str) {
    check(&[1, 2], RecordKind::A, name, answer);
}

#[rstest]
#[case("web", "fd00:1::2")]
#[case("tasks.web", "fd00:1::21")]
#[case("box", "fd00:1::30")]
#[case("web.1", "")]
#[case("db", "")]
#[case("nobody", "forward")]
fn s06_aaaa_of_a_v4_only_name_is_empty(#[case] name: &str, #[case] answer: &str) {
    check(&[1, 2], RecordKind::Aaaa, name, answer);
}

#[rstest]
#[case(RecordKind::Other, "web", "")]
#[case(RecordKind::Any, "web", "10.0.1.2 fd00:1::2")]
#[case(RecordKind::Ptr, "web", "")]
#[case(RecordKind::Srv, "web", "")]
#[case(RecordKind::Other, "nobody", "forward")]
#[case(RecordKind::Other, "2.1.0.10.in-addr.arpa", "")]
#[case(RecordKind::A, "2.1.0.10.in-addr.arpa", "")]
#[case(RecordKind::A, "_8080._tcp.web", "")]
#[case(RecordKind::Any, "_8080._tcp.web", "80 web.front.")]
fn known_names_without_the_type_are_empty(
    #[case] kind: RecordKind,
    #[case] name: &str,
    #[case] answer: &str,
) {
    check(&[1], kind, name, answer);
}

#[rstest]
#[case("2.1.0.10.in-addr.arpa", "web.front.")]
#[case("20.1.0.10.IN-ADDR.arpa.", "web.1.front.")]
#[case("22.1.0.10.in-addr.arpa", "tasks.web.front.")] // a task without a name
#[case("30.1.0.10.in-addr.arpa", "box.front.")]
#[case("28.1.0.10.in-addr.arpa", "")] // its only name is none in DNS
#[case("99.1.0.10.in-addr.arpa", "nxdomain")] // ours, unused
#[case("2.4.0.10.in-addr.arpa", "forward")] // a network that it is not on
#[case("8.8.8.8.in-addr.arpa", "forward")]
#[case("0.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", "box.front.")]
#[case("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", "web.front.")]
#[case("9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", "nxdomain")]
#[case("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "forward")]
fn s04_ptr(#[case] name: &str, #[case] answer: &str) {
    check(&[1], RecordKind::Ptr, name, answer);
}

#[rstest]
#[case("_8080._tcp.web", "80 web.front.")]
#[case("_80._tcp.web", "8443 web.front.")] // published comes before target
#[case("_8443._tcp.www.front", "8443 web.front.")]
#[case("_8080._TCP.tasks.web.", "80 tasks.web.front. 80 web.1.front. 80 web.2.front.")]
#[case("_2222._tcp.crate", "22 box.front.")]
#[case("_5353._udp.box", "53 box.front.")]
#[case("_5353._tcp.box", "nxdomain")]
#[case("_9._tcp.web", "nxdomain")]
#[case("_http._tcp.web", "forward")]
#[case("_8080._tcp.nobody", "forward")]
fn s04_srv_of_published_ports(#[case] name: &str, #[case] answer: &str) {
    check(&[1], RecordKind::Srv, name, answer);
}

#[test]
fn s04_names_in_answers_resolve() {
    let directory = Directory::new(&town());
    for name in ["web.front.", "tasks.web.front.", "web.1.front.", "box.front."] {
        assert!(!ask(&directory, &[1], RecordKind::A, name).is_empty());
    }
}

#[rstest]
#[case(&[2], "example.com", "refuse")]
#[case(&[2], "box", "refuse")]
#[case(&[2], "8.8.8.8.in-addr.arpa", "refuse")]
#[case(&[2, 1], "example.com", "forward")]
#[case(&[], "example.com", "refuse")]
#[case(&[77], "web", "refuse")]
fn s05_internal_networks_never_forward(
    #[case] from: &[u128],
    #[case] name: &str,
    #[case] answer: &str,
) {
    check(from, RecordKind::A, name, answer);
}

#[rstest]
#[case(&[4], "www", "10.0.4.2")]
#[case(&[1], "www", "10.0.1.2")]
#[case(&[1, 4], "www", "10.0.1.2")]
#[case(&[4, 1], "www", "10.0.4.2")]
#[case(&[4], "web", "forward")]
#[case(&[4], "web.front", "forward")]
#[case(&[4], "tasks.web.front", "forward")]
#[case(&[1], "db.internal-back", "forward")]
fn n08_only_names_on_the_networks_of_the_asking_endpoint(
    #[case] from: &[u128],
    #[case] name: &str,
    #[case] answer: &str,
) {
    check(from, RecordKind::A, name, answer);
}

#[test]
fn s17_ingress_is_asked_last() {
    let web = service(40, "web", 3, &[], &["10.0.3.40"], &[]);
    let mut view = town();
    view.apply(view.revision(), [Change::Put(Object::Service(web))]);
    let directory = Directory::new(&view);
    assert_eq!(ask(&directory, &[3, 1], RecordKind::A, "web"), "10.0.1.2");
    assert_eq!(ask(&directory, &[3], RecordKind::A, "web"), "10.0.3.40");
    assert_eq!(ask(&directory, &[3, 1], RecordKind::A, "mesh"), "10.0.3.2");
}

#[test]
fn s02_dnsrr_is_shuffled_by_the_seed() {
    let directory = Directory::new(&town());
    let question = Question { name: "db", kind: RecordKind::A };
    let first = |seed| match resolve(&directory, &scope(&[2]), question, seed) {
        Answer::Records(records) => records[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(first(1), first(1));
    let seen: BTreeSet<_> = (0..32).map(first).collect();
    assert_eq!(seen.len(), 2);
}

#[test]
fn s03_a_change_of_mode_leaves_no_address_behind() {
    let mut directory = Directory::new(&town());
    let mut changed = service(10, "web", 1, &[], &[], &[]);
    // Even when the object still carries its former virtual addresses.
    changed.vips = town().services()[&changed.id].vips.clone();
    directory.apply(&[Change::Put(Object::Service(changed))]);
    let tasks = "10.0.1.20 10.0.1.21 10.0.1.22";
    assert_eq!(ask(&directory, &[1], RecordKind::A, "web"), tasks);
    assert_eq!(ask(&directory, &[1], RecordKind::A, "www"), "forward");
    assert_eq!(ask(&directory, &[1], RecordKind::Ptr, "2.1.0.10.in-addr.arpa"), "nxdomain");
    directory.apply(&[Change::Put(Object::Service(service(
        10,
        "web",
        1,
        &[],
        &["10.0.1.9"],
        &[],
    )))]);
    assert_eq!(ask(&directory, &[1], RecordKind::A, "web"), "10.0.1.9");
}

#[test]
fn s04_a_shared_alias_outlives_one_of_its_services() {
    let mut directory = Directory::new(&view([
        Object::Network(network(1, "front", &["10.0.1.0/24"])),
        Object::Service(service(10, "a", 1, &["shared"], &["10.0.1.2"], &[])),
        Object::Service(service(11, "b", 1, &["Shared", "shared"], &["10.0.1.3"], &[])),
        Object::Endpoint(with_extras(
            endpoint(20, None, 1, 1, None, &["10.0.1.20"]),
            &["shared"],
            &[],
        )),
    ]));
    let gone = |id| [Change::Delete(ObjectKey::Service(ServiceId::from_u128(id)))];
    let shared = |directory: &Directory| ask(directory, &[1], RecordKind::A, "shared");
    assert_eq!(shared(&directory), "10.0.1.2 10.0.1.3 10.0.1.20");
    directory.apply(&gone(11));
    assert_eq!(shared(&directory), "10.0.1.2 10.0.1.20");
    directory.apply(&gone(10));
    assert_eq!(shared(&directory), "10.0.1.20");
}

#[test]
fn g04_dead_nodes_are_in_no_answer_until_they_return() {
    let mut directory = Directory::new(&town());
    let dead = |nodes: &[u128]| nodes.iter().map(|n| NodeId::from_u128(*n)).collect::<Vec<_>>();
    let names = |directory: &Directory| {
        [
            ask(directory, &[1, 2], RecordKind::A, "tasks.web"),
            ask(directory, &[1, 2], RecordKind::A, "db"),
            ask(directory, &[1, 2], RecordKind::A, "web.2"),
            ask(directory, &[1, 2], RecordKind::A, "web"),
            ask(directory, &[1, 2], RecordKind::Ptr, "21.1.0.10.in-addr.arpa"),
        ]
    };
    let before = names(&directory);
    directory.set_dead(dead(&[2]));
    assert_eq!(names(&directory), ["10.0.1.20 10.0.1.22", "10.0.2.25", "", "10.0.1.2", ""]);
    directory.set_dead(dead(&[1, 2, 3]));
    assert_eq!(names(&directory), ["", "", "", "10.0.1.2", ""], "known, so never forwarded");
    directory.set_dead(dead(&[]));
    assert_eq!(names(&directory), before);
}

#[test]
fn c06_a_drained_node_hides_its_tasks_and_not_what_stands_alone() {
    let mut directory = Directory::new(&town());
    let names = |directory: &Directory| {
        [
            ask(directory, &[1, 2], RecordKind::A, "tasks.web"),
            ask(directory, &[1, 2], RecordKind::A, "web.1"),
            ask(directory, &[1, 2], RecordKind::Ptr, "20.1.0.10.in-addr.arpa"),
            ask(directory, &[1, 2], RecordKind::A, "box"),
            ask(directory, &[1, 2], RecordKind::Ptr, "30.1.0.10.in-addr.arpa"),
        ]
    };
    let before = names(&directory);
    let put = |availability| Change::Put(Object::Node(node(1, availability)));
    directory.apply([&put(Availability::Drain)]);
    let box_ = "box.front.";
    assert_eq!(names(&directory), ["10.0.1.21 10.0.1.22", "", "", "10.0.1.30", box_]);
    directory.set_dead([NodeId::from_u128(1)]);
    assert_eq!(names(&directory), ["10.0.1.21 10.0.1.22", "", "", "", ""]);
    directory.set_dead([]);
    directory.apply([&put(Availability::Pause)]);
    assert_eq!(names(&directory), before);
}

#[test]
fn s13_only_who_is_ready_is_in_answers_and_addresses_keep_their_names() {
    let mut directory = Directory::new(&town());
    let names = |directory: &Directory| {
        [
            ask(directory, &[1, 2], RecordKind::A, "tasks.web"),
            ask(directory, &[1, 2], RecordKind::A, "web.1"),
            ask(directory, &[1, 2], RecordKind::Ptr, "20.1.0.10.in-addr.arpa"),
            ask(directory, &[1, 2], RecordKind::A, "db"),
        ]
    };
    let before = names(&directory);
    let town = town();
    let set = |id, readiness| {
        let endpoint = town.endpoints()[&EndpointId::from_u128(id)].as_ref().clone();
        Change::Put(Object::Endpoint(with_readiness(endpoint, readiness)))
    };
    directory.apply([&set(20, Starting), &set(25, Failing)]);
    let after = ["10.0.1.21 10.0.1.22", "", before[2].as_str(), "10.0.2.26"];
    assert_eq!(names(&directory), after);
    directory.apply([&set(20, Ready), &set(25, Draining)]);
    assert_eq!(names(&directory), [&before[0], &before[1], &before[2], "10.0.2.26"]);
    directory.apply([&set(25, Ready)]);
    assert_eq!(names(&directory), before);
}

/// However an alias is shared, it resolves as long as one has it.
#[test]
fn s04_an_alias_that_two_services_share_outlives_one_of_them() {
    let with_www = |id, address: &str| service(id, &format!("s{id}"), 1, &["www"], &[address], &[]);
    let mut directory = Directory::new(&view([
        Object::Network(network(1, "front", &["10.0.1.0/24"])),
        Object::Service(with_www(40, "10.0.1.40")),
        Object::Service(with_www(41, "10.0.1.41")),
    ]));
    let www = |directory: &Directory| ask(directory, &[1], RecordKind::A, "www");
    assert_eq!(www(&directory), "10.0.1.40 10.0.1.41");
    let delete = |id| Change::Delete(ObjectKey::Service(ServiceId::from_u128(id)));
    directory.apply([&delete(40)]);
    assert_eq!(www(&directory), "10.0.1.41");
    directory.apply([&delete(41)]);
    assert_eq!(www(&directory), "forward");
}

#[test]
fn answers_are_bounded() {
    let tasks = (0..3000_u128).map(|n| {
        let address = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        Object::Endpoint(endpoint(n, None, 1, 1, Some(10), &[&address]))
    });
    let objects = [
        Object::Network(network(1, "front", &["10.1.0.0/16"])),
        Object::Service(service(10, "many", 1, &[], &[], &[])),
    ];
    let directory = Directory::new(&view(objects.into_iter().chain(tasks)));
    let question = Question { name: "many", kind: RecordKind::A };
    let answer = resolve(&directory, &scope(&[1]), question, 1);
    assert!(matches!(answer, Answer::Records(r) if r.len() == MAX_RECORDS));
}

/// What a generated step does.
#[derive(Clone, Debug)]
enum Step {
    Change(Box<Change>),
    Dead(BTreeSet<NodeId>),
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "B", "b", "c.a", "tasks.a", "x..y", "d"][..])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = |object| Step::Change(Box::new(Change::Put(object)));
    let delete = |key| Step::Change(Box::new(Change::Delete(key)));
    let host = 1_u8..6;
    let endpoints = (0_u8..5, prop::option::of(names()), 1_u8..4, 0_u8..3, names(), host.clone())
        .prop_flat_map(|parts| (Just(parts), prop::option::of(10_u8..13), any::<bool>()))
        .prop_map(move |((id, called, on, node, alias, host), task_of, more)| {
            let at = format!("10.0.{on}.{host}");
            let task_of = task_of.map(u128::from);
            let made = endpoint(id.into(), called, on.into(), node.into(), task_of, &[&at]);
            let made = if more { with_extras(made, &[alias], &["90:9"]) } else { made };
            // Disabled, which it may be again: every other host.
            put(Object::Endpoint(if host % 2 == 0 { with_readiness(made, Draining) } else { made }))
        });
    let services = (10_u8..13, names(), 1_u8..4, names(), host, any::<bool>()).prop_map(
        move |(id, called, on, alias, host, vip)| {
            let address = format!("10.0.{on}.{host}");
            let vip = if vip { vec![&*address] } else { Vec::new() };
            put(Object::Service(service(
                id.into(),
                called,
                on.into(),
                &[alias],
                &vip,
                &["published=80,target=8,mode=host"],
            )))
        },
    );
    let networks = (1_u8..4, prop::sample::select(&["a", "net", "internal"][..])).prop_map(
        move |(id, called)| {
            let subnet = format!("10.0.{id}.0/24");
            put(Object::Network(network(id.into(), called, &[&subnet])))
        },
    );
    let deletions = (0_u8..13).prop_map(move |id| match id {
        0 => delete(ObjectKey::Network(NetworkId::from_u128(1))),
        1 => delete(ObjectKey::Node(NodeId::from_u128(1))),
        2..9 => delete(ObjectKey::Endpoint(EndpointId::from_u128(u128::from(id) % 5))),
        _ => delete(ObjectKey::Service(ServiceId::from_u128(id.into()))),
    });
    let dead =
        prop::collection::btree_set((0_u8..3).prop_map(|n| NodeId::from_u128(n.into())), 0..3)
            .prop_map(Step::Dead);
    let nodes = (0_u8..3, any::<bool>()).prop_map(move |(id, drained)| {
        let availability = if drained { Availability::Drain } else { Availability::Active };
        put(Object::Node(node(id.into(), availability)))
    });
    let any = prop_oneof![
        4 => endpoints, 2 => services, 2 => networks, 2 => deletions, 1 => dead, 1 => nodes
    ];
    prop::collection::vec(any, 0..60)
}

proptest! {
    /// Every order of endpoint add, update, disable and delete gives the answers of a fresh start.
    #[test]
    fn s04_any_order_of_changes_gives_what_a_fresh_build_gives(steps in steps(), seed: u64) {
        let (mut view, mut changed) = (View::default(), Directory::default());
        let mut dead_now = BTreeSet::new();
        for step in steps {
            match step {
                Step::Change(change) => {
                    changed.apply([&*change]);
                    view.apply(view.revision().next(), [*change]);
                }
                Step::Dead(dead) => {
                    dead_now.clone_from(&dead);
                    changed.set_dead(dead);
                }
            }
        }
        let mut fresh = Directory::new(&view);
        fresh.set_dead(dead_now);
        let all = scope(&[1, 2, 3]);
        let bases = ["a", "b", "c.a", "tasks.a", "tasks.b", "d", "x..y"];
        let mut asked: Vec<String> = bases.iter().map(|&n| n.to_owned()).collect();
        asked.extend(bases.iter().flat_map(|n| ["a", "net"].map(|net| format!("{n}.{net}"))));
        asked.extend(bases.iter().flat_map(|n| [80, 90].map(|port| format!("_{port}._tcp.{n}"))));
        asked.extend((1..4).flat_map(|n| (1..7).map(move |h| format!("{h}.{n}.0.10.in-addr.arpa"))));
        for name in &asked {
            for kind in [RecordKind::A, RecordKind::Ptr, RecordKind::Srv] {
                let question = Question { name, kind };
                prop_assert_eq!(
                    resolve(&changed, &all, question, seed),
                    resolve(&fresh, &all, question, seed),
                    "{}", name
                );
            }
        }
    }
}
