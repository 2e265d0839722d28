//! Random sequences of commands, and what holds after each.

use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{
    Addresses, Change, EndpointMode, EpochState, MacAddr, Readiness, Revision, View,
};
use proptest::prelude::*;

use super::*;
use crate::state::HealthReport;

/// Few ids and names, so that commands meet.
fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (0..5_u128, any::<bool>()).prop_map(|(n, moved)| {
            let mut node = node(1 + n);
            node.capabilities.encryption = n != 2;
            if moved { node.gossip.set_port(8000); }
            Action::JoinNode(node)
        }),
        4 => network_action(),
        4 => service_action(),
        8 => endpoint_action(),
        3 => (0..20_u128).prop_map(|id| Action::DetachEndpoint(EndpointId::from_u128(id))),
        1 => (1..6_u128).prop_map(|id| Action::RemoveNetwork(NetworkId::from_u128(id).into())),
        1 => (0..4_u128).prop_map(|id| Action::RemoveService(ServiceId::from_u128(id).into())),
        3 => key_action(),
        3 => mesh_or_readiness_action(),
    ]
}

fn network_action() -> impl Strategy<Value = Action> {
    let subnets = prop::sample::subsequence(
        vec!["10.7.0.0/29", "10.7.0.16/28", "10.0.1.0/24", "fd00:7::/126", "fd00:8::/64"],
        0..3,
    );
    (1..6_u128, any::<[bool; 5]>(), subnets, 0..40_u64).prop_filter_map(
        "a spec that makes no sense",
        |(id, [update, ingress, encrypted, ipv6, attachable], subnets, based_on)| {
            let mut draft = super::subnets(net(&format!("net{}", id % 4)), &subnets);
            (draft.ingress, draft.encrypted, draft.ipv6) = (ingress, encrypted, ipv6);
            draft.attachable = attachable && !ingress;
            let spec = draft.try_into().ok()?;
            let (id, host_routes) = (NetworkId::from_u128(id), Vec::new());
            let based_on = Revision::new(based_on);
            Some(if update {
                Action::UpdateNetwork { id, based_on, spec, host_routes }
            } else {
                Action::CreateNetwork { id, spec, host_routes }
            })
        },
    )
}

fn service_action() -> impl Strategy<Value = Action> {
    let ports = vec!["8080:80", "80", "81/udp", "published=8080,target=80,mode=host"];
    let ports = prop::sample::subsequence(ports, 0..3);
    let networks = prop::sample::subsequence(vec![2_u128, 3, 4, 5], 0..3);
    (0..4_u128, any::<[bool; 2]>(), networks, ports, 0..40_u64).prop_filter_map(
        "a spec that makes no sense",
        |(id, [update, dnsrr], networks, ports, based_on)| {
            let networks: Vec<_> = networks.into_iter().map(NetworkId::from_u128).collect();
            let mut draft = svc(&format!("svc{}", id % 3), &networks, &ports);
            if dnsrr {
                draft.mode = EndpointMode::Dnsrr;
            }
            let (id, spec) = (ServiceId::from_u128(id), draft.try_into().ok()?);
            let based_on = Revision::new(based_on);
            Some(if update {
                Action::UpdateService { id, based_on, spec }
            } else {
                Action::CreateService { id, spec }
            })
        },
    )
}

fn endpoint_action() -> impl Strategy<Value = Action> {
    let address = prop::option::weighted(0.3, 1..9_u8);
    let service = prop::option::of(0..4_u128);
    let mac = prop::option::weighted(0.2, 0..4_u8);
    (0..20_u128, 1..6_u128, 1..5_u128, service, address, mac, any::<bool>()).prop_filter_map(
        "a spec that makes no sense",
        |(id, network, node, service, address, mac, publish)| {
            let mut draft =
                EndpointDraft::new(NetworkId::from_u128(network), NodeId::from_u128(node));
            draft.service = service.map(ServiceId::from_u128);
            let v4 = address.map(|host| [10, 7, 0, host].into());
            draft.addresses = Addresses { v4, v6: None };
            draft.mac = mac.map(|m| MacAddr([2, 0x42, 10, 7, 0, m]));
            if publish {
                draft.ports = PortSpec::parse("8080:80").unwrap();
            }
            Some(Action::AttachEndpoint {
                id: EndpointId::from_u128(id),
                spec: draft.try_into().ok()?,
            })
        },
    )
}

fn mesh_or_readiness_action() -> impl Strategy<Value = Action> {
    let readiness = vec![Readiness::Ready, Readiness::Starting, Readiness::Draining];
    let readiness = prop::sample::select(readiness);
    (0..25_u128, 1..6_u128, 1..5_u128, readiness, 0..3_u8).prop_map(
        |(id, network, node, to, kind)| {
            let (id, node) = (EndpointId::from_u128(id), NodeId::from_u128(node));
            let mesh = EndpointDraft::mesh(NetworkId::from_u128(network), node);
            let failing = [id].into();
            match kind {
                0 => Action::AttachEndpoint { id, spec: mesh.try_into().unwrap() },
                1 => Action::SetReadiness { id, to },
                _ => Action::ReportHealth(HealthReport { node, passing: [].into(), failing }),
            }
        },
    )
}

fn key_action() -> impl Strategy<Value = Action> {
    let (deadline, drained) = (UnixMillis(5), UnixMillis(6));
    let states = prop::sample::select(vec![EpochState::Ready, EpochState::Active]);
    (1..5_u128, 1..6_u64, 0..7_u8, states).prop_map(move |(node, epoch, kind, to)| {
        let (node, epoch) = (NodeId::from_u128(node), Epoch::new(epoch));
        match kind {
            0 => Action::PublishNodeKey { node, epoch, public: [3; 32] },
            1 => Action::ReportEpochReady { node, epoch, public: [3; 32] },
            2 => Action::StartRotation { epoch, deadline },
            3 => Action::AdvanceEpoch { epoch, to, deadline, drained },
            4 => Action::RemoveEpoch(epoch),
            5 => Action::RotateGossipKey { key: GossipKey { epoch, key: [4; 32] }, deadline },
            _ => Action::AdvanceGossipKey { to: epoch, deadline },
        }
    })
}

/// unique-address, and IPAM counts exactly what the view holds.
fn check_addresses(state: &State) {
    let mut held: BTreeMap<NetworkId, BTreeSet<core::net::IpAddr>> = BTreeMap::new();
    for network in state.view().networks().keys() {
        held.insert(*network, BTreeSet::new());
    }
    let vips = state.view().services().values().flat_map(|s| s.vips.iter());
    let endpoints = state.view().endpoints().values().map(|e| (&e.network, &e.addresses));
    for (network, addresses) in vips.chain(endpoints) {
        for address in addresses.iter() {
            assert!(held.get_mut(network).unwrap().insert(address), "{address} is held twice");
        }
    }
    for (network, held) in &held {
        let allocated: BTreeSet<_> = state.ipam[network].allocated().collect();
        assert_eq!(&allocated, held, "network {network}");
    }
    assert_eq!(state.ipam.len(), held.len());
}

/// What else holds of every state.
fn check_objects(state: &State) {
    let view = state.view();
    assert_eq!(state.index, super::super::index::Index::of(view));
    let (mut macs, mut places) = (BTreeSet::new(), BTreeSet::new());
    for endpoint in view.endpoints().values() {
        assert!(macs.insert((endpoint.network, endpoint.mac)), "{} twice", endpoint.mac);
        let network = &view.networks()[&endpoint.network];
        assert!(view.nodes().contains_key(&endpoint.node));
        match endpoint.service {
            Some(service) => assert!(view.services()[&service].vips.contains_key(&network.id)),
            None if endpoint.is_mesh() => {
                assert!(network.spec.ingress && places.insert(endpoint.node));
            }
            None => assert!(network.spec.attachable),
        }
        assert_eq!(endpoint.addresses.v4.is_some(), network.spec.ipv4);
        assert_eq!(endpoint.addresses.v6.is_some(), network.spec.ipv6);
    }
    let mut vnis = BTreeSet::new();
    assert!(view.networks().values().all(|n| vnis.insert(n.vni)));
    assert!(view.networks().values().filter(|n| n.spec.ingress).count() <= 1);
    for service in view.services().values() {
        assert!(service.vips.keys().all(|id| view.networks().contains_key(id)));
        assert!(service.spec.ports.iter().all(|p| p.published.is_some()));
        for (id, addresses) in &service.vips {
            let spec = &view.networks()[id].spec;
            let vip = service.spec.mode == EndpointMode::Vip;
            assert_eq!(addresses.v4.is_some(), vip && spec.ipv4);
            assert_eq!(addresses.v6.is_some(), vip && spec.ipv6);
        }
    }
    let active = view.key_epochs().values().filter(|e| e.state == EpochState::Active);
    assert_eq!(active.count(), 1);
    let ring = view.gossip_keys().unwrap();
    assert!(ring.keys.len() <= 3);
    assert!(ring.keys.iter().any(|k| k.epoch == ring.current));
}

/// Updates are drawn with some revision; most of them get the one that is accepted.
fn freshen(state: &State, action: &mut Action, fresh: bool) {
    if !fresh {
        return;
    }
    match action {
        Action::UpdateNetwork { id, based_on, .. } => {
            if let Ok(network) = state.network(*id) {
                *based_on = network.meta.changed_at;
            }
        }
        Action::UpdateService { id, based_on, .. } => {
            if let Ok(service) = state.service(*id) {
                *based_on = service.meta.changed_at;
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn r01_invariants_hold_after_every_command(
        actions in prop::collection::vec((action(), prop::bool::weighted(0.8)), 1..80),
        restart_at in 0..80_usize,
    ) {
        let mut lab = Lab::new();
        let mut mirror = View::default();
        mirror.apply(lab.state.revision(), lab.state.view().objects().map(Change::Put));
        let mut log = Vec::new();
        for (number, (mut action, fresh)) in actions.into_iter().enumerate() {
            freshen(&lab.state, &mut action, fresh);
            if number == restart_at {
                let decoded = State::decode(lab.state.encode()).unwrap();
                prop_assert_eq!(&decoded, &lab.state);
                lab.state = decoded;
            }
            let request = RequestId::from_u128(lab.draw());
            let command = Command { request, at: lab.now, action };
            let message = overlay_api::internal::v1::Command::from(&command);
            prop_assert_eq!(&Command::try_from(message).unwrap(), &command);
            let (before, bytes) = (lab.state.revision(), lab.state.encode());
            match lab.state.apply(&command) {
                Ok(applied) if applied.changes.is_empty() => {
                    prop_assert_eq!(lab.state.encode(), bytes);
                }
                Ok(applied) => {
                    prop_assert_eq!(lab.state.revision(), before.next());
                    mirror.apply(before.next(), applied.changes);
                }
                Err(rejection) => {
                    prop_assert_eq!(lab.state.encode(), bytes, "{}", rejection);
                }
            }
            prop_assert_eq!(&mirror, lab.state.view());
            check_addresses(&lab.state);
            check_objects(&lab.state);
            log.push(command);
        }
        let mut replayed = Lab::new().state;
        for command in &log {
            let _ = replayed.apply(command);
        }
        prop_assert_eq!(&replayed, &lab.state);
        prop_assert_eq!(replayed.encode(), lab.state.encode());
    }

    /// R06: bytes from nowhere are refused, whatever they are.
    #[test]
    fn r06_damaged_snapshots_are_refused(at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut lab = Lab::new();
        let network = lab.network(net("web"));
        lab.endpoint(standalone(&network, 1));
        let bytes = lab.state.encode();
        prop_assert!(State::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let mut flipped = bytes.to_vec();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        // A flipped bit in a label or address can make another valid state: it must only not panic.
        let _ = State::decode(flipped.as_slice());
    }
}
