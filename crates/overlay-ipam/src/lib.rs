//! Address pools, subnets and allocation for overlay networks.
//!
//! Owns the answer to two questions: which subnet may a new network have, and which address may a
//! new endpoint have. Pure values: no I/O, no clock, no randomness, no hash maps, so a replicated
//! state machine holds them and every replica arrives at the same bytes. Does not know what an
//! endpoint is, does not read routing tables, does not persist anything: callers pass in what is
//! occupied and serialise the values with serde.
//!
//! ```text
//!  networks' subnets, host routes
//!           │
//!  Request ─▼──────────┐  subnets   ┌─────────────────┐  addresses
//!  ───────► Pools::claim ─────────► │   NetworkIpam   ├───────────► endpoints, VIPs
//!         └────────────┘            │ ┌─────────────┐ │ ◄──────────
//!                                   │ │ subnet: set │ │  release
//!                                   │ │  of offsets │ │
//!                                   │ ├─────────────┤ │
//!                                   │ │ quarantine  │ │
//!                                   │ └─────────────┘ │
//!                                   └─────────────────┘
//! ```
//!
//! **Invariant:** unique-address. An address that [`NetworkIpam::allocate`] gave is not given again
//! until it was released.
//!
//! - [`pools`]: default pools, and the choice of a subnet that overlaps nothing
//! - [`network`]: allocation, release, growth and accounting of one network
//! - [`request`], [`family`]: any of a family, or exactly this one
//! - [`usage`]: what an address is, and the counts of a subnet
//! - [`error`]: why a call was refused, and what is free instead
//!
//! Inside: `subnet` is the layout and the taken addresses of one subnet, kept in an `offset_set`:
//! a `bitmap` up to 2^24 addresses, `runs` beyond; `quarantine` is the queue of released addresses.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod bitmap;
pub mod error;
pub mod family;
pub mod network;
mod offset_set;
pub mod pools;
mod quarantine;
pub mod request;
mod runs;
mod subnet;
pub mod usage;

pub use error::IpamError;
pub use family::Family;
pub use network::NetworkIpam;
pub use pools::{MAX_POOLS, Occupied, Owner, Pools};
pub use quarantine::QUARANTINE_LIMIT;
pub use request::Request;
pub use usage::{AddressState, Reservation, SubnetUsage};

#[cfg(test)]
mod tests;
