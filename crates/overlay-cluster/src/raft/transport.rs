//! Raft between managers: gRPC over mutual TLS.
//!
//! ```text
//!   openraft ──► Peer (client) ══ TLS 1.3, certificates of managers ══► Service ──► openraft
//! ```

mod appends;
mod links;
mod peer;
mod service;

pub use links::{Channel, Links, TlsLinks};
pub use peer::{Peer, Peers};
pub use service::RaftService;
