//! Who may talk to whom: the cluster's CA, join tokens, and TLS 1.3 on tcp 2377.
//!
//! Owns certificates, keys, tokens and the two ends of every control connection. Knows nothing of
//! the replicated state: a caller that keeps the CA and the join secrets there hands them in, and
//! checks that a peer with a good certificate is still a member. [`root`], [`identity`], [`token`]
//! and [`join`] do no I/O and take `now`; keys, secrets and serial numbers come from ring's
//! `SystemRandom`. [`tls`] is the shell.
//!
//! ```text
//!  joiner                                               manager
//!  JoinToken = digest of root + secret                  RootCa, JoinSecrets
//!     │                                                    │
//!     │ TLS 1.3, no client certificate                     │
//!     │◄───────────── node certificate, root certificate ──│
//!  the presented root has the token's digest?              │
//!  the chain is good, the server is a manager?             │
//!     │                                                    │
//!     │── secret, signing request ────────────────────────►│ whose secret? its role
//!     │◄──────────────────────────── certificate, root ────│ join::admit
//!  PendingJoin::complete ──► NodeCredentials ──► NodeTls
//!                                                  │
//!         Dialer (client) ◄── client config ───────┴─── server config ──► TlsIncoming (server)
//! ```
//!
//! - [`root`]: the root certificate, and the CA that signs with its key
//! - [`identity`]: what a node certificate says about its node
//! - [`token`], [`secret`]: join tokens, and the secrets in them
//! - [`join`]: signing requests, and who is admitted as what
//! - [`credentials`], [`key`]: a node's own certificate and key
//! - [`tls`]: configurations, the listener and the dialer
//! - [`error`]: what goes wrong

mod base36;
pub mod credentials;
pub mod error;
pub mod identity;
pub mod join;
pub mod key;
mod pem;
pub mod root;
pub mod secret;
pub mod tls;
pub mod token;
mod trust;

pub use credentials::NodeCredentials;
pub use error::CaError;
pub use identity::{Peer, PeerIdentity};
pub use join::{Admission, PendingJoin};
pub use key::PrivateKey;
pub use root::{RootCa, RootCertificate, RootDigest};
pub use secret::{JoinSecret, JoinSecrets};
pub use tls::{ConnectionInfo, Dialer, NodeTls, TlsIncoming};
pub use token::{JoinToken, TokenError};
