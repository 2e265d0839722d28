//! nf_tables over netlink: tables as values, one atomic transaction for each change.
//!
//! ```text
//!  admission, gateway, endpoint ──► Table (desired) ─┐
//!                                                     ├─ diff ──► Batch ──► Nft::apply
//!  Nft::observe ──► Table (as the kernel has it) ─────┘                     all or nothing
//! ```
//!
//! What the kernel gives back for a [`Table`] is an equal one: that is what tells a rule that
//! somebody changed from ours. A table is ours by its name and family; the tables of others are never
//! addressed, with one exception that [`forwarding`] explains. Nothing here runs the `nft` command: a
//! change of one element of 10 000 takes a fraction of a millisecond, that command 15 ms.
//!
//! - [`table`], [`set`], [`expr`]: the vocabulary
//! - [`batch`], [`dump`], [`mod@diff`]: to and from messages; pure
//! - [`socket`]: the shell; [`watch`] hears of changes
//! - [`admission`]: who may send into a plain network (**no-entry**)
//! - [`fence`]: what an endpoint may send
//! - [`gateway`]: the way out, and published ports; [`endpoint`]: published ports in its own namespace;
//!   [`publish`], [`reservation`]: what both say about ports, and who may have one
//! - `vip`: virtual addresses of services, in an endpoint's namespace
//! - [`mesh`]: published ports of services on the host, in the gate's and in tasks' namespaces
//! - [`forwarding`]: hosts that forward nothing by default

pub mod admission;
mod attribute;
pub mod batch;
pub mod diff;
pub mod dump;
pub mod endpoint;
pub mod error;
pub mod expr;
pub mod fence;
pub mod forwarding;
pub mod gateway;
pub mod mesh;
pub(in crate::kernel) mod packet;
pub mod publish;
pub mod reservation;
pub mod set;
pub mod socket;
pub mod table;
pub(in crate::kernel) mod vip;
pub mod watch;

pub use batch::Batch;
pub use diff::diff;
pub use error::NftError;
pub use expr::{Expr, Reg, Verdict};
pub use set::{Data, Field, Filled, Key, Set, SetSpec};
pub use socket::Nft;
pub use table::{Chain, Family, Hook, Rule, Table, TableId};
pub use watch::Watch;
