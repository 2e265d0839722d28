//! What the bytes of a store lie on, and who writes them.

use core::{fmt, time::Duration};
use std::sync::Arc;

use tokio::{runtime::RuntimeFlavor, task::JoinError};

use super::segments::Segments;

/// Where a store is kept.
#[derive(Clone, Debug)]
pub enum Medium {
    /// In a file that a thread writes.
    File,
    /// On a disk that is not the machine's. A task of the runtime writes it, so that the runtime's
    /// clock and order hold for it too.
    Disk(Arc<dyn Disk>),
}

/// A disk that a simulation made.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens the database on it, or makes it.
    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::DatabaseError>;

    /// The log on it.
    fn segments(&self) -> Box<dyn Segments>;

    /// How long the next write takes.
    fn latency(&self) -> Duration;
}

/// Does work that takes longer than a heartbeat may wait, on a thread of its own. In a runtime of
/// one thread, where nothing shall depend on how threads are scheduled, in place.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match tokio::runtime::Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => tokio::task::spawn_blocking(work).await,
    }
}
