//! Real handshakes over the loopback interface.

mod bad_callers;
mod refused;
mod rotation;
mod who;

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use overlay_types::{ClusterId, NodeId, Role, UnixMillis};
use rstest::rstest;
use tokio::{net::TcpListener, task::AbortHandle, time::Instant};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Server};

use self::who::{Who, ask};
use super::*;
use crate::ca::{PendingJoin, RootCa, Subject, join::SigningRequest, root::NODE_VALIDITY};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const MANAGER: NodeId = NodeId::from_u128(1);
const WORKER: NodeId = NodeId::from_u128(2);
/// Longer than anything here takes; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "rustls judges certificates by the system's clock")]
fn now() -> UnixMillis {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(now.as_millis() as u64)
}

/// Long enough ago that a node certificate from then is over.
fn past() -> UnixMillis {
    let days = NODE_VALIDITY + Duration::from_hours(24);
    UnixMillis(now().0 - days.as_millis() as u64)
}

fn new_ca(cluster: u128) -> RootCa {
    RootCa::generate(ClusterId::from_u128(cluster), past()).unwrap()
}

fn credentials(ca: &RootCa, node: NodeId, role: Role, now: UnixMillis) -> NodeCredentials {
    let pending = PendingJoin::new().unwrap();
    let request = SigningRequest::from_der(pending.request()).unwrap();
    let certificate = ca.sign(&request, Subject::at_first(node, role), now).unwrap();
    pending.complete(&certificate, ca.certificate().clone().into(), now).unwrap()
}

fn tls(ca: &RootCa, node: NodeId, role: Role) -> Arc<NodeTls> {
    Arc::new(NodeTls::new(&credentials(ca, node, role, now())).unwrap())
}

/// A manager that answers on a port of its own until it is dropped.
struct Manager {
    address: SocketAddr,
    counters: Arc<HandshakeCounters>,
    task: AbortHandle,
}

impl Manager {
    async fn start(tls: Arc<NodeTls>) -> Self {
        Self::start_at(LOCALHOST, tls).await
    }

    async fn start_at(address: IpAddr, tls: Arc<NodeTls>) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TlsIncoming::new(listener, tls);
        let counters = incoming.counters();
        let server = Server::builder().serve_with_incoming(Who, incoming);
        Self { address, counters, task: tokio::spawn(server).abort_handle() }
    }

    /// Waits until the counts are these.
    async fn counted(&self, expected: HandshakeCounts) {
        let reached = async {
            while self.counters.read() != expected {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(DEADLINE, reached).await.is_err() {
            assert_eq!(self.counters.read(), expected);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[rstest]
#[case::v4(LOCALHOST, CLIENT)]
#[case::v6(IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST))]
#[tokio::test]
async fn c04_a_handler_knows_who_called(#[case] server: IpAddr, #[case] client: IpAddr) {
    let ca = new_ca(1);
    let manager = Manager::start_at(server, tls(&ca, MANAGER, Role::Manager)).await;
    let dial = |node, role, expected| {
        Dialer::member(tls(&ca, node, role), client, manager.address, expected)
    };

    let worker = dial(WORKER, Role::Worker, Some(MANAGER)).channel().await.unwrap();
    let identity = format!("worker {WORKER} of cluster {}", ClusterId::from_u128(1));
    assert_eq!(ask(worker, b"").await.unwrap(), format!("{identity} at {client}"));

    let other_manager = dial(NodeId::from_u128(3), Role::Manager, None).lazy_channel();
    assert!(ask(other_manager, b"").await.unwrap().starts_with("manager "));

    let digest = ca.certificate().digest();
    let joiner = Dialer::joiner(digest, client, manager.address).unwrap();
    let answer = ask(joiner.channel().await.unwrap(), b"").await.unwrap();
    assert_eq!(answer, format!("nobody at {client}"));
    manager.counted(HandshakeCounts { completed: 3, ..Default::default() }).await;
}

#[tokio::test]
async fn c04_new_credentials_leave_connections_in_use_alone() {
    let ca = new_ca(1);
    let server = tls(&ca, MANAGER, Role::Manager);
    let client = tls(&ca, WORKER, Role::Worker);
    let manager = Manager::start(Arc::clone(&server)).await;
    let dialer = Dialer::member(Arc::clone(&client), CLIENT, manager.address, Some(MANAGER));
    let before = dialer.channel().await.unwrap();
    assert!(ask(before.clone(), b"").await.unwrap().starts_with("worker"));

    let renewed = credentials(&ca, MANAGER, Role::Manager, now());
    server.replace(&renewed).unwrap();
    client.replace(&credentials(&ca, WORKER, Role::Manager, now())).unwrap();
    assert_eq!(client.identity().role, Role::Manager);

    let after = dialer.channel().await.unwrap();
    assert!(ask(after, b"").await.unwrap().starts_with("manager"));
    assert!(ask(before, b"").await.unwrap().starts_with("worker"));
    manager.counted(HandshakeCounts { completed: 2, ..Default::default() }).await;
    let stream = dialer.dial().await.unwrap();
    let presented = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(presented, [renewed.certificate().clone(), ca.certificate().der().clone()]);
}

#[test]
fn c04_credentials_of_another_node_do_not_replace() {
    let ca = new_ca(1);
    let node = tls(&ca, MANAGER, Role::Manager);
    assert_eq!(
        node.replace(&credentials(&ca, WORKER, Role::Manager, now())),
        Err(CaError::OtherNode { expected: MANAGER, found: WORKER })
    );
    let other = new_ca(2);
    assert_eq!(
        node.replace(&credentials(&other, MANAGER, Role::Manager, now())),
        Err(CaError::OtherCluster {
            expected: ClusterId::from_u128(1),
            found: ClusterId::from_u128(2)
        })
    );
}

#[tokio::test]
async fn c04_sessions_are_not_resumed() {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let dialer = Dialer::member(tls(&ca, WORKER, Role::Worker), CLIENT, manager.address, None);
    for _ in 0..2 {
        let channel = dialer.channel().await.unwrap();
        ask(channel, b"").await.unwrap();
        let stream = dialer.dial().await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
        assert_eq!(session.alpn_protocol(), Some(HTTP2));
    }
}

#[rstest]
#[case::other_version(IpAddr::V6(Ipv6Addr::LOCALHOST), "other IP version")]
#[case::not_of_this_host(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), "cannot send from 203.0.113.9")]
#[case::nobody_listens(LOCALHOST, "refused")]
#[tokio::test]
async fn c03_a_dial_that_fails_says_why(#[case] from: IpAddr, #[case] reason: &str) {
    let unused = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let to = unused.local_addr().unwrap();
    drop(unused);
    let dialer = Dialer::member(tls(&new_ca(1), WORKER, Role::Worker), from, to, None);
    for error in [dialer.dial().await.unwrap_err(), dialer.channel().await.unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains(&to.to_string()), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_does_not_answer_is_given_up() {
    let silent = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let to = silent.local_addr().unwrap();
    let dialer = Dialer::member(tls(&new_ca(1), WORKER, Role::Worker), CLIENT, to, None);
    let text = dialer.channel().await.unwrap_err().to_string();
    assert!(text.contains("no answer within 5s"), "{text}");
}

#[tokio::test]
async fn c10_calls_to_a_manager_that_fell_silent_end_in_time() {
    let ca = new_ca(1);
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let mut incoming = TlsIncoming::new(listener, tls(&ca, MANAGER, Role::Manager));
    let silence = Duration::from_millis(1400);
    let dialer = Dialer::member(tls(&ca, WORKER, Role::Worker), CLIENT, to, Some(MANAGER));
    let dialer = dialer.leaving_after(silence);
    let (channel, held) = tokio::join!(dialer.channel(), incoming.next());
    // Nothing more comes from the network, so time may run.
    tokio::time::pause();
    let begun = Instant::now();
    let status = ask(channel.unwrap(), b"").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let waited = begun.elapsed().as_millis();
    assert!((1300..1450).contains(&waited), "{waited} ms");
    drop(held);
}
