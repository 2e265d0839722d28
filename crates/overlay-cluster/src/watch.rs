//! Who is told what of the replicated state.
//!
//! ```text
//! apply ──(revision, changes)──► Window ──► one Feed per subscriber ──► Snapshot | Delta
//!                                              │ Interest: what concerns a node
//! ```
//!
//! A subscriber that is in the window gets the changes since its revision; any other gets a
//! snapshot first. Pure: who carries batches to subscribers is another matter.

mod feed;
mod interest;
mod window;

pub use feed::{Batch, Feed, Gathered};
pub use interest::Interest;
pub use window::{Event, Window};
