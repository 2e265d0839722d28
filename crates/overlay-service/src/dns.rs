//! The DNS server: [`resolve`](crate::resolve()) behind UDP and TCP sockets.
//!
//! ```text
//! socket ──► react: message ──► resolve(current directory, scope) ──► reply ──► socket
//!                                        │ none of ours, and a way out
//!                                        └──► cache, or Forwarder ──► upstream, from the endpoint's side
//! ```
//!
//! One [`Server`] answers for one scope, on sockets that were opened by whoever starts it: inside
//! an endpoint's network namespace, or anywhere. [`react`] is the same without sockets. Messages are
//! read and written by hickory-proto.
//!
//! Each server keeps answers of upstreams for itself: who controls a namespace can answer there for
//! any upstream, and nobody else is to believe it.
//!
//! The loops around the sockets are ours, because hickory-server accepts connections without limit,
//! spins when descriptors run out, and hides malformed queries from its handler.

mod batch;
mod cache;
mod counters;
mod forward;
mod message;
mod react;
mod replies;
mod server;

pub use counters::{Counts, Outcome};
pub use forward::{ForwardError, Forwarder, LocalSockets, Sockets};
pub use message::{MAX_QUERY_LEN, MAX_UDP_PAYLOAD, Query};
pub use react::{Reaction, react};
pub use server::Server;

/// What a message came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A datagram: replies have at most [`MAX_UDP_PAYLOAD`] octets, or what the client takes.
    Udp,
    /// A connection; the length in front of each message is not part of it (RFC 1035 §4.2.2).
    Tcp,
}

#[cfg(test)]
mod tests;
