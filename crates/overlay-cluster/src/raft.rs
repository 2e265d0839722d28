//! Replication: openraft, a store in one file, and the connections between managers.
//!
//! ```text
//!             ┌──────────── openraft ────────────┐
//!   propose ─►│ log ─► LogStore ─► writer thread ─► redb file
//!             │ committed entries ─► Machine ────► Replica: State, window, events
//!             └ append, vote, snapshot ─► transport ─► other managers
//! ```
//!
//! - [`types`]: openraft's parameters
//! - [`batch`]: the commands of a log entry
//! - `codec`: its records as messages
//! - [`store`]: the file
//! - [`replica`]: the applied state, and who reads and watches it
//! - [`transport`]: between managers

pub mod batch;
pub(crate) mod codec;
pub mod replica;
pub mod store;
pub mod transport;
pub mod types;
