//! Names that endpoints ask for, and the messages that carry them.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::LazyLock};

use overlay_service::{
    Answer, Directory, Question, Record, RecordKind, Scope,
    dns::{MAX_UDP_PAYLOAD, Outcome, Reaction, Transport, react},
    resolve::{MAX_RECORDS, resolve},
};
use overlay_types::{
    Addresses, Change, Endpoint, EndpointId, EndpointRole, MacAddr, Meta, Network, NetworkDraft,
    NetworkId, NetworkSubnet, NodeId, Object, PortSpec, Readiness, Revision, Service, ServiceDraft,
    ServiceId, ServiceNetwork, Subnet, View, Vni,
};

const NETWORK: NetworkId = NetworkId::from_u128(1);
const SERVICE: ServiceId = ServiceId::from_u128(10);

const KINDS: [RecordKind; 6] = [
    RecordKind::A,
    RecordKind::Aaaa,
    RecordKind::Ptr,
    RecordKind::Srv,
    RecordKind::Any,
    RecordKind::Other,
];

static DIRECTORY: LazyLock<Directory> = LazyLock::new(|| Directory::new(&view()));

/// A name, asked for with every type of record; accepted when there are records.
pub fn dns_name(bytes: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(bytes) else { return false };
    let other_case = name.to_ascii_uppercase();
    let mut accepted = false;
    for kind in KINDS {
        let answer = ask(name, kind);
        assert_eq!(answer, ask(&other_case, kind), "case matters");
        if let Answer::Records(records) = answer {
            assert!(records.len() <= MAX_RECORDS);
            assert!(records.iter().all(|record| is_of(kind, record)));
            accepted |= !records.is_empty();
        }
    }
    accepted
}

/// A message to the name server, over each transport; accepted when it is a query that is answered
/// or that another server could be asked.
pub fn dns_message(bytes: &[u8]) -> bool {
    let longest = |transport| match transport {
        Transport::Udp => MAX_UDP_PAYLOAD.into(),
        Transport::Tcp => u16::MAX.into(),
    };
    let accepts = |transport| {
        let (reply, accepted) = match react(&DIRECTORY, &Scope::new([NETWORK]), bytes, transport, 1)
        {
            Reaction::Ignore => return false,
            Reaction::Reply { bytes, outcome } => (bytes, outcome == Outcome::Answered),
            Reaction::Forward(query) => (query.refusal(), true),
        };
        assert!((12..=longest(transport)).contains(&reply.len()), "{} octets", reply.len());
        assert_eq!(reply[..2], bytes[..2], "the reply to another query");
        assert_eq!(reply[2] & 0x80, 0x80, "a query in reply to a query");
        accepted
    };
    let accepted = accepts(Transport::Udp);
    assert_eq!(accepted, accepts(Transport::Tcp), "the transport matters");
    accepted
}

fn ask(name: &str, kind: RecordKind) -> Answer {
    resolve(&DIRECTORY, &Scope::new([NETWORK]), Question { name, kind }, 1)
}

fn is_of(kind: RecordKind, record: &Record) -> bool {
    match record {
        Record::A(_) => matches!(kind, RecordKind::A | RecordKind::Any),
        Record::Aaaa(_) => matches!(kind, RecordKind::Aaaa | RecordKind::Any),
        Record::Ptr(_) => matches!(kind, RecordKind::Ptr | RecordKind::Any),
        Record::Srv { .. } => matches!(kind, RecordKind::Srv | RecordKind::Any),
    }
}

/// Network `front` with the service `web` at 10.0.1.2 and its task `web.1` at 10.0.1.20.
fn view() -> View {
    let mut view = View::default();
    let objects =
        [Object::Network(network()), Object::Service(service()), Object::Endpoint(endpoint())];
    view.apply(Revision::new(1), objects.map(Change::Put));
    view
}

fn network() -> Network {
    let subnet = Subnet::parse("subnet", "10.0.1.0/24").expect("a subnet");
    let draft = NetworkDraft::new("front".parse().expect("a name"));
    Network {
        id: NETWORK,
        meta: Meta::default(),
        spec: draft.try_into().expect("a sound network"),
        vni: Vni::for_overlay(4097).expect("an overlay's VNI"),
        subnets: vec![NetworkSubnet { subnet, gateway: Ipv4Addr::new(10, 0, 1, 1).into() }],
    }
}

fn service() -> Service {
    let www = "www".parse().expect("a name");
    let draft = ServiceDraft {
        networks: vec![ServiceNetwork { network: NETWORK, aliases: vec![www] }],
        ports: PortSpec::parse("8080:80").expect("a port"),
        ..ServiceDraft::new("web".parse().expect("a name"))
    };
    Service {
        id: SERVICE,
        meta: Meta::default(),
        spec: draft.try_into().expect("a sound service"),
        vips: BTreeMap::from([(NETWORK, at(2))]),
        previous: None,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: EndpointId::from_u128(20),
        meta: Meta::default(),
        network: NETWORK,
        node: NodeId::from_u128(1),
        service: Some(SERVICE),
        name: Some("web.1".parse().expect("a name")),
        addresses: at(20),
        mac: MacAddr::default(),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    }
}

fn at(last: u8) -> Addresses {
    Addresses { v4: Some(Ipv4Addr::new(10, 0, 1, last)), v6: None }
}
