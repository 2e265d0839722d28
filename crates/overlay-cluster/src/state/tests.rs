//! Rules of the state, by the rows of FEATURES that they prove.

mod endpoints;
mod keys;
mod levels;
mod lock;
mod mesh;
mod networks;
mod nodes;
mod places;
mod readiness;
mod roots;
mod sequences;
mod services;
mod takeover;
mod trust;

use core::time::Duration;

use overlay_testkit::objects::{ROOT as FIRST_ROOT, root};
pub(crate) use overlay_testkit::objects::{cluster, node};
use overlay_types::{
    Cluster, Encapsulation, Endpoint, EndpointDraft, EndpointId, Epoch, GossipKey, Network,
    NetworkDraft, NetworkId, Node, NodeId, PortSpec, RequestId, Role, RootId, Service,
    ServiceDraft, ServiceId, ServiceNetwork, UnixMillis,
};

use super::{Action, Applied, Command, InitCluster, MoveNode, Rejection, Response, State, Trust};

/// A state, and a caller who draws ids one after another.
pub(super) struct Lab {
    pub(super) state: State,
    drawn: u128,
    pub(super) now: UnixMillis,
}

pub(crate) fn init(cluster: Cluster) -> InitCluster {
    InitCluster {
        cluster,
        trust: Trust {
            root_certificate: "certificate".into(),
            private_key: "key".into(),
            worker_secret: vec![1; 16],
            manager_secret: vec![2; 16],
            successor: None,
            former_roots: Vec::new(),
        },
        unlock_key: None,
        node: node(1),
        gossip_key: GossipKey { epoch: Epoch::new(1), key: [9; 32] },
        ingress: NetworkId::from_u128(1),
        host_routes: Vec::new(),
    }
}

impl Lab {
    /// Nothing yet.
    pub(super) fn blank() -> Self {
        Self { state: State::default(), drawn: 1000, now: UnixMillis(1_000_000) }
    }

    /// A cluster of two nodes with the ingress network.
    pub(super) fn new() -> Self {
        let mut lab = Self::blank();
        lab.run(Action::InitCluster(Box::new(init(cluster()))));
        lab.run(Action::JoinNode(node(2)));
        lab
    }

    pub(super) fn draw(&mut self) -> u128 {
        self.drawn += 1;
        self.drawn
    }

    pub(super) fn apply(&mut self, action: Action) -> Result<Applied, Rejection> {
        let request = RequestId::from_u128(self.draw());
        self.state.apply(&Command { request, at: self.now, action })
    }

    /// Applies what must be accepted.
    pub(super) fn run(&mut self, action: Action) -> Response {
        self.apply(action).unwrap_or_else(|rejection| panic!("{rejection}")).response
    }

    /// Applies what must be refused, and leave no trace.
    pub(super) fn refuse(&mut self, action: Action) -> Rejection {
        let before = self.state.encode();
        let rejection = self.apply(action).unwrap_err();
        assert_eq!(self.state.encode(), before, "{rejection}");
        rejection
    }

    pub(super) fn create_network(&mut self, draft: NetworkDraft) -> Action {
        let id = NetworkId::from_u128(self.draw());
        Action::CreateNetwork { id, spec: draft.try_into().unwrap(), host_routes: Vec::new() }
    }

    pub(super) fn network(&mut self, draft: NetworkDraft) -> Network {
        let action = self.create_network(draft);
        match self.run(action) {
            Response::Network(network) => network,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn create_service(&mut self, draft: ServiceDraft) -> Action {
        let id = ServiceId::from_u128(self.draw());
        Action::CreateService { id, spec: draft.try_into().unwrap() }
    }

    pub(super) fn service(&mut self, draft: ServiceDraft) -> Service {
        let action = self.create_service(draft);
        match self.run(action) {
            Response::Service(service) => service,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn update_service(&mut self, old: &Service, draft: ServiceDraft) -> Action {
        let based_on = self.state.service(old.id).unwrap().meta.changed_at;
        Action::UpdateService { id: old.id, based_on, spec: draft.try_into().unwrap() }
    }

    pub(super) fn attach(&mut self, draft: EndpointDraft) -> Action {
        let id = EndpointId::from_u128(self.draw());
        Action::AttachEndpoint { id, spec: draft.try_into().unwrap() }
    }

    pub(super) fn endpoint(&mut self, draft: EndpointDraft) -> Endpoint {
        let action = self.attach(draft);
        match self.run(action) {
            Response::Endpoint(endpoint) => endpoint,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn net(name: &str) -> NetworkDraft {
    NetworkDraft { attachable: true, ..NetworkDraft::new(name.parse().unwrap()) }
}

pub(super) fn subnets(mut draft: NetworkDraft, subnets: &[&str]) -> NetworkDraft {
    let subnets: Vec<String> = subnets.iter().map(ToString::to_string).collect();
    draft.set_subnets(&subnets, &[], &[], &[]).unwrap();
    draft
}

pub(super) fn svc(name: &str, networks: &[NetworkId], ports: &[&str]) -> ServiceDraft {
    let networks =
        networks.iter().map(|id| ServiceNetwork { network: *id, aliases: Vec::new() }).collect();
    let ports = ports.iter().flat_map(|p| PortSpec::parse(p).unwrap()).collect();
    ServiceDraft { networks, ports, ..ServiceDraft::new(name.parse().unwrap()) }
}

pub(super) fn standalone(network: &Network, node: u128) -> EndpointDraft {
    EndpointDraft::new(network.id, NodeId::from_u128(node))
}

pub(super) fn task(service: &Service, network: NetworkId, node: u128) -> EndpointDraft {
    let draft = EndpointDraft::new(network, NodeId::from_u128(node));
    EndpointDraft { service: Some(service.id), ..draft }
}

/// The cluster object, nodes and requests.
mod cluster_rules {
    use rstest::rstest;

    use super::*;
    use crate::state::{Class, requests::MAX_REQUESTS};

    #[test]
    fn c12_a_repeated_request_is_applied_once() {
        let mut lab = Lab::new();
        let network = lab.network(net("web"));
        let action = lab.attach(standalone(&network, 1));
        let request = RequestId::from_u128(5);
        let command = Command { request, at: lab.now, action };
        let first = lab.state.apply(&command).unwrap();
        let (state, bytes) = (lab.state.clone(), lab.state.encode());
        let again = lab.state.apply(&command).unwrap();
        assert_eq!((again.response, again.changes), (first.response, vec![]));
        assert_eq!((&lab.state, lab.state.encode()), (&state, bytes));

        let other = Action::RemoveNetwork(network.id.into());
        let reused = lab.state.apply(&Command { action: other, ..command }).unwrap_err();
        assert_eq!(reused.code(), "REQUEST_REUSED");
    }

    #[test]
    fn c12_a_repeated_request_never_answers_with_what_is_gone() {
        let mut lab = Lab::new();
        let network = lab.network(net("web"));
        let attach = Command {
            request: RequestId::from_u128(5),
            at: lab.now,
            action: lab.attach(standalone(&network, 1)),
        };
        let Response::Endpoint(endpoint) = lab.state.apply(&attach).unwrap().response else {
            panic!("an attach answers with its endpoint")
        };
        lab.run(Action::DetachEndpoint(endpoint.id));
        let (state, bytes) = (lab.state.clone(), lab.state.encode());
        let again = lab.state.apply(&attach).unwrap_err();
        assert_eq!((again.code(), again.class()), ("REQUEST_UNDONE", Class::Conflict));
        assert_eq!(again.field(), Some("request_id"));
        assert!(again.to_string().contains(&endpoint.id.to_string()), "{again}");
        assert_eq!((&lab.state, lab.state.encode()), (&state, bytes));
    }

    #[test]
    fn c12_the_table_of_requests_is_bounded() {
        let mut lab = Lab::new();
        let old = Command {
            request: RequestId::from_u128(5),
            at: lab.now,
            action: Action::JoinNode(node(3)),
        };
        lab.state.apply(&old).unwrap();
        for number in 0..MAX_REQUESTS {
            let mut node = node(2);
            node.gossip.set_port(1000 + u16::try_from(number % 2).unwrap());
            lab.run(Action::JoinNode(node));
        }
        assert_eq!(lab.state.requests.iter().count(), MAX_REQUESTS);
        assert_eq!(lab.state.requests.get(old.request), None);
    }

    #[test]
    fn nothing_is_written_before_init_and_init_is_done_once() {
        let mut lab = Lab::blank();
        assert_eq!(lab.refuse(Action::JoinNode(node(2))).code(), "NO_CLUSTER");
        lab.run(Action::InitCluster(Box::new(init(cluster()))));
        let again = lab.refuse(Action::InitCluster(Box::new(init(cluster()))));
        assert_eq!(again.code(), "CLUSTER_EXISTS");
    }

    #[rstest]
    #[case(|c: &mut Cluster| c.vxlan_port = 80, "data-path-port", "80")]
    #[case(|c: &mut Cluster| c.vxlan_port = 49_152, "data-path-port", "49152")]
    #[case(|c: &mut Cluster| c.encrypted_vxlan_port = 4789, "encrypted-vxlan-port", "4789")]
    #[case(|c: &mut Cluster| c.esp = Encapsulation::Udp(4788), "esp-port", "4788")]
    #[case(|c: &mut Cluster| c.rotation_period = Duration::ZERO, "rotation-period", "0ns")]
    fn c03_init_refuses_impossible_settings(
        #[case] change: fn(&mut Cluster),
        #[case] field: &str,
        #[case] value: &str,
    ) {
        let mut cluster = cluster();
        change(&mut cluster);
        match Lab::blank().refuse(Action::InitCluster(Box::new(init(cluster)))) {
            Rejection::Invalid { field: f, value: v, .. } => assert_eq!((&*f, &*v), (field, value)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_node_that_returns_keeps_when_it_was_made() {
        let mut lab = Lab::new();
        let made = lab.state.node(NodeId::from_u128(2)).unwrap().meta.created_at;
        let before = lab.state.revision();
        lab.run(Action::JoinNode(node(2)));
        assert_eq!(lab.state.revision(), before, "nothing changed");
        let mut moved = node(2);
        moved.data_path = [198, 51, 100, 2].into();
        lab.run(Action::JoinNode(moved.clone()));
        let meta = lab.state.node(moved.id).unwrap().meta;
        assert_eq!((meta.created_at, meta.changed_at), (made, before.next()));

        let stale = Action::UpdateNode { node: node(2), based_on: made };
        let stale = lab.refuse(stale);
        assert_eq!((stale.code(), stale.class()), ("STALE", Class::Conflict));
        lab.run(Action::UpdateNode { node: node(2), based_on: before.next() });
    }

    #[test]
    fn look_ups_know_ids_names_and_unique_prefixes() {
        let mut lab = Lab::new();
        let a = lab.network(net("web"));
        let b = lab.network(net("db"));
        let find = |wanted: &str| lab.state.find_network(wanted).map(|n| n.id);
        assert_eq!(find("WEB"), Ok(a.id));
        assert_eq!(find(&b.id.to_string()), Ok(b.id));
        let (text, other) = (a.id.to_string(), b.id.to_string());
        let common = (1..25).rev().find(|n| text[..*n] == other[..*n]).unwrap();
        assert_eq!(find(&text[..=common]), Ok(a.id));
        match find(&text[..common]).unwrap_err() {
            Rejection::Ambiguous { candidates, .. } => {
                assert_eq!(candidates, [format!("web ({text})"), format!("db ({other})")]);
            }
            other => panic!("{other}"),
        }
        for unknown in ["", "nothing", "é", &"z".repeat(25), &"z".repeat(26), "-"] {
            assert_eq!(find(unknown).unwrap_err().code(), "NOT_FOUND", "{unknown}");
        }
    }
}
