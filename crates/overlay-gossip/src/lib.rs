//! Who is alive: SWIM membership over sealed datagrams.

pub mod config;
mod core;
mod counters;
mod error;
mod identity;

pub use self::{
    config::GossipConfig,
    core::{Event, Gossip, GossipKeys, KeySlot, Output},
    counters::{Counters, DropReason},
    error::GossipError,
    identity::{INCARNATIONS_PER_START, Identity, MemberState},
};
