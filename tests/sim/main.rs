//! Whole clusters in one thread, on a virtual clock, with everything random drawn from a seed.
//!
//! ```text
//!   seed ──► sizes, faults, calls, delays, election timeouts, ids
//!
//!   clients ─┐           ┌─ Control, openraft, apply, redb store ── disk that loses, tears, fails
//!   agents ──┴── network ┴─ another manager …
//!              delays, cuts, breaks          clocks that are wrong
//! ```
//!
//! Above the network and below the disk it is the managers' real code: gRPC services, raft, store,
//! state, watches, leader's duties. Not in it: TLS and sockets, gossip, whose verdicts come late but
//! true, and the loops of `overlayd` that watch and that take up roles, which stand here in its words.
//!
//! `cargo xtask sim --seeds N --first-seed S` runs more of them, or one again.
#![expect(clippy::disallowed_methods, reason = "time is virtual: to sleep is to let it pass")]

mod agent;
mod check;
mod child;
mod client;
mod cluster;
mod disk;
mod entropy;
mod far;
mod faults;
mod history;
mod ledger;
mod machine;
mod net;
mod nodes;
mod observer;
mod operator;
mod plant;
mod planted;
mod run;
mod seeds;
mod trace;
mod voter;
