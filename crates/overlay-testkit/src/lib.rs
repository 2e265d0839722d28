//! What the tests of the overlay crates share. Never a dependency of anything that ships.
//!
//! ```text
//!   core under test ── Output ──► sim::Network ── Delivery ──► core under test
//!                                   │  seed, virtual clock, links, cuts
//! ```
//!
//! - [`cargo`]: cargo, started by what cargo has started
//! - [`cluster`]: a cluster of hosts, for benches
//! - [`hosts`]: hosts on a wire, with real daemons; also what `cargo xtask lab up` is made of
//! - [`lab`]: network namespaces that tests make, gone when the test is
//! - [`objects`]: a node and a cluster to begin with
//! - [`sim`]: a simulated datagram network and its clock; the same seed gives the same run
//! - [`traffic`]: connections and questions between namespaces
//! - [`until`]: waiting for what other processes do

pub mod cargo;
pub mod cluster;
pub mod hosts;
pub mod lab;
pub mod objects;
pub mod sim;
pub mod traffic;
pub mod until;
