//! The DNS server: [`resolve`](crate::resolve()) behind UDP and TCP sockets.
//!
//! ```text
//! socket ──► message: read ──► resolve(current directory, scope) ──► message: reply ──► socket
//!                                        │ none of ours, and a way out
//!                                        └──► Forwarder ──► upstream, from the endpoint's side
//! ```
//!
//! One [`Server`] answers for one scope, on sockets that were opened by whoever starts it: inside
//! an endpoint's network namespace, or anywhere. Messages are read and written by hickory-proto.
//! The loops around the sockets are ours, because hickory-server accepts connections without limit,
//! spins when descriptors run out, and hides malformed queries from its handler.

mod counters;
mod forward;
mod message;
mod server;

pub use counters::Counts;
pub use forward::{ForwardError, Forwarder, LocalSockets, Sockets};
pub use message::{MAX_QUERY_LEN, MAX_UDP_PAYLOAD};
pub use server::Server;

/// What a message came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Udp,
    Tcp,
}

#[cfg(test)]
mod tests;
