//! Commands and states as protobuf messages, for the log and for snapshots.
//!
//! `From<&T>` makes a message and cannot fail; `TryFrom<message>` checks. What a newer release wrote
//! is an error where it has anything that this one does not know, be it an action or a field deep
//! inside one: to skip it would let replicas diverge. Feature levels keep it from being written.

mod command;
mod response;
mod snapshot;

use bytes::Buf;
use overlay_api::internal::v1 as pb;
use overlay_types::SpecError;
use prost::Message;

use super::Command;

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
    /// A message has fields that this version does not know.
    #[error("{what} has fields that this version does not know; install the newer release")]
    Newer {
        /// What was read.
        what: &'static str,
    },
    /// The snapshot has another format.
    #[error(
        "the snapshot has format {found}, this version reads {known}; install the newer release"
    )]
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

/// The command that these bytes are, if this version knows all of it.
pub fn decode_command(bytes: impl Buf) -> Result<Command, WireError> {
    exact::<pb::Command>(command::COMMAND, bytes)?.try_into()
}

/// Decodes the whole of `bytes`, and refuses what has a field that this version does not know.
///
/// Decoding drops such fields, so what is left would be shorter: what writes these messages leaves
/// out defaults and writes each field once, as this version would.
pub(crate) fn exact<M: Message + Default>(
    what: &'static str,
    bytes: impl Buf,
) -> Result<M, WireError> {
    let length = bytes.remaining();
    let message = M::decode(bytes).map_err(|error| WireError::Message { what, error })?;
    if message.encoded_len() == length { Ok(message) } else { Err(WireError::Newer { what }) }
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
