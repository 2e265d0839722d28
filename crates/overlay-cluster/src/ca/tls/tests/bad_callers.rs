//! Callers of the listener that do not speak TLS 1.3, or nothing at all.

use std::process::Command;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::*;

/// ClientHello of openssl 3.0 that offers TLS 1.2 only, with a cipher that rustls has.
const TLS12_HELLO: &str = "160301005e0100005a0303a9a6b50e428a0c431ea5eabc01f9ee02895f9d6e9174b77c52\
    03a88bef5a799b000004c02c00ff0100002d000b000403000102000a00040002001d0023000000100005000302683200\
    16000000170000000d000400020403";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Sends `bytes` and returns what came back until the listener hung up.
async fn send(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The listener may hang up while we still send.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

async fn works(ca: &RootCa, manager: &Manager) -> bool {
    let client = tls(ca, WORKER, Role::Worker);
    let dialer = Dialer::member(client, CLIENT, manager.address, Some(MANAGER));
    ask(dialer.channel().await.unwrap(), b"").await.is_ok()
}

#[rstest]
#[case::nothing(vec![])]
#[case::one_byte(vec![0x16])]
#[case::http(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())]
#[case::http2_in_clear(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec())]
#[case::zeros(vec![0; 100_000])]
#[case::ones(vec![0xff; 100_000])]
#[case::long_record([vec![0x16, 3, 1, 0xff, 0xff], vec![1; 70_000]].concat())]
#[case::long_hello([vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], vec![0; 70_000]].concat())]
#[case::cut_hello(hex(TLS12_HELLO)[..60].to_vec())]
#[case::hello_twice([hex(TLS12_HELLO), hex(TLS12_HELLO)].concat())]
#[case::ssl2(vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10])]
#[tokio::test]
async fn garbage_is_dropped_and_counted(#[case] bytes: Vec<u8>) {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let answer = send(manager.address, &bytes).await;
    assert!(answer.len() <= 7, "at most an alert: {answer:x?}");
    manager.counted(HandshakeCounts { refused: 1, ..Default::default() }).await;
    assert!(works(&ca, &manager).await);
}

#[tokio::test]
async fn c04_tls_1_2_is_refused() {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let answer = send(manager.address, &hex(TLS12_HELLO)).await;
    // Record of an alert: fatal, protocol_version (RFC 8446 section 6).
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70]);
    manager.counted(HandshakeCounts { refused: 1, ..Default::default() }).await;
}

#[rstest]
#[case("-tls1_3", true)]
#[case("-tls1_2", false)]
#[tokio::test]
async fn c04_openssl_connects_with_tls_1_3_only(#[case] version: &'static str, #[case] good: bool) {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root.pem");
    std::fs::write(&root, ca.certificate().to_pem()).unwrap();
    let address = manager.address.to_string();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("openssl")
            .args(["s_client", "-connect", &address, version, "-alpn", "h2"])
            .args(["-verify_return_error", "-verify_hostname"])
            .arg(format!("{MANAGER}.node.overlay"))
            .arg("-CAfile")
            .arg(&root)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("Debian's openssl is installed")
    })
    .await
    .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.success(), good, "{text}");
    assert_eq!(
        text.contains("Verify return code: 0 (ok)") && text.contains("ALPN protocol: h2"),
        good
    );
    let counts = if good {
        HandshakeCounts { completed: 1, ..Default::default() }
    } else {
        HandshakeCounts { refused: 1, ..Default::default() }
    };
    manager.counted(counts).await;
}

async fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from(from), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn one_host_cannot_keep_the_others_out() {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_HANDSHAKES_PER_SOURCE {
        silent.push(connect_from([127, 0, 0, 9], manager.address).await);
    }
    for _ in 0..3 {
        let mut one_more = connect_from([127, 0, 0, 9], manager.address).await;
        assert_eq!(one_more.read(&mut [0]).await.unwrap_or(0), 0, "hung up");
    }
    assert!(works(&ca, &manager).await, "from another address");
    let completed = 1;
    manager.counted(HandshakeCounts { completed, crowded_out: 3, ..Default::default() }).await;

    // Whoever leaves makes room.
    let left = silent.len() as u64;
    drop(silent);
    let refused = left;
    manager
        .counted(HandshakeCounts { completed, crowded_out: 3, refused, ..Default::default() })
        .await;
    let stream = connect_from([127, 0, 0, 9], manager.address).await;
    drop(stream);
    let refused = left + 1;
    manager
        .counted(HandshakeCounts { completed, crowded_out: 3, refused, ..Default::default() })
        .await;
}

#[rstest]
#[case::silent(0)]
#[case::in_the_middle_of_a_hello(50)]
#[tokio::test(start_paused = true)]
async fn half_open_connections_end(#[case] sent: usize) {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let mut stream = TcpStream::connect(manager.address).await.unwrap();
    stream.write_all(&hex(TLS12_HELLO)[..sent]).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "hung up");
    manager.counted(HandshakeCounts { timed_out: 1, ..Default::default() }).await;
}

#[tokio::test]
async fn callers_without_certificate_are_few() {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let digest = ca.certificate().digest();
    let dialer = Dialer::joiner(digest, CLIENT, manager.address).unwrap();
    let mut idle = Vec::new();
    for _ in 0..MAX_ANONYMOUS {
        idle.push(dialer.dial().await.unwrap());
    }
    let mut one_more = dialer.dial().await.unwrap();
    assert_eq!(one_more.read(&mut [0]).await.unwrap_or(0), 0, "hung up");
    assert!(works(&ca, &manager).await, "members are not concerned");
    let completed = MAX_ANONYMOUS as u64 + 1;
    manager.counted(HandshakeCounts { completed, crowded_out: 1, ..Default::default() }).await;
}

#[tokio::test]
async fn callers_without_certificate_do_not_stay() {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let digest = ca.certificate().digest();
    let dialer = Dialer::joiner(digest, CLIENT, manager.address).unwrap();
    let mut stream = dialer.dial().await.unwrap();
    let counts = HandshakeCounts { completed: 1, ..Default::default() };
    manager.counted(counts).await;
    // From here on nothing but the lifetime can end the connection.
    tokio::time::pause();
    let mut received = Vec::new();
    // The server's SETTINGS, and then the end.
    let ended = tokio::time::timeout(2 * ANONYMOUS_LIFETIME, stream.read_to_end(&mut received));
    let _ = ended.await.expect("the manager hangs up");
    assert_eq!(manager.counters.read(), counts);
}
