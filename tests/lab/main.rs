//! Clusters of real processes: `overlayd` on hosts that are network namespaces, asked by `overlayctl`.
//!
//! ```text
//!  container ── eth0 ── overlayd ── cable ── wire ── cable ── overlayd ── eth0 ── container
//!                       node1                                 node2
//! ```
//!
//! Each test has a mount namespace of its own, with an empty `/run`; what it starts it ends, by pid. It
//! says which dataplane each of its nodes has.

mod attach;
mod by_hand;
mod capability;
mod carry;
mod chore;
mod client;
mod coexist;
mod ear;
mod flows;
mod forge;
mod grow;
mod headless;
mod isolation;
mod leave;
mod load;
mod mesh;
mod orders;
mod plane;
#[path = "../dataplane/probe.rs"]
mod probe;
mod programs;
mod publish;
mod ready;
mod reference_document;
mod revoked;
mod rolling;
mod rotation;
mod sealed;
mod setup;
mod stranger;
mod talk;
mod watch;
mod way_out;
mod web;
