//! The log and snapshots: what this release does not know all of is refused. To apply the rest of it
//! would make another state of it than the newer managers do.

use core::time::Duration;

use overlay_api::internal::v1 as internal;
use overlay_cluster::state::{
    Action, ClusterUpdate, Command, HealthReport, InitCluster, OpaqueSecret, State, Trust,
    wire::{WireError, decode_command},
};
use overlay_testkit::objects;
use overlay_types::{
    EndpointDraft, EndpointId, Epoch, EpochState, FeatureLevel, GossipKey, HealthDraft,
    NetworkDraft, NetworkId, NodeId, Readiness, RequestId, Revision, Role, Scale, ServiceDraft,
    ServiceId, ServiceNetwork, UnixMillis,
};
use prost::{Message, bytes::Buf};

use crate::newer;

const NETWORK: NetworkId = NetworkId::from_u128(2);
const SERVICE: ServiceId = ServiceId::from_u128(3);
const NODE: NodeId = NodeId::from_u128(1);

fn network() -> NetworkDraft {
    let mut draft = NetworkDraft::new("net".parse().unwrap());
    draft.attachable = true;
    draft.labels = [("a".to_owned(), "b".to_owned())].into();
    let aux = ["printer=10.9.0.9".to_owned()];
    draft.set_subnets(&["10.9.0.0/24".to_owned()], &[], &[], &aux).unwrap();
    draft
}

fn service() -> ServiceDraft {
    let mut draft = ServiceDraft::new("web".parse().unwrap());
    draft.scale = Scale::Global;
    draft.networks =
        vec![ServiceNetwork { network: NETWORK, aliases: vec!["www".parse().unwrap()] }];
    draft
}

fn init() -> InitCluster {
    InitCluster {
        unlock_key: None,
        cluster: objects::cluster(),
        trust: Trust {
            root_certificate: "certificate".into(),
            private_key: "key".into(),
            worker_secret: vec![1; 16],
            manager_secret: vec![2; 16],
            former_roots: Vec::new(),
            successor: None,
        },
        node: objects::node(1),
        gossip_key: GossipKey { epoch: Epoch::new(1), key: [9; 32] },
        ingress: NetworkId::from_u128(1),
        host_routes: vec!["192.0.2.0/24".parse().unwrap()],
    }
}

/// Actions that a state takes one after another, so that all kinds of objects are in it.
fn history() -> Vec<Action> {
    let host_routes = vec!["192.0.2.0/24".parse().unwrap()];
    let mut endpoint = EndpointDraft::new(NETWORK, NODE);
    endpoint.service = Some(SERVICE);
    endpoint.name = Some("web.1".parse().unwrap());
    endpoint.health = Some(HealthDraft::new("tcp:80".parse().unwrap()).try_into().unwrap());
    let spec = network().try_into().unwrap();
    let id = EndpointId::from_u128(4);
    let (epoch, public) = (Epoch::new(1), [7; 32]);
    let deadline = UnixMillis(99);
    vec![
        Action::InitCluster(Box::new(init())),
        Action::JoinNode(objects::node(2)),
        Action::CreateNetwork { id: NETWORK, spec, host_routes },
        Action::CreateService { id: SERVICE, spec: service().try_into().unwrap() },
        Action::AttachEndpoint { id, spec: endpoint.try_into().unwrap() },
        Action::ReportHealth(HealthReport { node: NODE, passing: [id].into(), failing: [].into() }),
        Action::SetReadiness { id, to: Readiness::Draining },
        Action::PublishNodeKey { node: NODE, epoch, public },
        Action::ReportEpochReady { epoch, node: NODE, public },
        Action::StartRotation { epoch: Epoch::new(2), deadline },
        Action::AdvanceEpoch {
            epoch: Epoch::new(2),
            to: EpochState::Ready,
            deadline,
            drained: deadline,
        },
        Action::RotateGossipKey { key: GossipKey { epoch: Epoch::new(2), key: [8; 32] }, deadline },
        Action::AdvanceGossipKey { to: Epoch::new(2), deadline },
        Action::RotateJoinSecret { role: Role::Worker, secret: OpaqueSecret(vec![3; 16]) },
        Action::UpdateCluster(ClusterUpdate {
            autolock: Some(Some(OpaqueSecret(vec![4; 32]))),
            rotation_period: Some(Duration::from_hours(1)),
        }),
        Action::RotateUnlockKey(OpaqueSecret(vec![5; 32])),
        Action::AnnounceLevel { node: NODE, level: FeatureLevel::OURS },
        Action::AnnounceCapabilities {
            node: NODE,
            capabilities: objects::node(1).capabilities,
            host: Box::new(objects::host()),
        },
    ]
}

/// Actions that are decoded only.
fn others() -> Vec<Action> {
    let based_on = Revision::new(1);
    vec![
        Action::UpdateNode { node: objects::node(2), based_on },
        Action::RemoveNode(NODE),
        Action::UpdateNetwork {
            id: NETWORK,
            based_on,
            spec: network().try_into().unwrap(),
            host_routes: Vec::new(),
        },
        Action::UpdateService { id: SERVICE, based_on, spec: service().try_into().unwrap() },
        Action::DetachEndpoint(EndpointId::from_u128(4)),
        Action::RemoveEpoch(Epoch::new(1)),
    ]
}

fn command(number: usize, action: Action) -> Command {
    let request = RequestId::from_u128(100 + number as u128);
    Command { request, at: UnixMillis(50), action }
}

#[test]
fn r08_a_command_with_anything_new_in_it_is_refused() {
    let pool = newer::pool();
    for (number, action) in history().into_iter().chain(others()).enumerate() {
        let command = command(number, action);
        let bytes = internal::Command::from(&command).encode_to_vec();
        assert_eq!(decode_command(bytes.as_slice()), Ok(command.clone()));
        let known = newer::read(&pool, "overlay.internal.v1.Command", &bytes);
        assert_eq!(known.encode_to_vec().len(), bytes.len());
        let action = newer::with(&known, "novelty_0").encode_to_vec();
        for newer in newer::novelties(&known).into_iter().chain([action]) {
            let refused = decode_command(newer.as_slice());
            assert!(matches!(refused, Err(WireError::Newer { .. })), "{command:?}: {refused:?}");
        }
    }
}

#[test]
fn r08_a_value_of_an_enum_that_is_new_is_refused() {
    let message = internal::Command::from(&command(1, Action::JoinNode(objects::node(2))));
    let Some(internal::command::Action::JoinNode(mut node)) = message.action.clone() else {
        panic!("it is a join");
    };
    node.availability = 77;
    let action = Some(internal::command::Action::JoinNode(node));
    let bytes = internal::Command { action, ..message }.encode_to_vec();
    assert!(matches!(decode_command(bytes.as_slice()), Err(WireError::Field { .. })));
}

#[test]
fn r08_a_snapshot_with_anything_new_in_it_is_refused() {
    let pool = newer::pool();
    let mut state = State::default();
    for (number, action) in history().into_iter().enumerate() {
        state.apply(&command(number, action)).unwrap();
    }
    let snapshot = state.encode();
    assert_eq!(State::decode(snapshot.clone()).unwrap(), state);
    let mut records = Vec::new();
    let mut rest = snapshot;
    while rest.has_remaining() {
        let length = prost::decode_length_delimiter(&mut rest).unwrap();
        records.push(rest.copy_to_bytes(length).to_vec());
    }
    for place in 0..records.len() {
        let known = newer::read(&pool, "overlay.internal.v1.StateRecord", &records[place]);
        let kind = newer::with(&known, "novelty_0").encode_to_vec();
        for newer in newer::novelties(&known).into_iter().chain([kind]) {
            let mut snapshot = Vec::new();
            for (at, record) in records.iter().enumerate() {
                let record = if at == place { &newer } else { record };
                prost::encode_length_delimiter(record.len(), &mut snapshot).unwrap();
                snapshot.extend_from_slice(record);
            }
            let refused = State::decode(snapshot.as_slice());
            assert!(matches!(refused, Err(WireError::Newer { .. })), "{known}: {refused:?}");
        }
    }
}
