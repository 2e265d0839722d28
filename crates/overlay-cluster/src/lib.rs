//! Desired state: replicated objects, raft, CA, tokens and watches.
//!
//! Owns what the cluster agreed on: networks, services, endpoints, nodes, key epochs and who may
//! join. Decides nothing about liveness (that is gossip's) and moves no packet.
//!
//! ```text
//!  callers ──► server ──► control ──propose──► raft ──commit──► state ──changes──► watch ──► nodes
//!    ca: who may call      └── read: applied state, linearizable or stale
//! ```
//!
//! - [`state`]: objects, commands, `apply`, queries; pure
//! - [`raft`]: log, store and transport between managers
//! - [`control`]: a running manager
//! - [`server`]: the gRPC services of a manager
//! - [`watch`]: who is told what of the state; pure
//! - [`ca`]: certificates, tokens and TLS
//! - [`backup`]: the state as a file that a passphrase opens

pub mod backup;
pub mod ca;
pub mod control;
pub mod raft;
pub mod server;
pub mod state;
pub mod watch;
