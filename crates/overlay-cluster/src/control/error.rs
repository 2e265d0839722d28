//! What keeps a manager from starting, and refusals as gRPC statuses.

use overlay_api::status::with_reason;
use tonic::{Status, metadata::MetadataValue};

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
    let mut status = with_reason(rejection.reason(), rejection.to_string());
    if let Some(field) = rejection.field().and_then(|f| MetadataValue::try_from(f).ok()) {
        status.metadata_mut().insert(overlay_api::status::FIELD, field);
    }
    status
}
