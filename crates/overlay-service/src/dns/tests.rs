use core::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use std::{io::Write, process::Command, sync::Arc};

use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use overlay_types::{NetworkId, NodeId};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{Directory, Scope, SharedDirectory, fixture::town};

/// Longer than any test takes that is going to pass.
const DEADLINE: Duration = Duration::from_secs(20);

struct Lab {
    server: Server,
    directory: SharedDirectory,
    at: SocketAddr,
}

/// UDP and TCP sockets on the same free port.
async fn sockets(host: &str) -> (UdpSocket, TcpListener, SocketAddr) {
    loop {
        let tcp = TcpListener::bind((host, 0)).await.unwrap();
        let at = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(at).await {
            return (udp, tcp, at);
        }
    }
}

async fn lab(host: &str, from: &[u128], forwarder: Option<Forwarder>) -> Lab {
    let directory = SharedDirectory::new(Directory::new(&town()));
    let scope = Scope::new(from.iter().map(|n| NetworkId::from_u128(*n)));
    let mut server = Server::new(directory.clone(), scope, forwarder);
    let (udp, tcp, at) = sockets(host).await;
    server.serve_udp(udp);
    server.serve_tcp(tcp);
    Lab { server, directory, at }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.queries = vec![Query::query(Name::from_ascii(name).unwrap(), kind)];
    message.to_vec().unwrap()
}

/// Sends bytes in a datagram of their own and returns the reply.
async fn udp(at: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind((at.ip(), 0)).await.unwrap();
    socket.connect(at).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = [0; 4096];
    let len = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

async fn tcp(stream: &mut TcpStream, bytes: &[u8]) -> Message {
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let len = timeout(DEADLINE, stream.read_u16()).await.unwrap().unwrap();
    let mut reply = vec![0; len.into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let mut list: Vec<_> = message.answers.iter().map(|r| r.data.to_string()).collect();
    list.sort();
    list
}

/// What `dig` prints for these arguments; `None` where it is not installed, except in CI.
async fn dig(at: SocketAddr, args: &str) -> Option<String> {
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let (host, port) = (format!("@{}", at.ip()), at.port().to_string());
    let run = move || {
        let mut command = Command::new("dig");
        command.args([&host, "-p", &port, "+tries=1", "+time=5"]).args(args).output()
    };
    match tokio::task::spawn_blocking(run).await.unwrap() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            let mut lines: Vec<_> =
                str::from_utf8(&output.stdout).unwrap().lines().map(str::to_owned).collect();
            if !lines.iter().any(|line| line.starts_with(';')) {
                lines.sort();
            }
            Some(lines.join("\n"))
        }
        Err(error) => {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "dig: {error}");
            let note = "skipped: `dig` is not installed (Debian: bind9-dnsutils)";
            writeln!(std::io::stderr(), "{note}").unwrap();
            None
        }
    }
}

#[rstest]
#[case("web A", "10.0.1.2")]
#[case("WEB.front. A", "10.0.1.2")]
#[case("web AAAA", "fd00:1::2")]
#[case("tasks.web A", "10.0.1.20\n10.0.1.21\n10.0.1.22")]
#[case("+tcp tasks.web A", "10.0.1.20\n10.0.1.21\n10.0.1.22")]
#[case("web.1 AAAA", "")]
#[case("-x 10.0.1.2", "web.front.")]
#[case("-x 10.0.1.22", "tasks.web.front.")]
#[case("-x fd00:1::30", "box.front.")]
#[case("_8080._tcp.web SRV", "0 0 80 web.front.")]
#[case("+tcp _53._udp.box.front SRV", "0 0 53 box.front.")]
#[tokio::test]
async fn s04_dig_reads_the_answers(#[case] args: &str, #[case] answer: &str) {
    for host in ["127.0.0.11", "::1"] {
        let lab = lab(host, &[1], None).await;
        let Some(output) = dig(lab.at, &format!("+short {args}")).await else { return };
        assert_eq!(output, answer);
        assert_eq!(lab.server.counts().answered, 1);
    }
}

#[rstest]
#[case("web AAAA", &["status: NOERROR", " aa ", "ANSWER: 1", "\t5\tIN\tAAAA\tfd00:1::2"])]
#[case("web.1 AAAA", &["status: NOERROR", "ANSWER: 0"])]
#[case("+noedns web A", &["status: NOERROR", "ADDITIONAL: 0"])]
#[case("+edns=1 +noednsneg web A", &["status: BADVERS", "EDNS: version: 0"])]
#[case("-x 10.0.1.99", &["status: NXDOMAIN"])]
#[case("example.com", &["status: REFUSED"])]
#[case("web CH TXT", &["status: REFUSED"])]
#[case("+opcode=NOTIFY web", &["status: NOTIMP"])]
#[tokio::test]
async fn s05_dig_reads_headers(#[case] args: &str, #[case] parts: &[&str]) {
    let lab = lab("127.0.0.1", &[1], None).await;
    let Some(output) = dig(lab.at, args).await else { return };
    for part in parts {
        assert!(output.contains(part), "{part:?} in {output}");
    }
}

#[tokio::test]
async fn s05_what_is_cut_over_udp_is_whole_over_tcp() {
    let lab = lab("127.0.0.1", &[1], None).await;
    let mut directory = Directory::clone(&lab.directory.current());
    let tasks: Vec<_> = (0..200_u128)
        .map(|n| {
            let at = format!("10.0.1.{n}");
            let task = crate::fixture::endpoint(1000 + n, None, 1, 1, Some(10), &[&at]);
            overlay_types::Change::Put(overlay_types::Object::Endpoint(task))
        })
        .collect();
    directory.apply(&tasks);
    lab.directory.publish(directory);
    let bytes = question("tasks.web.", RecordType::A);
    let cut = udp(lab.at, &bytes).await;
    assert!(cut.metadata.truncation && cut.answers.len() > 20);
    let mut stream = TcpStream::connect(lab.at).await.unwrap();
    for _ in 0..2 {
        let whole = tcp(&mut stream, &bytes).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 203);
    }
    // `dig` comes back over TCP by itself.
    let Some(output) = dig(lab.at, "+noedns +short tasks.web A").await else { return };
    assert_eq!(output.lines().count(), 203);
}

#[tokio::test]
async fn g04_answers_follow_liveness_and_scope_at_once() {
    let lab = lab("127.0.0.1", &[1], None).await;
    let bytes = question("tasks.web.", RecordType::A);
    assert_eq!(udp(lab.at, &bytes).await.answers.len(), 3);
    let mut directory = Directory::clone(&lab.directory.current());
    directory.set_dead([NodeId::from_u128(2)]);
    lab.directory.publish(directory);
    assert_eq!(addresses(&udp(lab.at, &bytes).await), ["10.0.1.20", "10.0.1.22"]);
    lab.server.set_scope(Scope::new([NetworkId::from_u128(2)]));
    let refused = udp(lab.at, &bytes).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn bad_input_is_counted_and_stops_nothing() {
    let lab = lab("127.0.0.1", &[1], None).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let good = question("web.", RecordType::A);
    let mut sent = 0;
    for len in 0..good.len() {
        socket.send_to(&good[..len], lab.at).await.unwrap();
        sent += 1;
    }
    let mut reply = good.clone();
    reply[2] |= 0x80;
    for bytes in [reply, vec![0xff; 4096], vec![0; 60_000], [&good[..], &[0xc0]].concat()] {
        socket.send_to(&bytes, lab.at).await.unwrap();
        sent += 1;
    }
    // Half a query, one too long, and a connection that says nothing.
    let mut half = TcpStream::connect(lab.at).await.unwrap();
    half.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
    let mut long = TcpStream::connect(lab.at).await.unwrap();
    long.write_all(&[0xff; 5000]).await.unwrap();
    let _silent = TcpStream::connect(lab.at).await.unwrap();
    assert!(matches!(timeout(DEADLINE, long.read(&mut [0; 1])).await.unwrap(), Ok(0) | Err(_)));

    assert_eq!(addresses(&udp(lab.at, &good).await), ["10.0.1.2"]);
    let mut stream = TcpStream::connect(lab.at).await.unwrap();
    assert_eq!(addresses(&tcp(&mut stream, &good).await), ["10.0.1.2"]);
    let counts = lab.server.counts();
    // Octets behind a query are no fault of it.
    assert_eq!((counts.answered, counts.malformed), (3, sent - 1));
    assert_eq!(counts.queries, sent + 2);
}

/// A name server of others: `big.` has 100 addresses, `fail.` fails, anything else has one. Sends a
/// forged reply before each true one.
fn upstream(udp: UdpSocket, tcp: TcpListener) -> JoinHandle<()> {
    fn reply(bytes: &[u8], limit: usize) -> Vec<u8> {
        let mut message = Message::from_vec(bytes).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.recursion_available = true;
        let owner = message.queries[0].name.clone();
        let count = if owner.to_ascii() == "big." { 100 } else { 1 };
        if owner.to_ascii() == "fail." {
            message.metadata.response_code = ResponseCode::ServFail;
        } else {
            let address = |n| RData::A(A(Ipv4Addr::new(192, 0, 2, n)));
            message.answers =
                (1..=count).map(|n| Record::from_rdata(owner.clone(), 300, address(n))).collect();
        }
        if message.to_vec().unwrap().len() > limit {
            message.answers.clear();
            message.metadata.truncation = true;
        }
        message.to_vec().unwrap()
    }
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                received = udp.recv_from(&mut buffer) => {
                    let (len, from) = received.unwrap();
                    let reply = reply(&buffer[..len], 512);
                    let mut forged = reply.clone();
                    forged[0] ^= 1;
                    udp.send_to(&forged, from).await.unwrap();
                    udp.send_to(&reply, from).await.unwrap();
                }
                accepted = tcp.accept() => {
                    let (mut stream, _) = accepted.unwrap();
                    let len = stream.read_u16().await.unwrap();
                    stream.read_exact(&mut buffer[..len.into()]).await.unwrap();
                    let reply = reply(&buffer[..len.into()], usize::MAX);
                    stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            }
        }
    })
}

#[tokio::test]
async fn s05_foreign_names_are_forwarded() {
    let (udp_socket, listener, at) = sockets("127.0.0.1").await;
    let _upstream = upstream(udp_socket, listener);
    // The first upstream is nobody, the second is the one above.
    let (nobody, _, gone) = sockets("127.0.0.1").await;
    drop(nobody);
    let lab = lab("127.0.0.1", &[1], Some(Forwarder::new([gone, at], LocalSockets))).await;

    let reply = udp(lab.at, &question("Example.com.", RecordType::A)).await;
    assert_eq!(addresses(&reply), ["192.0.2.1"]);
    assert_eq!(reply.answers[0].ttl, 300);
    assert_eq!(reply.queries[0].name.to_ascii(), "Example.com.");

    let big = question("big.", RecordType::A);
    let cut = udp(lab.at, &big).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let mut stream = TcpStream::connect(lab.at).await.unwrap();
    assert_eq!(tcp(&mut stream, &big).await.answers.len(), 100);

    let failed = udp(lab.at, &question("fail.", RecordType::A)).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(addresses(&udp(lab.at, &question("web.", RecordType::A)).await), ["10.0.1.2"]);
    let counts = lab.server.counts();
    assert_eq!((counts.answered, counts.forwarded, counts.failed), (1, 4, 0));
}

#[tokio::test]
async fn s05_an_upstream_that_is_gone_is_waited_for_once() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (udp_socket, listener, at) = sockets("127.0.0.1").await;
    let _upstream = upstream(udp_socket, listener);
    let forwarder = Forwarder::new([silent.local_addr().unwrap(), at], LocalSockets);
    let lab = lab("127.0.0.1", &[1], Some(forwarder)).await;
    for name in ["a.example.", "b.example.", "a.example."] {
        let reply = udp(lab.at, &question(name, RecordType::A)).await;
        assert_eq!(addresses(&reply), ["192.0.2.1"], "{name}");
    }
    let mut buffer = [0; 512];
    timeout(DEADLINE, silent.recv(&mut buffer)).await.unwrap().unwrap();
    assert!(silent.try_recv(&mut buffer).is_err());
    assert_eq!((lab.server.counts().forwarded, lab.server.counts().cached), (2, 1));
    // What others said before is no answer of theirs.
    lab.server.set_forwarder(Some(Forwarder::new([], LocalSockets)));
    let failed = udp(lab.at, &question("a.example.", RecordType::A)).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
}

/// Sockets that say when they are asked for, which they never should be.
struct Forbidden(Arc<std::sync::atomic::AtomicBool>);

impl Sockets for Forbidden {
    fn udp(&self, _: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn tcp(&self, _: SocketAddr) -> std::io::Result<tokio::net::TcpSocket> {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
}

#[tokio::test]
async fn s05_internal_networks_never_forward_even_with_a_forwarder() {
    let used = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let upstream = "192.0.2.53:53".parse().unwrap();
    let forwarder = Forwarder::new([upstream], Forbidden(Arc::clone(&used)));
    let lab = lab("127.0.0.1", &[2], Some(forwarder)).await;
    let example = question("example.com.", RecordType::A);
    let refused = udp(lab.at, &example).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    assert!(!used.load(std::sync::atomic::Ordering::SeqCst));
    // On a network with a way out the same server would have used it.
    lab.server.set_scope(Scope::new([NetworkId::from_u128(1)]));
    assert_eq!(udp(lab.at, &example).await.metadata.response_code, ResponseCode::ServFail);
    assert!(used.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!((lab.server.counts().refused, lab.server.counts().failed), (1, 1));
}

#[tokio::test]
async fn questions_that_wait_for_upstreams_are_bounded() {
    // It takes questions and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = silent.local_addr().unwrap();
    let lab = lab("127.0.0.1", &[1], Some(Forwarder::new([to], LocalSockets))).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(lab.at).await.unwrap();
    let bytes = question("example.com.", RecordType::A);
    let mut buffer = [0; 512];
    for _ in 0..300 {
        client.send(&bytes).await.unwrap();
    }
    // All get an answer: some at once, the others when the upstream's time is over.
    for _ in 0..300 {
        let len = timeout(DEADLINE, client.recv(&mut buffer)).await.unwrap().unwrap();
        let reply = Message::from_vec(&buffer[..len]).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    let counts = lab.server.counts();
    assert_eq!((counts.queries, counts.failed), (300, 300));
    assert_eq!(addresses(&udp(lab.at, &question("web.", RecordType::A)).await), ["10.0.1.2"]);
}

#[tokio::test]
async fn connections_are_bounded_and_wait_their_turn() {
    let lab = lab("127.0.0.1", &[1], None).await;
    let bytes = question("web.", RecordType::A);
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(TcpStream::connect(lab.at).await.unwrap());
    }
    let mut late = held.pop().unwrap();
    // 64 are served; the last comes in when others leave.
    assert_eq!(addresses(&tcp(&mut held[63], &bytes).await), ["10.0.1.2"]);
    late.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    late.write_all(&bytes).await.unwrap();
    assert!(late.try_read(&mut [0; 1]).is_err());
    drop(held);
    let len = timeout(DEADLINE, late.read_u16()).await.unwrap().unwrap();
    assert!(len > 0);
}

#[tokio::test]
async fn stopping_closes_the_sockets() {
    let lab = lab("127.0.0.1", &[1], None).await;
    lab.server.stop().await;
    UdpSocket::bind(lab.at).await.unwrap();
    assert!(TcpStream::connect(lab.at).await.is_err());
}
