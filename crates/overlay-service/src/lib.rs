//! Service names, virtual IPs, backend choice and the DNS server.
//!
//! Owns what a name means to whoever asks, which backends stand behind a virtual address, and the
//! name server in front of both. It translates no packets, knows nothing of who is alive except
//! what it is told, and never lets a question out that an internal network asked.
//!
//! ```text
//! View, Change… ──► Directory ──► SharedDirectory ──► resolve(scope, question, seed) ──► Answer
//! dead nodes ─────►     ▲                                  ▲                               │
//!                       │ apply, set_dead, publish         └── dns::Server: UDP, TCP ◄─────┘
//!                                                                   └──► Forwarder ──► upstreams
//! View, dead nodes ──► virtual_services ──► FlowPins::select(flow) ──► Backend
//! ```
//!
//! All but [`dns`] is pure: seeds and the time are arguments.
//!
//! - [`directory`]: the index of names and addresses, cheap to change and to share
//! - [`scope`], [`question`]: who asks, and what
//! - [`resolve`](mod@resolve): the answer
//! - [`table`]: virtual addresses and their live backends
//! - [`select`]: the backend of a flow
//! - [`dns`]: the server

mod cow_map;
pub mod directory;
pub mod dns;
#[cfg(test)]
mod fixture;
pub mod question;
pub mod resolve;
pub mod scope;
pub mod select;
mod shuffle;
pub mod table;

pub use directory::{Directory, SharedDirectory};
pub use question::{Question, RecordKind};
pub use resolve::{Answer, Record, TTL_SECS, resolve};
pub use scope::Scope;
pub use select::{FlowHash, FlowPins};
pub use table::{Backend, VirtualService, virtual_services};
