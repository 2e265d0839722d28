//! Who may talk to whom: the cluster's CA, join tokens, and TLS 1.3 on tcp 2377.
//!
//! Owns certificates, keys, tokens and the two ends of every control connection. Whether a peer with
//! a good certificate is still a member, the gate of [`server`](crate::server) checks. All but
//! [`tls`] does no I/O and takes `now`; keys, secrets and serial numbers come from ring's
//! `SystemRandom`. [`tls`] is the shell.
//!
//! ```text
//!  joiner                                               manager
//!  JoinToken = digest of root + secret                  Authority: CA + secrets
//!     │                                                    │
//!     │ TLS 1.3, no client certificate                     │
//!     │◄───────────── node certificate, root certificate ──│
//!  the presented root has the token's digest?              │
//!  the chain is good, the server is a manager?             │
//!     │                                                    │
//!     │── secret, signing request ────────────────────────►│ whose secret? its role
//!     │◄─────────────────────────── certificate, roots ────│ Authority::admit
//!  PendingJoin::complete ──► NodeCredentials ──► NodeTls
//!                                                  │
//!         Dialer (client) ◄── client config ───────┴─── server config ──► TlsIncoming (server)
//! ```
//!
//! - [`root`]: the root certificate, and the CA that signs with its key
//! - [`TrustedRoots`]: the roots that a node trusts, several while one replaces the other
//! - [`identity`]: what a node certificate says about its node
//! - [`token`], [`secret`]: join tokens, and the secrets in them
//! - [`authority`]: CA and secrets together: who is admitted as what. Alone knows how the replicated
//!   state keeps them
//! - [`join`]: signing requests, and how many joins are looked at
//! - [`credentials`], [`key`]: a node's own certificate and key
//! - [`tls`]: configurations, the listener and the dialer
//! - [`unlock_key`]: the unlock key as text
//! - [`error`]: what goes wrong

pub mod authority;
mod base36;
pub mod credentials;
pub mod error;
pub mod identity;
pub mod join;
pub mod key;
mod pem;
pub mod root;
mod roots;
pub mod secret;
pub mod tls;
pub mod token;
mod trust;
pub mod unlock_key;

pub use authority::{Admission, Authority};
pub use credentials::NodeCredentials;
pub use error::CaError;
pub use identity::{Peer, PeerIdentity};
pub use join::PendingJoin;
pub use key::PrivateKey;
pub use root::{RootCa, RootCertificate, RootDigest, Subject};
pub use roots::TrustedRoots;
pub use secret::{JoinSecret, JoinSecrets};
pub use tls::{ConnectionInfo, Dialer, NodeTls, TlsIncoming};
pub use token::{JoinToken, TokenError};
