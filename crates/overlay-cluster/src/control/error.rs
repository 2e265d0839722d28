//! What keeps a manager from starting, and refusals as gRPC statuses.

use overlay_api::status::{refused, with_reason};
use tonic::Status;

use crate::{ca::CaError, raft::store::StoreError, state::Rejection};

/// A manager cannot start or join.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The state file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's certificate or a join token cannot be used.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The raft core refuses.
    #[error("the raft core cannot run: {0}; nothing was changed")]
    Raft(String),
}

impl ControlError {
    pub(super) fn raft(error: impl ToString) -> Self {
        Self::Raft(error.to_string())
    }
}

/// The status that a caller sees of a rejection, with its reason and the field.
pub fn rejection_status(rejection: &Rejection) -> Status {
    match rejection.field() {
        Some(field) => refused(rejection.reason(), field, rejection.to_string()),
        None => with_reason(rejection.reason(), rejection.to_string()),
    }
}
