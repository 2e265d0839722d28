use core::time::Duration;
use std::collections::BTreeMap;

use overlay_types::{
    Addresses, Capabilities, Change, Cluster, ClusterId, DataplaneKind, DefaultPool, Encapsulation,
    Endpoint, EndpointId, EndpointRole, EndpointSpec, Epoch, EpochState, FeatureLevel, GossipKey,
    GossipKeys, HealthDraft, HostReport, KeyEpoch, MacAddr, Meta, Network, NetworkDraft, NetworkId,
    NetworkSubnet, Node, NodeId, NodeKey, Object, ObjectKey, PortSpec, Readiness, Revision, Role,
    Root, RootId, Scale, Service, ServiceDraft, ServiceId, ServiceNetwork, ServiceSpec, UnixMillis,
    Vni, object::EndpointExtras,
};
use prost::Message;

use crate::v1;

fn meta() -> Meta {
    Meta { created_at: Revision::new(3), changed_at: Revision::new(9) }
}

fn labels() -> BTreeMap<String, String> {
    [("tier".to_owned(), "front".to_owned())].into()
}

fn ports() -> Vec<PortSpec> {
    PortSpec::parse("published=8080-8081,target=80-81,protocol=udp,mode=host,host_ip=::1").unwrap()
}

fn network() -> Network {
    let mut draft = NetworkDraft::new("net".parse().unwrap());
    draft.labels = labels();
    (draft.ipv6, draft.internal, draft.attachable) = (true, true, true);
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    draft
        .set_subnets(
            &texts(&["10.9.0.0/24", "fd00:9::/64"]),
            &texts(&["10.9.0.128/25"]),
            &texts(&["10.9.0.1"]),
            &texts(&["router=10.9.0.5"]),
        )
        .unwrap();
    for option in ["encrypted", "multicast", "mtu=1300", "vni=5000"] {
        draft.set_option(option).unwrap();
    }
    let subnet = |subnet: &str, gateway: &str| NetworkSubnet {
        subnet: subnet.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    Network {
        id: NetworkId::from_u128(7),
        meta: meta(),
        spec: draft.try_into().unwrap(),
        vni: Vni::new(5000).unwrap(),
        subnets: vec![subnet("10.9.0.0/24", "10.9.0.1"), subnet("fd00:9::/64", "fd00:9::1")],
    }
}

fn service() -> Service {
    let network = NetworkId::from_u128(7);
    let mut draft = ServiceDraft::new("web".parse().unwrap());
    draft.networks = vec![ServiceNetwork { network, aliases: vec!["www".parse().unwrap()] }];
    draft.ports = ports();
    draft.labels = labels();
    draft.prefer_local = true;
    draft.scale = Scale::Replicas(3);
    let vip = Addresses { v4: Some([10, 9, 0, 2].into()), v6: Some("fd00:9::2".parse().unwrap()) };
    Service {
        id: ServiceId::from_u128(8),
        meta: meta(),
        spec: draft.try_into().unwrap(),
        vips: [(network, vip)].into(),
        previous: Some(Box::new(ServiceDraft::new("web".parse().unwrap()).try_into().unwrap())),
    }
}

fn node() -> Node {
    Node {
        id: NodeId::from_u128(1),
        meta: meta(),
        name: "one".parse().unwrap(),
        role: Role::Worker,
        role_since: Revision::new(5),
        host: Some(Box::new(HostReport {
            kernel: "6.1.0-9-amd64".into(),
            missing: vec!["VXLAN devices: not supported; modprobe vxlan".into()],
            data_path_mtu: 9000,
            plain_mtu: 8950,
            encrypted_mtu: 8910,
        })),
        control: "[::1]:2377".parse().unwrap(),
        gossip: "127.0.0.1:7946".parse().unwrap(),
        data_path: "127.0.0.1".parse().unwrap(),
        availability: overlay_types::Availability::Drain,
        labels: labels(),
        capabilities: Capabilities {
            dataplane: DataplaneKind::User,
            encryption: true,
            ipv6: false,
            level: FeatureLevel::OURS,
        },
        root: RootId::from_u128(3),
    }
}

fn one_of_each() -> Vec<Object> {
    let pool = DefaultPool { pool: "10.0.0.0/8".parse().unwrap(), subnet_len: 24 };
    let endpoint = Endpoint {
        id: EndpointId::from_u128(9),
        meta: meta(),
        network: NetworkId::from_u128(7),
        node: NodeId::from_u128(1),
        service: Some(ServiceId::from_u128(8)),
        name: Some("web.1".parse().unwrap()),
        addresses: Addresses { v4: Some([10, 9, 0, 3].into()), v6: None },
        mac: MacAddr([2, 0x42, 10, 9, 0, 3]),
        role: EndpointRole::Mesh,
        readiness: Readiness::Draining,
        extras: Some(Box::new(EndpointExtras {
            aliases: vec!["a".parse().unwrap()],
            ports: ports(),
            health: Some(HealthDraft::new("http:80/up".parse().unwrap()).try_into().unwrap()),
        })),
    };
    vec![
        Object::Cluster(Cluster {
            autolock: true,
            id: ClusterId::from_u128(5),
            meta: meta(),
            vxlan_port: 4789,
            encrypted_vxlan_port: 4788,
            esp: Encapsulation::Udp(4500),
            default_pools: vec![pool],
            rotation_period: Duration::from_hours(12),
            removed_nodes: [(NodeId::from_u128(9), UnixMillis(7))].into(),
            level: FeatureLevel::OURS,
            roots: [None, Some(vec![3])]
                .map(|cross| Root { id: RootId::from_u128(3), certificate: vec![2], cross })
                .into(),
        }),
        Object::Node(node()),
        Object::Network(network()),
        Object::Service(service()),
        Object::Endpoint(endpoint),
        Object::KeyEpoch(KeyEpoch {
            epoch: Epoch::new(2),
            meta: meta(),
            state: EpochState::Ready,
            deadline: UnixMillis(17),
        }),
        Object::NodeKey(NodeKey {
            node: NodeId::from_u128(1),
            epoch: Epoch::new(2),
            meta: meta(),
            public: [7; 32],
            ready: true,
        }),
        Object::GossipKeys(GossipKeys {
            meta: meta(),
            current: Epoch::new(1),
            keys: vec![GossipKey { epoch: Epoch::new(1), key: [9; 32] }],
            deadline: UnixMillis(18),
        }),
    ]
}

#[test]
fn every_object_survives_its_bytes() {
    for object in one_of_each() {
        let delete = Change::Delete(object.key());
        for change in [Change::Put(object), delete] {
            let bytes = v1::Change::from(&change).encode_to_vec();
            let message = v1::Change::decode(bytes.as_slice()).unwrap();
            assert_eq!(Change::try_from(message), Ok(change));
        }
    }
}

#[test]
fn keys_keep_their_kind() {
    let keys: Vec<ObjectKey> = one_of_each().iter().map(Object::key).collect();
    let back: Vec<ObjectKey> =
        keys.iter().map(|key| v1::ObjectKey::from(*key).try_into().unwrap()).collect();
    assert_eq!(keys, back);
}

/// The field and value that a message is refused for.
fn refused<M, T>(message: M) -> (&'static str, String)
where
    T: TryFrom<M, Error = overlay_types::SpecError> + core::fmt::Debug,
{
    let error = T::try_from(message).unwrap_err();
    (error.field(), error.value().to_owned())
}

#[test]
fn a_wrong_field_is_named_with_its_value() {
    let spec = v1::NetworkSpec::from(&network().spec);
    let with = |change: &dyn Fn(&mut v1::NetworkSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        refused::<_, overlay_types::NetworkSpec>(spec)
    };
    assert_eq!(with(&|s| s.name = "a b".into()), ("name", " ".into()));
    assert_eq!(with(&|s| s.vni = 1 << 24), ("vni", "16777216".into()));
    assert_eq!(with(&|s| s.mtu = 70_000), ("mtu", "70000".into()));
    assert_eq!(with(&|s| s.subnets[0].subnet = "x".into()), ("subnet", "x".into()));
    assert_eq!(with(&|s| s.subnets[0].gateway = "x".into()), ("gateway", "x".into()));

    let spec = v1::ServiceSpec::from(&service().spec);
    let with = |change: &dyn Fn(&mut v1::ServiceSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        refused::<_, ServiceSpec>(spec)
    };
    assert_eq!(with(&|s| s.mode = 7), ("mode", "7".into()));
    assert_eq!(with(&|s| s.ports[0].target = 0), ("ports.target", "0".into()));
    assert_eq!(with(&|s| s.ports[0].protocol = 9), ("ports.protocol", "9".into()));
    assert_eq!(with(&|s| s.networks[0].network = "n".into()), ("networks.network", "n".into()));

    let spec = v1::EndpointSpec {
        network: NetworkId::from_u128(7).to_string(),
        node: NodeId::from_u128(1).to_string(),
        addresses: vec!["10.0.0.1".into(), "10.0.0.2".into()],
        ..v1::EndpointSpec::default()
    };
    assert_eq!(refused::<_, EndpointSpec>(spec), ("addresses", "10.0.0.2".into()));
}

#[test]
fn a_secret_is_not_repeated_in_an_error() {
    let keys = v1::GossipKeys {
        keys: vec![v1::GossipKey { epoch: 1, key: b"hush".to_vec() }],
        ..v1::GossipKeys::default()
    };
    assert_eq!(refused::<_, GossipKeys>(keys), ("gossip_keys.key", "(4 bytes)".into()));
}
