//! VXLAN dataplanes behind one trait: one in the Linux kernel, one in user space.
//!
//! Owns the way from "what this node's networks shall be" to frames on the wire. Decides nothing:
//! who is on which network, which backend is healthy, which keys are in use comes from outside.
//! Knows nothing of managers, gossip or names.
//!
//! ```text
//!  View, liveness, keys ── derive ──► Desired ── diff ──► [Op] ── Dataplane::apply ─┐
//!                                                                                   ▼
//!  endpoint ◄─► port (memory, TAP) ◄─► engine: tables, flows, associations ◄─► UDP 4789, 4500
//!           ◄─► veth ◄─► kernel: bridge, VXLAN device, permanent entries  ◄─► UDP 4789
//! ```
//!
//! - [`api`]: the trait, operations, what is observed; [`diff`] between desired and observed
//! - [`desired`]: the state of one node, and how it follows from the replicated view; [`sa`], [`mtu`]
//! - [`wire`]: packet formats
//! - [`kernel`]: a namespace per network, programmed over netlink; the gateway, containers' way out; and the
//!   routing mesh, published ports of services
//! - [`user`]: the switch in user space: pure engine, ports, sockets; and the routing mesh without privileges
//! - [`mesh`]: what both parts of the routing mesh have in common
//! - [`fake`], [`conformance`]: a dataplane for tests, and the suite that every dataplane passes

pub mod api;
pub mod conformance;
pub mod desired;
mod diff;
mod error;
pub mod fake;
pub mod kernel;
pub mod mesh;
pub mod mtu;
pub mod sa;
mod state;
pub mod user;
pub mod wire;

pub use api::{Dataplane, Observed, Op};
pub use desired::Desired;
pub use diff::diff;
pub use error::Error;
