//! The store of a manager: one redb file with log, vote and snapshot, and the applied state in
//! memory.
//!
//! ```text
//!   append ──► Tail (readable at once) ──► writer thread: takes all that waits,
//!                                          one transaction, one fsync, then calls back
//!   apply ───► Replica                     snapshot every 10 000 entries ──► file
//! ```
//!
//! At start the state is the last snapshot; openraft applies the committed entries behind it
//! again.

mod error;
mod file;
mod log;
mod machine;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::{path::Path, sync::Arc};

use overlay_types::{ClusterId, NodeId};

pub use error::StoreError;
pub use log::LogStore;
pub use machine::Machine;

use self::{file::File, writer::Writer};
use super::replica::Replica;

/// Opens the store of `node`, or makes it. Refuses a file that is damaged, of a newer format, or
/// of another cluster or node, and changes nothing then.
pub fn open(
    path: &Path,
    cluster: ClusterId,
    node: NodeId,
) -> Result<(LogStore, Machine, Arc<Replica>), StoreError> {
    let file = Arc::new(File::open(path, cluster, node)?);
    let applied = machine::load(&file)?;
    let replica = Arc::new(Replica::new(applied));
    let tail = Arc::default();
    let writer = Writer::start(Arc::clone(&file), Arc::clone(&tail))?;
    let log = LogStore::new(Arc::clone(&file), writer.clone(), tail);
    Ok((log, Machine::new(file, writer, Arc::clone(&replica)), replica))
}
