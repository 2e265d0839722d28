//! Certificates and tokens that are not good enough.

use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::ca::{JoinSecret, JoinToken};

/// What is wrong with a server, or with a client.
#[derive(Debug, Clone, Copy)]
enum Flaw {
    OtherCa,
    Worker,
    OtherNode,
    Expired,
}

fn flawed(ca: &RootCa, node: NodeId, role: Role, flaw: Flaw) -> Arc<NodeTls> {
    let credentials = match flaw {
        // Of the same cluster id, as an impostor would make it.
        Flaw::OtherCa => credentials(&new_ca(1), node, role, now()),
        Flaw::Worker => credentials(ca, node, Role::Worker, now()),
        Flaw::OtherNode => credentials(ca, NodeId::from_u128(99), role, now()),
        Flaw::Expired => credentials(ca, node, role, past()),
    };
    Arc::new(NodeTls::new(&credentials).unwrap())
}

#[rstest]
#[case(Flaw::OtherCa, "not signed by the root of cluster 0000000000000000000000001")]
#[case(Flaw::Worker, "is a worker, and only a manager may answer")]
#[case(Flaw::OtherNode, "is of node 000000000000000000000002r, not 0000000000000000000000001")]
#[case(Flaw::Expired, "expired 86")]
#[tokio::test]
async fn c04_a_member_refuses_a_server(#[case] flaw: Flaw, #[case] reason: &str) {
    let ca = new_ca(1);
    let manager = Manager::start(flawed(&ca, MANAGER, Role::Manager, flaw)).await;
    let member = tls(&ca, WORKER, Role::Worker);
    let dialer = Dialer::member(member, CLIENT, manager.address, Some(MANAGER));
    let error = dialer.channel().await.unwrap_err();
    assert!(error.to_string().contains(reason), "{error}");
    manager.counted(HandshakeCounts { refused: 1, ..Default::default() }).await;
}

#[rstest]
#[case(Flaw::OtherCa)]
#[case(Flaw::Expired)]
#[tokio::test]
async fn c04_a_manager_refuses_a_client(#[case] flaw: Flaw) {
    let ca = new_ca(1);
    let manager = Manager::start(tls(&ca, MANAGER, Role::Manager)).await;
    let client = flawed(&ca, WORKER, Role::Worker, flaw);
    // The client trusts the server either way: it is the server's decision that is tested.
    let mut config = joiner_config(ca.certificate().digest()).unwrap();
    config.client_auth_cert_resolver =
        Arc::clone(&client.client_config().client_auth_cert_resolver);
    let stream = tokio::net::TcpStream::connect(manager.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("any.node.overlay").unwrap();
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    // In TLS 1.3 a client learns of the refusal with its first read.
    let refused = match connected {
        Ok(mut stream) => stream.read(&mut [0]).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(refused.to_string().contains("alert"), "{refused}");
    manager.counted(HandshakeCounts { refused: 1, ..Default::default() }).await;
}

/// Who answers a joiner in the manager's place.
#[derive(Debug, Clone, Copy)]
enum Answerer {
    Manager,
    OtherCluster,
    /// Presents the true root, which is no secret, over a certificate of its own.
    BorrowedRoot,
    Worker,
    Expired,
}

impl Answerer {
    fn config(self, ca: &RootCa) -> Arc<ServerConfig> {
        let config =
            |credentials: &NodeCredentials| NodeTls::new(credentials).unwrap().server_config();
        match self {
            Self::Manager => config(&credentials(ca, MANAGER, Role::Manager, now())),
            Self::OtherCluster => config(&credentials(&new_ca(1), MANAGER, Role::Manager, now())),
            Self::Worker => config(&credentials(ca, MANAGER, Role::Worker, now())),
            Self::Expired => config(&credentials(ca, MANAGER, Role::Manager, past())),
            Self::BorrowedRoot => {
                let own = credentials(&new_ca(1), MANAGER, Role::Manager, now());
                let chain = vec![own.certificate().clone(), ca.certificate().der().clone()];
                let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
                    .with_protocol_versions(&[&TLS13])
                    .unwrap()
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                        chain,
                        own.key().signing_key().unwrap(),
                    ))));
                config.alpn_protocols = vec![HTTP2.to_vec()];
                Arc::new(config)
            }
        }
    }
}

/// Records all that a client sends over TLS until it hangs up, or until the secret is there.
async fn record(listener: TcpListener, config: Arc<ServerConfig>, secret: JoinSecret) -> Vec<u8> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    if let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await {
        // An empty SETTINGS frame, so that the client goes on.
        let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        while !contains(&received, &secret) {
            match stream.read_buf(&mut received).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
    received
}

fn contains(bytes: &[u8], secret: &JoinSecret) -> bool {
    bytes.windows(JoinSecret::LEN).any(|window| window == secret.expose())
}

#[rstest]
#[case(Answerer::Manager, None)]
#[case(Answerer::OtherCluster, Some("token is of another cluster"))]
#[case(Answerer::BorrowedRoot, Some("not signed by the root"))]
#[case(Answerer::Worker, Some("only a manager may answer"))]
#[case(Answerer::Expired, Some("expired"))]
#[tokio::test]
async fn c02_who_answers_is_checked_before_the_secret_is_sent(
    #[case] answerer: Answerer,
    #[case] refused: Option<&str>,
) {
    let ca = new_ca(1);
    let token = JoinToken::new(ca.certificate().digest(), JoinSecret::generate().unwrap());
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, received) = oneshot::channel();
    let recorder = record(listener, answerer.config(&ca), token.secret().clone());
    tokio::spawn(async move { told.send(recorder.await) });

    let dialer = Dialer::joiner(token.digest(), CLIENT, address).unwrap();
    match dialer.channel().await {
        Ok(channel) => {
            // The recorder hangs up when it has the secret.
            ask(channel, token.secret().expose()).await.unwrap_err();
            assert_eq!(refused, None);
            assert!(contains(&received.await.unwrap(), token.secret()));
        }
        Err(error) => {
            assert!(error.to_string().contains(refused.expect("refused")), "{error}");
            assert_eq!(received.await.unwrap(), b"", "sent before the check");
        }
    }
}
