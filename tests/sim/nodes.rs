//! Who there is: managers 1 to 7, and workers.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use overlay_cluster::{
    ca::{Authority, NodeTls, PendingJoin, join::SigningRequest},
    control,
    state::{InitCluster, Trust},
};
use overlay_types::{
    Availability, Capabilities, Cluster, ClusterId, DataplaneKind, Epoch, GossipKey, Meta,
    NetworkId, Node, NodeId, Role,
};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(77);
/// Most managers of one cluster.
pub(crate) const MANAGERS: u128 = 7;
/// The number of the first worker.
const FIRST_WORKER: u128 = 101;

/// The manager with this number, from 0.
pub(crate) fn manager(number: usize) -> NodeId {
    NodeId::from_u128(number as u128 + 1)
}

/// The worker with this number, from 0.
pub(crate) fn worker(number: usize) -> NodeId {
    NodeId::from_u128(FIRST_WORKER + number as u128)
}

pub(crate) fn role(id: NodeId) -> Role {
    if id.to_u128() <= MANAGERS { Role::Manager } else { Role::Worker }
}

/// The node as the trace names it: `m1`, `w1`.
pub(crate) fn short(id: NodeId) -> String {
    match role(id) {
        Role::Manager => format!("m{}", id.to_u128()),
        Role::Worker => format!("w{}", id.to_u128() - FIRST_WORKER + 1),
    }
}

pub(crate) fn node(id: NodeId) -> Node {
    let host = u8::try_from(id.to_u128()).expect("few nodes");
    Node {
        id,
        meta: Meta::default(),
        name: short(id).parse().expect("a name"),
        role: role(id),
        availability: Availability::Active,
        labels: BTreeMap::new(),
        control: ([192, 0, 2, host], 2377).into(),
        gossip: ([192, 0, 2, host], 7946).into(),
        data_path: [192, 0, 2, host].into(),
        capabilities: Capabilities { dataplane: DataplaneKind::User, encryption: true, ipv6: true },
    }
}

/// What the cluster starts with. Nobody joins with a token here, so nothing is signed.
pub(crate) fn cluster() -> InitCluster {
    InitCluster {
        cluster: Cluster {
            id: CLUSTER,
            meta: Meta::default(),
            vxlan_port: 4789,
            encrypted_vxlan_port: 4788,
            esp_port: 4500,
            default_pools: Vec::new(),
            rotation_period: Duration::from_hours(12),
            autolock: false,
            removed_nodes: <_>::default(),
        },
        trust: Trust {
            root_certificate: "certificate".into(),
            private_key: "key".into(),
            worker_secret: vec![1; 16],
            manager_secret: vec![2; 16],
        },
        unlock_key: None,
        node: node(manager(0)),
        gossip_key: GossipKey { epoch: Epoch::new(1), key: [9; 32] },
        ingress: NetworkId::from_u128(1),
        host_routes: Vec::new(),
    }
}

/// Credentials of a manager, made once for all runs: no seed reaches what makes keys, and nothing
/// looks at more than the names in them.
pub(crate) fn credentials(id: NodeId) -> Arc<NodeTls> {
    static MADE: OnceLock<BTreeMap<NodeId, Arc<NodeTls>>> = OnceLock::new();
    Arc::clone(&MADE.get_or_init(make_credentials)[&id])
}

fn make_credentials() -> BTreeMap<NodeId, Arc<NodeTls>> {
    let now = control::now();
    let authority = Authority::generate(CLUSTER, now).expect("a CA");
    let make = |number| {
        let id = manager(number);
        let pending = PendingJoin::new().expect("a key");
        let request = SigningRequest::from_der(pending.request()).expect("our own");
        let certificate = authority.sign(&request, id, Role::Manager, now).expect("a manager");
        let root = authority.root();
        let credentials = pending.complete(&certificate, root.der(), root.digest(), now);
        (id, Arc::new(NodeTls::new(&credentials.expect("credentials")).expect("TLS")))
    };
    (0..MANAGERS as usize).map(make).collect()
}
