//! The overlay node as a value: build it, run it, talk to it through a handle or its socket.
//!
//! Owns the composition: which pieces run on a node, what flows between them, what is kept on
//! disk. Has no protocol of its own: those live in the crates that it puts together.
//!
//! ```text
//!  overlayctl, orchestrators ──unix socket──► api ──► this node, or a manager over mutual TLS
//!                                                                 │ watch
//!                  ┌───────────────── member ─────────────────────▼──────┐
//!                  │  gossip ──► absence ──► reconcile ◄── view ◄── agent │──► view on disk
//!                  │  key rotation ─────────►   │            └──► names   │
//!                  └────────────────────────────▼────────────────────────┘
//!                                     dataplane ──► UDP 4789, 4500
//! ```
//!
//! - [`config`]: what a node is told; file, environment, flags
//! - [`node`]: [`Node`] and its handle; `endpoint`: what the handle does with endpoints
//! - `member`: what runs while the node is in a cluster; `control_plane`, `state_file`: what only managers
//!   run; the wait for the last run to be over
//! - `agent`, `backoff`: the watch; how soon managers are asked again; [`managers`], `patience`: which
//!   one, and how long it may be silent
//! - `liveness`, `absence`: who is dead, from gossip and the view; which of them go on without their daemons
//! - `place`: where this node and the others are
//! - `reconcile`, `keys`, `clock`: from view, liveness and epochs to the dataplane; jumps of the time
//! - `dataplane`: the switch in user space and the kernel as one; which of them a node runs; the way out
//!   of containers and their published ports
//! - `adopt`, `rules`, `vanished`: what the run before left; what others do to the host's rules; namespaces
//!   of endpoints that end
//! - `api`, `relay`, `metrics`, `listen`, `callers`: calls on the unix socket, and watches; figures for
//!   Prometheus; their sockets; how many local callers there may be
//! - `disk`, `vault`, `ports`, `routes`: the data directory; what seals it; how endpoints are plugged
//!   in; what the host routes
//! - `level`: what managers of a release before would drop of a request
//! - `resolvers`: a name server in each network namespace of endpoints
//! - `lifecycle`, `role`: init, join and leave; promotion and demotion
//! - `renewal`, `roots`: new certificates; what they are checked against
//! - `lock`, `recovery`: the unlock key; backup, restore, and going on alone

mod absence;
mod adopt;
mod agent;
mod announce;
mod api;
mod backoff;
mod callers;
mod clock;
pub mod config;
mod control_plane;
mod dataplane;
mod disk;
mod drain;
mod endpoint;
pub mod error;
mod keys;
mod level;
mod lifecycle;
mod listen;
mod liveness;
mod lock;
pub mod managers;
mod member;
mod mesh_endpoint;
mod metrics;
pub mod node;
mod patience;
mod place;
mod ports;
mod probe;
mod reconcile;
mod recovery;
mod relay;
mod renewal;
mod resolvers;
mod role;
mod roots;
mod routes;
mod rules;
mod state_file;
mod vanished;
mod vault;

pub use config::Config;
pub use error::NodeError;
pub use node::{Node, NodeHandle};
pub use overlay_dataplane::kernel::xfrm::holder::hold;
pub use resolvers::{SearchDomain, Upstream};
