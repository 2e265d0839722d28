//! Nodes that are at different steps of a root rotation.

use super::*;
use crate::ca::TrustedRoots;

/// How far a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// It has heard nothing of a rotation.
    Before,
    /// It trusts both roots, and has a certificate of the old one.
    Trusting,
    /// It has a certificate of the new root.
    Renewed,
    /// It trusts the new root only.
    After,
}

impl At {
    fn tls(self, [old, new]: &[RootCa; 2], node: NodeId, role: Role) -> Arc<NodeTls> {
        let cross = old.cross_certify(new, now()).unwrap();
        let old_root = old.certificate().published(None);
        let roots = match self {
            Self::Before => vec![old_root],
            Self::Trusting | Self::Renewed => {
                vec![old_root, new.certificate().published(Some(cross))]
            }
            Self::After => vec![new.certificate().published(None)],
        };
        let signer = if matches!(self, Self::Before | Self::Trusting) { old } else { new };
        let pending = PendingJoin::new().unwrap();
        let request = SigningRequest::from_der(pending.request()).unwrap();
        let certificate = signer.sign(&request, Subject::at_first(node, role), now()).unwrap();
        let roots = TrustedRoots::from_published(&roots).unwrap();
        let credentials = pending.complete(&certificate, roots, now()).unwrap();
        Arc::new(NodeTls::new(&credentials).unwrap())
    }
}

#[tokio::test]
async fn c04_nodes_at_any_two_steps_that_meet_accept_one_another_and_no_others_do() {
    let cas = [new_ca(1), new_ca(1)];
    let steps = [At::Before, At::Trusting, At::Renewed, At::After];
    for server in steps {
        let manager = Manager::start(server.tls(&cas, MANAGER, Role::Manager)).await;
        for client in steps {
            let tls = client.tls(&cas, WORKER, Role::Worker);
            let dialer = Dialer::member(tls, CLIENT, manager.address, Some(MANAGER));
            let answer = match dialer.channel().await {
                // In TLS 1.3 a client learns of a refusal with what it reads first.
                Ok(channel) => ask(channel, b"").await.is_ok(),
                Err(error) => {
                    assert!(error.to_string().contains("not signed by the root"), "{error}");
                    false
                }
            };
            // A rotation ends when no node is at one of the first two steps any more.
            let ended = [server, client].contains(&At::After);
            let behind = |at| matches!(at, At::Before | At::Trusting);
            let expected = !(ended && (behind(server) || behind(client)));
            assert_eq!(answer, expected, "{client:?} calls {server:?}");
        }
        // Who joins by the old root is let in as long as it is trusted, and by the new one always.
        for (ca, expected) in
            [(&cas[0], server != At::After), (&cas[1], matches!(server, At::Renewed | At::After))]
        {
            let digest = ca.certificate().digest();
            let joiner = Dialer::joiner(digest, CLIENT, manager.address).unwrap();
            assert_eq!(joiner.channel().await.is_ok(), expected, "{server:?}");
        }
    }
}
