use core::time::Duration;
use std::collections::BTreeMap;

use overlay_types::{
    Availability, Capabilities, Change, Cluster, ClusterId, DataplaneKind, Encapsulation,
    FeatureLevel, Meta, Node, Object, Revision,
};

use super::*;

const NODE: NodeId = NodeId::from_u128(1);
const A: RootId = RootId::from_u128(10);
const B: RootId = RootId::from_u128(11);
const C: RootId = RootId::from_u128(12);

fn roots(ids: &[RootId]) -> Vec<Root> {
    let root = |id: &RootId| Root { id: *id, certificate: Vec::new(), cross: None };
    ids.iter().map(root).collect()
}

/// What a node hears: the roots of the cluster, and the one that managers have seen it with.
fn view(ids: &[RootId], noted: RootId) -> View {
    let address = ([192, 0, 2, 1], 1).into();
    let cluster = Cluster {
        id: ClusterId::from_u128(9),
        meta: Meta::default(),
        vxlan_port: 4789,
        encrypted_vxlan_port: 4788,
        esp: Encapsulation::Udp(4500),
        default_pools: Vec::new(),
        rotation_period: Duration::from_hours(12),
        autolock: false,
        level: FeatureLevel::OURS,
        removed_nodes: BTreeMap::new(),
        roots: roots(ids),
    };
    let node = Node {
        id: NODE,
        meta: Meta::default(),
        name: "node".parse().unwrap(),
        role: Role::Worker,
        role_since: Revision::ZERO,
        host: None,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        control: address,
        gossip: address,
        data_path: [192, 0, 2, 1].into(),
        capabilities: Capabilities {
            dataplane: DataplaneKind::User,
            encryption: true,
            ipv6: true,
            level: FeatureLevel::OURS,
        },
        root: noted,
    };
    let mut view = View::default();
    let objects = [Object::Cluster(cluster), Object::Node(node)].map(Change::Put);
    view.apply(Revision::new(1), objects);
    view
}

/// The next step of a node with a certificate of `issuer` that trusts `trusted`.
fn next(issuer: RootId, trusted: &[RootId], view: &View) -> Option<Step> {
    let trusts = |published: &[Root]| published == roots(trusted);
    Step::next(&Own { node: NODE, issuer, trusts: &trusts }, view)
}

#[test]
fn c04_a_node_gets_over_to_another_root_step_by_step() {
    for (issuer, trusted, view, expected) in [
        (A, &[A][..], view(&[A], A), None),
        // A rotation begins, also a second time; what is trusted comes with the certificate.
        (A, &[A], view(&[A, B], A), Some(Step::Renew)),
        (A, &[A], view(&[A, B, C], A), Some(Step::Renew)),
        (B, &[A, B], view(&[A, B, C], B), Some(Step::Renew)),
        // It has the certificate, and says so, after a restart too.
        (B, &[A, B], view(&[A, B], A), Some(Step::Report)),
        (B, &[A, B], view(&[A, B], B), None),
        // The rotation ended, maybe long ago.
        (B, &[A, B], view(&[B], B), Some(Step::Trust(roots(&[B])))),
        (B, &[B], view(&[B], B), None),
        // A second rotation began with the end of the first.
        (B, &[A, B], view(&[B, C], B), Some(Step::Renew)),
        // The certificate is newer than what was heard.
        (C, &[A, B, C], view(&[A, B], A), None),
        (C, &[C], view(&[B], B), None),
        // A report that was long under way came in between.
        (C, &[A, B, C], view(&[A, B, C], B), Some(Step::Report)),
    ] {
        assert_eq!(next(issuer, trusted, &view), expected, "{issuer} {trusted:?}");
    }
}

#[test]
fn c04_a_node_that_heard_nothing_does_nothing() {
    assert_eq!(next(A, &[A], &View::default()), None);
}
