//! Who there is: managers 1 to 7, and workers.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use overlay_cluster::{
    ca::{Authority, NodeTls, PendingJoin, Subject, join::SigningRequest},
    control,
    state::{InitCluster, Trust},
};
use overlay_testkit::objects;
use overlay_types::{ClusterId, Epoch, GossipKey, NetworkId, Node, NodeId, Role};

/// The id of [`objects::cluster`].
pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(77);
/// Most managers that a cluster begins with.
const MANAGERS: u128 = 7;
/// The number of the first worker.
const FIRST_WORKER: u128 = 101;
/// The number of the first node that joins later.
const FIRST_JOINER: u128 = 201;
/// Most nodes that join later.
const JOINERS: usize = 4;
/// Workers that may be promoted: those that have credentials for it.
const PROMOTED: usize = 10;

/// The manager with this number, from 0.
pub(crate) fn manager(number: usize) -> NodeId {
    NodeId::from_u128(number as u128 + 1)
}

/// The worker with this number, from 0.
pub(crate) fn worker(number: usize) -> NodeId {
    NodeId::from_u128(FIRST_WORKER + number as u128)
}

/// The node with this number, from 0, of those that join later, if there may be so many.
pub(crate) fn joiner(number: usize) -> Option<NodeId> {
    (number < JOINERS).then(|| NodeId::from_u128(FIRST_JOINER + number as u128))
}

/// The role that the node begins with.
pub(crate) fn first_role(id: NodeId) -> Role {
    if id.to_u128() <= MANAGERS { Role::Manager } else { Role::Worker }
}

/// Whether the node can become a manager.
pub(crate) fn may_manage(id: NodeId) -> bool {
    made().contains_key(&id)
}

/// The node as the trace names it: `m1`, `w1`, `j1`.
pub(crate) fn short(id: NodeId) -> String {
    match id.to_u128() {
        number @ ..=MANAGERS => format!("m{number}"),
        number @ FIRST_JOINER.. => format!("j{}", number - FIRST_JOINER + 1),
        number => format!("w{}", number - FIRST_WORKER + 1),
    }
}

pub(crate) fn node(id: NodeId) -> Node {
    let name = short(id).parse().expect("a name");
    Node { name, role: first_role(id), ..objects::node(id.to_u128()) }
}

/// What the cluster starts with. Nobody joins with a token here, so nothing is signed.
pub(crate) fn cluster() -> InitCluster {
    InitCluster {
        cluster: objects::cluster(),
        trust: Trust {
            root_certificate: "certificate".into(),
            private_key: "key".into(),
            worker_secret: vec![1; 16],
            manager_secret: vec![2; 16],
            successor: None,
            former_roots: Vec::new(),
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
    Arc::clone(&made()[&id])
}

fn made() -> &'static BTreeMap<NodeId, Arc<NodeTls>> {
    static MADE: OnceLock<BTreeMap<NodeId, Arc<NodeTls>>> = OnceLock::new();
    MADE.get_or_init(make_credentials)
}

fn make_credentials() -> BTreeMap<NodeId, Arc<NodeTls>> {
    let now = control::now();
    let authority = Authority::generate(CLUSTER, now).expect("a CA");
    let make = |id| {
        let pending = PendingJoin::new().expect("a key");
        let request = SigningRequest::from_der(pending.request()).expect("our own");
        let certificate =
            authority.sign(&request, Subject::at_first(id, Role::Manager), now).expect("a manager");
        let root = authority.root().clone();
        let credentials = pending.complete(&certificate, root.into(), now);
        (id, Arc::new(NodeTls::new(&credentials.expect("credentials")).expect("TLS")))
    };
    let managers = (0..MANAGERS as usize).map(manager);
    let promoted = (0..PROMOTED).map(worker).chain((0..JOINERS).filter_map(joiner));
    managers.chain(promoted).map(make).collect()
}
