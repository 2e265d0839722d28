//! Releases that differ.

use overlay_testkit::objects;
use overlay_types::{FeatureLevel, HostReport, Node};

use super::*;
use crate::state::Class;

fn at(number: u128, level: FeatureLevel) -> Node {
    let mut node = node(number);
    node.capabilities.level = level;
    node
}

/// Two nodes of a release from before the first level.
fn old() -> Lab {
    let mut lab = Lab::blank();
    let first = at(1, FeatureLevel::NONE);
    lab.run(Action::InitCluster(Box::new(InitCluster { node: first, ..init(cluster()) })));
    lab.run(Action::JoinNode(Node { role: Role::Worker, ..at(2, FeatureLevel::NONE) }));
    lab
}

fn announce(number: u128) -> Action {
    Action::AnnounceLevel { node: NodeId::from_u128(number), level: FeatureLevel::OURS }
}

fn level(lab: &Lab) -> FeatureLevel {
    lab.state.view().cluster().unwrap().level
}

#[test]
fn r08_what_some_node_would_not_understand_waits_for_it() {
    let mut lab = old();
    let create = lab.create_network(net("a"));
    let refusal = lab.refuse(create.clone());
    assert_eq!(refusal.code(), "FEATURE_LEVEL");
    assert!(refusal.to_string().contains("node1, node2"), "{refusal}");

    lab.run(announce(1));
    assert_eq!(level(&lab), FeatureLevel::NONE);
    let refusal = lab.refuse(create.clone()).to_string();
    assert!(refusal.contains("because of node2;"), "{refusal}");

    lab.run(announce(2));
    assert_eq!(level(&lab), FeatureLevel::OURS);
    lab.run(create);
    // It says so again after each start.
    assert_eq!(lab.apply(announce(2)).unwrap().changes, []);
}

#[test]
fn r08_a_node_that_is_gone_holds_nothing_up() {
    let mut lab = old();
    lab.run(announce(1));
    lab.run(Action::RemoveNode(NodeId::from_u128(2)));
    assert_eq!(level(&lab), FeatureLevel::OURS);
}

#[test]
fn r08_a_node_of_an_older_release_is_not_let_in() {
    let mut lab = Lab::new();
    let refusal = lab.refuse(Action::JoinNode(at(3, FeatureLevel::NONE)));
    assert_eq!((refusal.code(), refusal.field()), ("FEATURE_LEVEL", Some("level")));
    assert!(refusal.to_string().contains("node3"), "{refusal}");
    // Nor one that was let in, and comes back with an older one.
    let node = NodeId::from_u128(2);
    let refusal = lab.refuse(Action::AnnounceLevel { node, level: FeatureLevel::NONE });
    assert_eq!(refusal.code(), "FEATURE_LEVEL");
    // One of a newer release is, and changes nothing for the others.
    lab.run(Action::JoinNode(at(3, FeatureLevel::new(7))));
    assert_eq!(level(&lab), FeatureLevel::OURS);
}

fn describe(number: u128, node: &Node) -> Action {
    Action::AnnounceCapabilities {
        node: NodeId::from_u128(number),
        capabilities: node.capabilities,
        host: Box::new(objects::host()),
    }
}

#[test]
fn n19_a_node_says_what_it_can_do_once_all_nodes_can_read_it() {
    let mut lab = old();
    for number in [1, 2] {
        let announce = Action::AnnounceLevel {
            node: NodeId::from_u128(number),
            level: if number == 1 { FeatureLevel::OURS } else { FeatureLevel::FIRST },
        };
        lab.run(announce);
    }
    let mut weak = at(1, FeatureLevel::NONE);
    weak.capabilities.encryption = false;
    let refusal = lab.refuse(describe(1, &weak));
    assert_eq!(refusal.code(), "FEATURE_LEVEL");

    lab.run(announce(2));
    lab.run(describe(1, &weak));
    let known = lab.state.view().nodes()[&weak.id].clone();
    assert_eq!(known.host, Some(Box::new(objects::host())));
    assert_eq!(
        (known.capabilities.encryption, known.capabilities.level),
        (false, FeatureLevel::OURS)
    );
    // What it cannot do is asked of it no more.
    let sealed = lab.network(NetworkDraft { encrypted: true, ..net("sealed") });
    let action = lab.attach(standalone(&sealed, 1));
    assert_eq!(lab.refuse(action).code(), "MISSING_CAPABILITY");
    // It says so again after each start.
    assert_eq!(lab.apply(describe(1, &weak)).unwrap().changes, []);
}

#[test]
fn r06_a_report_that_is_too_long_is_refused() {
    let mut lab = Lab::new();
    let mut host = objects::host();
    host.missing = vec![String::new(); HostReport::MAX_MISSING + 1];
    let (node, capabilities) = (NodeId::from_u128(1), node(1).capabilities);
    let mut refused = |host: HostReport| {
        let host = Box::new(host);
        let refusal = lab.refuse(Action::AnnounceCapabilities { node, capabilities, host });
        (refusal.class(), refusal.field().unwrap().to_owned())
    };
    assert_eq!(refused(host), (Class::InvalidArgument, "host.missing".to_owned()));
    // Of two octets each.
    let kernel = "ü".repeat(HostReport::MAX_LEN / 2 + 1);
    let host = HostReport { kernel, ..objects::host() };
    assert_eq!(refused(host), (Class::InvalidArgument, "host.kernel".to_owned()));
}

#[test]
fn r06_the_longest_reports_are_not_remembered_as_answers() {
    let mut lab = Lab::new();
    let before = lab.state.encode().len();
    let missing = vec!["x".repeat(HostReport::MAX_LEN); HostReport::MAX_MISSING];
    let mut grown = Vec::new();
    for kernel in ["6.1", "6.2", "6.3"] {
        let host =
            HostReport { kernel: kernel.into(), missing: missing.clone(), ..objects::host() };
        let (node, capabilities) = (NodeId::from_u128(1), node(1).capabilities);
        let action = Action::AnnounceCapabilities { node, capabilities, host: Box::new(host) };
        assert_eq!(lab.run(action), Response::Done);
        grown.push(lab.state.encode().len() - before);
    }
    // The first is in the node; each is a request more.
    assert!(grown[2] - grown[0] < 100, "{grown:?}");
}

#[test]
fn c12_a_removal_that_is_repeated_is_answered_again() {
    let mut lab = old();
    let action = Action::RemoveNode(NodeId::from_u128(2));
    let command = Command { request: RequestId::from_u128(5), at: lab.now, action };
    let first = lab.state.apply(&command).unwrap();
    let again = lab.state.apply(&command).unwrap();
    assert_eq!((again.response, again.changes), (first.response, vec![]));
}
