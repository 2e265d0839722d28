//! The store of a manager: a redb file with vote and snapshot, the log in segments beside it, and the
//! applied state in memory.
//!
//! ```text
//!   append ──► Tail (readable at once) ──► writer thread: takes all that waits,
//!                                          one frame, one fsync, then calls back
//!   apply ───► Replica                     snapshot every 10 000 entries ──► redb
//! ```
//!
//! At start the state is the last snapshot; openraft applies the committed entries behind it
//! again.

mod durable;
mod error;
#[cfg(test)]
pub(crate) mod faults;
mod file;
mod growth;
mod journal;
mod log;
mod machine;
mod medium;
mod record;
mod reseed;
mod segment;
mod segments;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::{path::Path, sync::Arc};

use overlay_crypto::at_rest::DataKey;
use overlay_types::{ClusterId, NodeId};

pub use durable::Durable;
pub use error::StoreError;
pub use growth::{Growth, Made};
pub use log::LogStore;
pub use machine::Machine;
pub(crate) use medium::aside;
pub use medium::{Disk, Medium};
pub use reseed::{Salvaged, salvage, seed};
pub use segments::{Segments, erase};

use self::{
    file::{File, Write},
    writer::Writer,
};
use super::{replica::Replica, types::Vote};

/// What raft works on, and the state that it leads to.
pub type Store = (LogStore, Machine, Arc<Replica>);

/// Whose a store is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The manager.
    pub node: NodeId,
    /// Seals what is stored.
    pub key: DataKey,
}

/// Opens the store of `owner`, or makes it. Refuses a file that is damaged, of a newer format, or of
/// another cluster, node or key, and changes nothing then.
///
/// A `replica` of this file that is in memory stays in use. What it has applied was in the file; what the file
/// has of a snapshot that it has not, it takes.
pub fn open(
    medium: &Medium,
    path: &Path,
    owner: &Owner,
    replica: Option<Arc<Replica>>,
) -> Result<Store, StoreError> {
    let file = match medium {
        Medium::File => File::open(path, owner)?,
        Medium::Disk(disk) => File::open_on(disk, path, owner)?,
    };
    start(file, owner.node, replica)
}

fn start(file: File, node: NodeId, replica: Option<Arc<Replica>>) -> Result<Store, StoreError> {
    let file = Arc::new(file);
    forget_leadership(&file, node)?;
    let replica = match replica {
        Some(replica) => {
            machine::catch_up(&replica, &file)?;
            replica
        }
        None => Arc::new(Replica::new(machine::load(&file)?)),
    };
    let tail = Arc::default();
    let last = file.last_entry()?.map(|entry| entry.log_id).or(file.purged()?);
    let below = last.map_or(0, |last| last.index + 1);
    let writer = Writer::start(Arc::clone(&file), Arc::clone(&tail), below)?;
    let log = LogStore::new(node, Arc::clone(&file), writer.clone(), tail);
    Ok((log, Machine::new(file, writer, Arc::clone(&replica)), replica))
}

/// A leader's log ran ahead of its disk (see [`LogStore`]), so it must be elected again, in a new
/// term. It keeps its promise not to vote for another one in the old term.
fn forget_leadership(file: &File, node: NodeId) -> Result<(), StoreError> {
    match file.vote()? {
        Some(Vote { leader_id, committed: true }) if leader_id.node_id == node => {
            file.write(&[Write::Vote(Vote { leader_id, committed: false })])
        }
        _ => Ok(()),
    }
}
