//! Replicated objects that tests begin with.

use core::time::Duration;
use std::collections::BTreeMap;

use overlay_types::{
    Availability, Capabilities, Cluster, ClusterId, DataplaneKind, Encapsulation, FeatureLevel,
    HostReport, Meta, Node, NodeId, Revision, Role, Root, RootId,
};

/// The root that clusters of tests begin with.
pub const ROOT: RootId = RootId::from_u128(100);

/// A manager at 192.0.2.`number`, of this release, that can do everything.
///
/// # Panics
/// For numbers above 255, which are no hosts of that network.
pub fn node(number: u128) -> Node {
    let host = u8::try_from(number).expect("a host number");
    Node {
        id: NodeId::from_u128(number),
        meta: Meta::default(),
        name: format!("node{number}").parse().expect("a name"),
        role: Role::Manager,
        role_since: Revision::ZERO,
        host: None,
        control: ([192, 0, 2, host], 2377).into(),
        gossip: ([192, 0, 2, host], 7946).into(),
        data_path: [192, 0, 2, host].into(),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        capabilities: Capabilities {
            dataplane: DataplaneKind::User,
            encryption: true,
            ipv6: true,
            level: FeatureLevel::OURS,
        },
        root: ROOT,
    }
}

/// What a node says of a host that lacks something.
pub fn host() -> HostReport {
    HostReport {
        kernel: "6.1.0-9-amd64".to_owned(),
        missing: vec!["VXLAN devices: not supported; modprobe vxlan (CONFIG_VXLAN)".to_owned()],
        data_path_mtu: 1500,
        plain_mtu: 1450,
        encrypted_mtu: 1408,
    }
}

/// A cluster as `init` without flags makes it.
pub fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::from_u128(77),
        meta: Meta::default(),
        vxlan_port: 4789,
        encrypted_vxlan_port: 4788,
        esp: Encapsulation::Udp(4500),
        default_pools: Vec::new(),
        rotation_period: Duration::from_hours(12),
        autolock: false,
        removed_nodes: BTreeMap::new(),
        level: FeatureLevel::OURS,
        roots: vec![root(ROOT, None)],
    }
}

/// A root in form only: nothing can be checked against it.
pub fn root(id: RootId, cross: Option<Vec<u8>>) -> Root {
    Root { id, certificate: id.to_bytes().to_vec(), cross }
}
