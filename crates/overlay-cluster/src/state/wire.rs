//! Commands and states as protobuf messages, for the log and for snapshots.
//!
//! `From<&T>` makes a message and cannot fail; `TryFrom<message>` checks. What was written by a
//! version with other fields is read as far as this version knows them; what this version cannot
//! know at all (an unknown action) is an error, because skipping it would let replicas diverge.

mod command;
mod response;
mod snapshot;

use overlay_types::SpecError;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not a protobuf message of the expected kind.
    #[error("{what} is not a readable message: {error}")]
    Message {
        /// What was read.
        what: &'static str,
        /// The decoder's words.
        error: prost::DecodeError,
    },
    /// A field has an impossible value.
    #[error("{what}: {error}")]
    Field {
        /// What was read.
        what: &'static str,
        /// Which field, and how it is wrong.
        error: SpecError,
    },
    /// A required part is missing, or of a kind that this version does not know.
    #[error("{what}: {part} is missing, or was written by a newer version")]
    Missing {
        /// What was read.
        what: &'static str,
        /// The part.
        part: &'static str,
    },
    /// The snapshot has another format.
    #[error("the snapshot has format {found}, this version reads {known}; update this node")]
    Format {
        /// Its format.
        found: u32,
        /// What can be read.
        known: u32,
    },
    /// The records of a snapshot do not fit together.
    #[error("the snapshot contradicts itself: {0}")]
    Contradiction(String),
}

impl WireError {
    pub(crate) const fn missing(what: &'static str, part: &'static str) -> Self {
        Self::Missing { what, part }
    }
}

/// Adds to an error in a field what was being read.
pub(crate) fn reading<T>(what: &'static str, result: Result<T, SpecError>) -> Result<T, WireError> {
    result.map_err(|error| WireError::Field { what, error })
}

/// The message in a field that a writer always fills.
pub(crate) fn required<T>(
    what: &'static str,
    part: &'static str,
    message: Option<T>,
) -> Result<T, WireError> {
    message.ok_or(WireError::missing(what, part))
}
