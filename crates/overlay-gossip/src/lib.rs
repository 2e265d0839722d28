//! Who is alive: SWIM membership over sealed datagrams.
//!
//! Owns the verdict about each node: alive, suspected, dead, or left. Carries liveness only: networks,
//! endpoints and services come from the replicated state, so they cannot diverge here. Picks no
//! leader, reads no desired state, and knows of managers only what it is told.
//!
//! ```text
//!                 ┌──────────────────────── core ────────────────────────┐
//!   datagram ───► │ seal ─► message ─┬─► swim ─────► foca ─┬─► events    │ ──► events
//!   stream ─────► │  (key ring,      ├─► greeting ──┐      ├─► packets ─┐│
//!   time ───────► │   replay)        └─► exchange ──┴─► merge, doubts   ││
//!   commands ───► │                                        seal ◄───────┘│ ──► datagrams, streams
//!                 └──────────────────────────────────────────────────────┘
//! ```
//!
//! - [`Gossip`]: the protocol as a state machine, with its [`Output`]s and [`Event`]s
//! - [`io`]: sockets, clock and files around it
//! - [`config`]: periods and bounds
//! - [`Identity`], [`MemberState`]: who a member is, and what is known about it
//! - [`Counters`], [`DropReason`]: what was dropped, and why
//!
//! What foca (SWIM) lacks and this crate adds: sealing, greeting of seeds for as long as they are no
//! members, full exchange with a random member, recovery from zero members, a second opinion over a
//! stream, leaving told from dying, and a version byte.

pub mod config;
mod core;
mod counters;
mod error;
mod identity;
pub mod io;

pub use self::{
    config::GossipConfig,
    core::{Event, Gossip, Output},
    counters::{Counters, DropReason},
    error::GossipError,
    identity::{INCARNATIONS_PER_START, Identity, MemberState},
};
