//! Refusals as gRPC statuses.
//!
//! | metadata key       | content                                             |
//! |--------------------|-----------------------------------------------------|
//! | `overlay-reason`   | stable code for programs: a [`Reason`]              |
//! | `overlay-field`    | the field that is to blame, where one is            |

mod reason;

use overlay_types::SpecError;
use tonic::{Status, metadata::MetadataValue};

pub use reason::Reason;

/// Metadata key of the stable reason code.
pub const REASON: &str = "overlay-reason";
/// Metadata key of the name of the field that is to blame.
pub const FIELD: &str = "overlay-field";

/// A status that carries a stable reason code.
pub fn with_reason(reason: Reason, message: impl Into<String>) -> Status {
    let mut status = Status::new(reason.code(), message);
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason.text()));
    status
}

/// `INVALID_ARGUMENT` that names field and value.
pub fn invalid(error: &SpecError) -> Status {
    invalid_field(error.field(), error.to_string())
}

/// `INVALID_ARGUMENT` that names the field, for values that a message must not repeat: secrets.
pub fn invalid_field(field: &'static str, message: impl Into<String>) -> Status {
    refused(Reason::InvalidArgument, field, message)
}

/// A status that names the field that is to blame.
pub fn refused(reason: Reason, field: &'static str, message: impl Into<String>) -> Status {
    let mut status = with_reason(reason, message);
    status.metadata_mut().insert(FIELD, MetadataValue::from_static(field));
    status
}

/// The reason code that a status carries; empty if it has none.
pub fn reason(status: &Status) -> &str {
    status.metadata().get(REASON).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn field_value_and_reason_reach_the_caller() {
        let status = invalid(&SpecError::new("mtu", 12, "the smallest MTU of this network is 68"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), r#"mtu "12": the smallest MTU of this network is 68"#);
        assert_eq!(reason(&status), "invalid-argument");
        assert_eq!(status.metadata().get(FIELD).unwrap(), "mtu");
    }
}
