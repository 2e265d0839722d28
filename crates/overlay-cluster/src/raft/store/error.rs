//! What goes wrong with the file.

use std::path::PathBuf;

use crate::raft::codec::Malformed;

/// The store cannot be used. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A manager that was in its cluster before has lost its state file.
    #[error(
        "the state file {} is gone: without it this manager could vote against what it promised; \
         put it back, or move the whole data directory away and join as a new node", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened, read or written.
    #[error("the state file {} cannot be used: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// A segment of the log cannot be read or written.
    #[error("the log {} cannot be used: {source}", path.display())]
    Log {
        /// The segment.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no file, and none can be made.
    #[error("the state file {} cannot be made: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is something else, or its first page is damaged.
    #[error(
        "{} is no state file of a manager; name another file, or move this one away and let this \
         manager join again", path.display()
    )]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a later release.
    #[error(
        "the state file {} has format {found}, this release reads {known}; install the release \
         that wrote it", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this release.
        known: u32,
    },
    /// The file belongs to another cluster or node.
    #[error(
        "the state file {} belongs to {what} {found}, not {expected}; it was copied here or the \
         node's certificate was replaced: use the data directory of this node", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whether cluster or node differs.
        what: &'static str,
        /// Whom it belongs to.
        found: String,
        /// Whom it should belong to.
        expected: String,
    },
    /// The node's data key is not the one that sealed the file.
    #[error(
        "the state file {} was sealed with another data key; put back the data key that belongs to \
         it, or move the whole data directory away and join as a new node", path.display()
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// A record does not open as what was sealed, or cannot be decoded.
    #[error(
        "the state file {} is damaged at {record}: {reason}; move the whole data directory \
         away and join as a new node", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which record.
        record: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The writer thread cannot be started.
    #[error("the thread that writes the state file cannot be started: {0}")]
    Thread(std::io::Error),
    /// The store was closed.
    #[error("the state file is closed: this manager stops")]
    Closed,
}

impl StoreError {
    /// Another process, or a run of this one that is just ending, has the file open.
    pub fn is_in_use(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        matches!(**source, redb::Error::DatabaseAlreadyOpen)
    }

    pub(super) fn damaged(path: &std::path::Path, record: impl ToString, why: &Malformed) -> Self {
        Self::Damaged { path: path.to_owned(), record: record.to_string(), reason: why.to_string() }
    }
}
