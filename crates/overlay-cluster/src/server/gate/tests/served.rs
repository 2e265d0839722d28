//! A manager on the loopback interface, and callers of every kind.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{collections::BTreeSet, sync::Arc};

use overlay_api::{
    codec::MessageCodec,
    internal::v1::{AppendRequest, raft_client::RaftClient},
    status::{Reason, reason},
    v1::{self, watcher_client::WatcherClient},
};
use overlay_crypto::at_rest::DataKey;
use overlay_testkit::objects;
use overlay_types::{Cluster, Node, NodeId, RequestId, Role, UnixMillis};
use prost::Message;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tonic_prost::ProstCodec;

use super::{LOCAL, calls};
use crate::{
    ca::{
        Authority, Dialer, NodeCredentials, NodeTls, PendingJoin, Subject, TlsIncoming,
        TrustedRoots,
        join::{SigningRequest, limit::JoinLimits},
        root::NODE_VALIDITY,
    },
    control::{Control, ControlConfig, now},
    raft::types::Member,
    server::Api,
    state::{Action, InitCluster, RotationPolicy, State, tests as made},
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything here takes; a test that waits this long has failed.
const DEADLINE: core::time::Duration = core::time::Duration::from_secs(30);

/// Calls that are not for all members. The rest of the protocol is.
const ANYONE: &str = "/overlay.v1.Membership/Join";
const MANAGERS: &str = "/overlay.internal.v1.Raft/";

const FIRST: NodeId = NodeId::from_u128(1);
const WORKER: NodeId = NodeId::from_u128(2);
const MANAGER: NodeId = NodeId::from_u128(3);
const STRANGER: NodeId = NodeId::from_u128(9);

/// The only manager of a cluster, with a worker and another manager that is not running.
struct Served {
    authority: Authority,
    control: Control,
    api: Api,
    address: SocketAddr,
    task: AbortHandle,
    _folder: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn signed(authority: &Authority, subject: Subject, at: UnixMillis) -> NodeCredentials {
    let pending = PendingJoin::new().unwrap();
    let request = SigningRequest::from_der(pending.request()).unwrap();
    let certificate = authority.sign(&request, subject, at).unwrap();
    pending.complete(&certificate, authority.signing_root().clone().into(), at).unwrap()
}

fn tls(authority: &Authority, node: NodeId, role: Role, at: UnixMillis) -> Arc<NodeTls> {
    let credentials = signed(authority, Subject::at_first(node, role), at);
    Arc::new(NodeTls::new(&credentials).unwrap())
}

fn init(authority: &Authority, node: Node) -> InitCluster {
    let root = authority.root();
    let roots = vec![root.published(None)];
    let cluster = Cluster { id: root.cluster(), roots, ..objects::cluster() };
    let node = Node { root: root.id(), ..node };
    InitCluster { trust: authority.to_trust(), node, ..made::init(cluster) }
}

impl Served {
    async fn start() -> Self {
        let authority = Authority::generate(objects::cluster().id, UnixMillis(0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(&authority, FIRST, Role::Manager, now());
        let control = Control::start(ControlConfig {
            node: FIRST,
            tls: Arc::clone(&tls),
            store: folder.path().join("state"),
            key: DataKey::from_bytes([5; 32]),
            create: true,
            advertise: LOCALHOST,
            rotation: RotationPolicy::default(),
            snapshot_after: 10_000,
        });
        let control = control.await.unwrap();
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Node { control: address, ..objects::node(1) };
        let member = Member { name: Some(node.name.clone()), control: Some(address) };
        control.form(member).await.unwrap();
        let api = Api::new(control.clone(), watch::Sender::default().subscribe());
        let incoming = TlsIncoming::new(listener, tls);
        let serving = api.clone();
        let task =
            tokio::spawn(async move { serving.serve(incoming, core::future::pending()).await });
        let served =
            Self { authority, control, api, address, task: task.abort_handle(), _folder: folder };
        served.write(Action::InitCluster(Box::new(init(&served.authority, node)))).await;
        let root = served.authority.root().id();
        let node = |number| Node { root, ..objects::node(number) };
        served.write(Action::JoinNode(Node { role: Role::Worker, ..node(2) })).await;
        served.write(Action::JoinNode(node(3))).await;
        served
    }

    async fn write(&self, action: Action) {
        let request = RequestId::from_u128(rand::random());
        self.control.write(request, action).await.unwrap();
    }

    /// A connection of a node whose certificate was signed at `at`.
    async fn dial(&self, node: NodeId, role: Role, at: UnixMillis) -> Channel {
        self.dial_as(Subject::at_first(node, role), at).await
    }

    /// A connection of this one, whose certificate was signed at `at`.
    async fn dial_as(&self, subject: Subject, at: UnixMillis) -> Channel {
        let credentials = signed(&self.authority, subject, at);
        let tls = Arc::new(NodeTls::new(&credentials).unwrap());
        Dialer::member(tls, LOCALHOST, self.address, None).channel().await.unwrap()
    }

    /// A connection of the worker, whose certificate ends in about two seconds.
    async fn dial_before_the_end(&self) -> Channel {
        let signed = now().0 + 2_000 - NODE_VALIDITY.as_millis() as u64;
        self.dial(WORKER, Role::Worker, UnixMillis(signed)).await
    }

    async fn dial_without_certificate(&self) -> Channel {
        let digest = self.authority.root().digest();
        Dialer::joiner(digest, LOCALHOST, self.address).unwrap().channel().await.unwrap()
    }
}

/// The reason that a status carries, as text.
fn code(status: &Status) -> &'static str {
    reason(status).map_or("", Reason::text)
}

/// Makes a call with an empty request. The reason code of what came back; empty if there is none.
async fn call(channel: &Channel, path: &str) -> String {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let request = tonic::Request::new(());
    let answer = client.server_streaming(request, path.parse().unwrap(), codec).await;
    answer.map_or_else(|status| code(&status).to_owned(), |_| String::new())
}

/// Reason codes of the gate.
const GATE: [&str; 7] = [
    "NO_SUCH_CALL",
    "NO_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "FORMER_ROOT",
    "NODE_REMOVED",
    "NOT_MANAGER",
    "NODE_UNKNOWN",
];

/// Calls everything, and tells where the answer of the gate is not `expected(call)`.
async fn check_all(channel: &Channel, expected: impl Fn(&str) -> &'static str) {
    let mut wrong = Vec::new();
    for path in calls() {
        let found = call(channel, &path).await;
        let found = if GATE.contains(&found.as_str()) { found.as_str() } else { "" };
        let expected = if path.starts_with(LOCAL) { "NO_SUCH_CALL" } else { expected(&path) };
        if found != expected {
            wrong.push(format!("{path}: {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Why a watch ends.
async fn end(watch: &mut Streaming<v1::WatchResponse>) -> Status {
    loop {
        if let Err(status) = watch.message().await.map(|message| message.expect("a status")) {
            return status;
        }
    }
}

/// What a caller gets who may make no call of members.
fn refused(path: &str, reason: &'static str) -> &'static str {
    if path == ANYONE { "" } else { reason }
}

#[tokio::test]
async fn c04_every_call_without_a_certificate_is_refused_but_for_joins() {
    let served = Served::start().await;
    let channel = served.dial_without_certificate().await;
    check_all(&channel, |path| refused(path, "NO_CERTIFICATE")).await;
    assert_eq!(call(&channel, "/overlay.v1.Nodes/NoSuchCall").await, "NO_SUCH_CALL");
}

#[tokio::test]
async fn c02_joins_of_one_host_are_limited() {
    let served = Served::start().await;
    let channel = served.dial_without_certificate().await;
    let limit = JoinLimits::default().per_source.burst;
    let begun = tokio::time::Instant::now();
    let mut looked_at = 0;
    // Some come in again meanwhile, but not as fast as they are asked for.
    let tried = timeout(DEADLINE, async {
        while call(&channel, ANYONE).await != "JOIN_RATE" {
            looked_at += 1;
        }
    });
    tried.await.unwrap();
    let refilled =
        begun.elapsed().as_secs_f64() / JoinLimits::default().per_source.interval.as_secs_f64();
    assert!(looked_at >= limit && f64::from(looked_at - limit) <= refilled + 1.0, "{looked_at}");
    let counts = served.api.join_counts();
    assert_eq!((counts.passed, counts.limited_source), (u64::from(looked_at), 1));
}

#[tokio::test]
async fn c04_every_call_of_a_worker_is_let_in_but_for_those_of_managers() {
    let served = Served::start().await;
    let channel = served.dial(WORKER, Role::Worker, now()).await;
    let of_managers = |path: &str| {
        path.starts_with(MANAGERS) || path.ends_with("/UpdateNode") || path.ends_with("/RotateCa")
    };
    check_all(&channel, |path| if of_managers(path) { "NOT_MANAGER" } else { "" }).await;
    // By its certificate it is a manager; by the state it is not.
    let demoted = served.dial(WORKER, Role::Manager, now()).await;
    for method in ["Propose", "ReadIndex"] {
        assert_eq!(call(&demoted, &format!("{MANAGERS}{method}")).await, "NOT_MANAGER");
    }
}

/// The calls of raft.
const RAFT: [&str; 4] = ["Append", "Appends", "RequestVote", "InstallSnapshot"];

#[tokio::test]
async fn c04_raft_refuses_a_former_manager_that_keeps_its_certificate() {
    let served = Served::start().await;
    let check = async |channel: &Channel, expected: &str| {
        for method in RAFT {
            let found = call(channel, &format!("{MANAGERS}{method}")).await;
            assert_eq!(found == "NOT_MANAGER", expected == "NOT_MANAGER", "{method}: {found:?}");
        }
    };
    let known = |state: &State| state.view().nodes()[&MANAGER].clone();
    let kept = served.dial(MANAGER, Role::Manager, now()).await;
    check(&kept, "").await;
    let (append, appends) = mpsc::channel(1);
    let line = RaftClient::new(kept.clone()).appends(ReceiverStream::new(appends)).await;
    let node = served.control.replica().read(known);
    let based_on = node.meta.changed_at;
    served.write(Action::UpdateNode { node: Node { role: Role::Worker, ..node }, based_on }).await;
    check(&kept, "NOT_MANAGER").await;
    // A call that goes on is looked at with each message.
    append.send(AppendRequest::default()).await.unwrap();
    let status = line.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(reason(&status), Some(Reason::NotManager), "{status}");

    // This manager may be behind one that promoted the node and signed its certificate.
    let later = |state: &State| {
        let subject = Subject { node: MANAGER, role: Role::Manager, as_of: state.revision() };
        Subject { as_of: subject.as_of.next(), ..subject }
    };
    let later = served.control.replica().read(later);
    let promoted = served.dial_as(later, now()).await;
    check(&promoted, "").await;
    // Once it is not, the role is what it says.
    served.write(Action::RemoveNode(WORKER)).await;
    check(&promoted, "NOT_MANAGER").await;
    let node = served.control.replica().read(known);
    let based_on = node.meta.changed_at;
    served.write(Action::UpdateNode { node: Node { role: Role::Manager, ..node }, based_on }).await;
    for channel in [&kept, &promoted] {
        check(channel, "").await;
    }
}

#[tokio::test]
async fn c04_every_call_of_a_manager_is_let_in() {
    let served = Served::start().await;
    let channel = served.dial(MANAGER, Role::Manager, now()).await;
    check_all(&channel, |_| "").await;
}

#[tokio::test]
async fn o03_a_manager_lists_what_it_serves_to_nodes_and_describes_it() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let served = Served::start().await;
    let channel = served.dial(WORKER, Role::Worker, now()).await;
    let mut client = ServerReflectionClient::new(channel);
    let ask = async |client: &mut ServerReflectionClient<Channel>, wanted| {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
        let request = futures::stream::iter([request]);
        let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let list = ask(&mut client, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
    let listed: BTreeSet<String> = list.service.into_iter().map(|s| s.name).collect();
    // What managers say to one another is no part of the public protocol.
    let public = calls().into_iter().filter(|c| !c.starts_with(LOCAL) && !c.starts_with(MANAGERS));
    let public: BTreeSet<String> =
        public.map(|call| call.split('/').nth(1).unwrap().to_owned()).collect();
    assert_eq!(listed, public);
    for service in listed {
        let wanted = MessageRequest::FileContainingSymbol(service.clone());
        let file = ask(&mut client, wanted).await;
        let MessageResponse::FileDescriptorResponse(file) = file else { panic!("{file:?}") };
        assert!(!file.file_descriptor_proto[0].is_empty(), "{service}");
    }
}

#[tokio::test]
async fn o03_health_is_told_as_the_standard_has_it() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };

    let served = Served::start().await;
    let channel = served.dial(WORKER, Role::Worker, now()).await;
    let mut client = HealthClient::new(channel);
    let request = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "overlay.v1.Networks"] {
        let health = client.check(request(service)).await.unwrap().into_inner();
        assert_eq!(health.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(request("nothing")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown}");
    assert!(unknown.message().contains("\"nothing\""), "{unknown}");
    for (service, expected) in
        [("", ServingStatus::Serving), ("nothing", ServingStatus::ServiceUnknown)]
    {
        let mut watch = client.watch(request(service)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), expected, "{service}");
    }
}

#[tokio::test]
async fn c04_every_call_with_an_expired_certificate_is_refused_and_watches_end() {
    let served = Served::start().await;
    let channel = served.dial_before_the_end().await;
    let request = v1::WatchRequest::default();
    let mut watch = WatcherClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    let status = timeout(DEADLINE, end(&mut watch)).await.unwrap();
    assert_eq!(code(&status), "CERTIFICATE_EXPIRED", "{status}");
    check_all(&channel, |path| refused(path, "CERTIFICATE_EXPIRED")).await;
}

#[tokio::test]
async fn c04_every_call_of_a_removed_node_is_refused_and_its_watch_ends_at_once() {
    let served = Served::start().await;
    let worker = served.dial(WORKER, Role::Worker, now()).await;
    let manager = served.dial(MANAGER, Role::Manager, now()).await;
    let request = v1::WatchRequest { node: WORKER.to_string(), ..Default::default() };
    let mut watches = Vec::new();
    for channel in [&worker, &manager] {
        let watch = WatcherClient::new(channel.clone()).watch(request.clone()).await;
        watches.push(watch.unwrap().into_inner());
    }
    let read = |state: &State| state.view().nodes()[&MANAGER].clone();
    let node = served.control.replica().read(read);
    let based_on = node.meta.changed_at;
    let demoted = Node { role: Role::Worker, ..node };
    served.write(Action::UpdateNode { node: demoted, based_on }).await;
    served.write(Action::RemoveNode(WORKER)).await;
    served.write(Action::RemoveNode(MANAGER)).await;
    for watch in &mut watches {
        let status = timeout(DEADLINE, end(watch)).await.unwrap();
        assert_eq!(code(&status), "NODE_REMOVED", "{status}");
    }
    // Raft included, whatever the certificates say.
    for channel in [&worker, &manager] {
        check_all(channel, |path| refused(path, "NODE_REMOVED")).await;
    }
}

/// Credentials as the state signs them now, with the roots that it publishes.
fn signed_by(state: &State, node: NodeId, role: Role) -> NodeCredentials {
    let authority = Authority::from_trust(state.trust().unwrap()).unwrap();
    let pending = PendingJoin::new().unwrap();
    let request = SigningRequest::from_der(pending.request()).unwrap();
    let subject = Subject { node, role, as_of: state.revision() };
    let certificate = authority.sign(&request, subject, now()).unwrap();
    let roots = TrustedRoots::from_published(state.roots()).unwrap();
    pending.complete(&certificate, roots, now()).unwrap()
}

#[tokio::test]
async fn c04_every_call_under_a_replaced_root_is_refused_and_its_watch_ends_at_once() {
    let served = Served::start().await;
    let worker = served.dial(WORKER, Role::Worker, now()).await;
    let manager = served.dial(MANAGER, Role::Manager, now()).await;
    let request = v1::WatchRequest { node: WORKER.to_string(), ..Default::default() };
    let mut watches = Vec::new();
    for channel in [&worker, &manager] {
        let watch = WatcherClient::new(channel.clone()).watch(request.clone()).await;
        watches.push(watch.unwrap().into_inner());
    }
    served.write(served.authority.rotate(now()).unwrap()).await;
    let read = |state: &State| state.root_rotation().unwrap().signing.id;
    let root = served.control.replica().read(read);
    let sign = |state: &State| signed_by(state, WORKER, Role::Worker);
    let tls = Arc::new(NodeTls::new(&served.control.replica().read(sign)).unwrap());
    // This manager knows the old root only; the new certificate comes with what leads there.
    let renewed = Dialer::member(tls, LOCALHOST, served.address, Some(FIRST)).channel().await;
    let renewed = renewed.unwrap();
    assert_eq!(call(&renewed, "/overlay.v1.Membership/ReportCertificate").await, "");
    let waiting = |state: &State| {
        let waiting = state.root_rotation().unwrap().waiting;
        waiting.iter().map(|node| node.id).collect::<Vec<_>>()
    };
    assert_eq!(served.control.replica().read(waiting), [FIRST, MANAGER]);
    // As long as it runs, both are good.
    for channel in [&worker, &renewed] {
        assert_eq!(call(channel, "/overlay.v1.Nodes/ListNodes").await, "");
    }

    for node in [FIRST, MANAGER] {
        served.write(Action::NoteCertificate { node, root }).await;
    }
    served.write(Action::FinishRootRotation(root)).await;
    for watch in &mut watches {
        let status = timeout(DEADLINE, end(watch)).await.unwrap();
        assert_eq!(reason(&status), Some(Reason::FormerRoot), "{status}");
    }
    // Raft included.
    for channel in [&worker, &manager] {
        check_all(channel, |path| refused(path, "FORMER_ROOT")).await;
    }
    // So is a manager that lives by the old root, whose key somebody may have.
    let again = served.dial(MANAGER, Role::Manager, now()).await;
    assert_eq!(call(&again, "/overlay.internal.v1.Raft/Append").await, "FORMER_ROOT");
    let of_managers = |path: &str| {
        path.starts_with(MANAGERS) || path.ends_with("/UpdateNode") || path.ends_with("/RotateCa")
    };
    check_all(&renewed, |path| if of_managers(path) { "NOT_MANAGER" } else { "" }).await;

    // This manager could still prove itself by the old root. Nobody joins by it.
    let joiner = served.dial_without_certificate().await;
    let request = v1::JoinRequest {
        secret: served.authority.token(Role::Worker).secret().expose().to_vec(),
        root_digest: served.authority.root().digest().to_bytes().to_vec(),
        ..Default::default()
    };
    let mut client = v1::membership_client::MembershipClient::new(joiner);
    assert_eq!(reason(&client.join(request).await.unwrap_err()), Some(Reason::FormerRoot));
}

#[tokio::test]
async fn c04_a_manager_that_may_be_behind_says_ask_again() {
    let served = Served::start().await;
    let channel = served.dial(STRANGER, Role::Worker, now()).await;
    // It is not behind: the node is in no state.
    assert_eq!(call(&channel, "/overlay.v1.Nodes/ListNodes").await, "NODE_REMOVED");
    served.control.stop().await;
    let mut client = v1::nodes_client::NodesClient::new(channel);
    let consistency = Some(v1::Consistency { stale: true });
    let asked = client.list_nodes(v1::ListNodesRequest { consistency, ..Default::default() }).await;
    assert_eq!(asked.unwrap_err().code(), tonic::Code::Unavailable);
    // Who is known is answered.
    let channel = served.dial(WORKER, Role::Worker, now()).await;
    let mut client = v1::nodes_client::NodesClient::new(channel);
    client.list_nodes(v1::ListNodesRequest { consistency, ..Default::default() }).await.unwrap();
}

/// The first batch of a watch: whether it is a snapshot, its revision and its changes.
async fn first_batch(channel: &Channel, from_revision: u64) -> (bool, u64, Vec<v1::Change>) {
    let request = v1::WatchRequest { node: String::new(), from_revision };
    let mut watch = WatcherClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    let (mut snapshot, mut changes) = (false, Vec::new());
    loop {
        let message = timeout(DEADLINE, watch.message()).await.unwrap().unwrap().unwrap();
        snapshot |= message.snapshot;
        changes.extend(message.changes);
        if !message.more {
            return (snapshot, message.revision, changes);
        }
    }
}

#[tokio::test]
async fn o03_a_watch_that_fell_behind_the_window_begins_with_a_snapshot() {
    let served = Served::start().await;
    let channel = served.dial(WORKER, Role::Worker, now()).await;
    let (snapshot, seen, _) = first_batch(&channel, 0).await;
    assert!(snapshot);
    let root = served.authority.root().id();
    served.write(Action::JoinNode(Node { role: Role::Worker, root, ..objects::node(4) })).await;
    let (snapshot, revision, changes) = first_batch(&channel, seen).await;
    assert_eq!((snapshot, revision, changes.len()), (false, seen + 1, 1));

    served.control.replica().forget_changes();
    let behind = first_batch(&channel, seen).await;
    assert!(behind.0);
    assert_eq!(behind, first_batch(&channel, 0).await);
    // Who was up to date still is.
    assert_eq!(first_batch(&channel, revision).await, (false, revision, Vec::new()));
}

/// A write as the wire has it, whatever is in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct AnyWrite {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "vec", tag = "2")]
    create_network: Vec<u8>,
}

#[tokio::test]
async fn o03_writes_before_one_that_is_no_message_are_answered() {
    let served = Served::start().await;
    let mut client = tonic::client::Grpc::new(served.dial(WORKER, Role::Worker, now()).await);
    client.ready().await.unwrap();
    let write = |number: u64| {
        let spec = v1::NetworkSpec { name: format!("web-{number}"), ..Default::default() };
        let request_id = RequestId::from_u128(number.into()).to_string();
        let create =
            v1::CreateNetworkRequest { spec: Some(spec), request_id, ..Default::default() };
        AnyWrite { number, create_network: create.encode_to_vec() }
    };
    let broken = AnyWrite { number: 9, create_network: vec![0xff] };
    let writes = (1..=3).map(write).chain([broken, write(10)]);
    let path = "/overlay.v1.Writes/Write".parse().unwrap();
    let codec = MessageCodec::<AnyWrite, v1::WriteResponse>::default();
    let answers =
        client.streaming(tonic::Request::new(futures::stream::iter(writes)), path, codec).await;
    let mut answers = answers.unwrap().into_inner();
    let mut answered = BTreeSet::new();
    let error = loop {
        match answers.message().await {
            Ok(answer) => answered.insert(answer.expect("an error at the end").number),
            Err(status) => break status,
        };
    };
    assert_eq!(answered, BTreeSet::from([1, 2, 3]));
    assert!(error.message().contains("decode"), "{error}");
}
