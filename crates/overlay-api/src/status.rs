//! Refusals as gRPC statuses.
//!
//! | metadata key       | content                                             |
//! |--------------------|-----------------------------------------------------|
//! | `overlay-reason`   | stable code for programs, like `network-in-use`     |
//! | `overlay-field`    | the field that is to blame, where one is            |

use overlay_types::SpecError;
use tonic::{Code, Status, metadata::MetadataValue};

/// Metadata key of the stable reason code.
pub const REASON: &str = "overlay-reason";
/// Metadata key of the name of the field that is to blame.
pub const FIELD: &str = "overlay-field";

/// A status that carries a stable reason code.
pub fn with_reason(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    status
}

/// `INVALID_ARGUMENT` that names field and value.
pub fn invalid(error: &SpecError) -> Status {
    invalid_field(error.field(), error.to_string())
}

/// `INVALID_ARGUMENT` that names the field, for values that a message must not repeat: secrets.
pub fn invalid_field(field: &'static str, message: impl Into<String>) -> Status {
    let mut status = with_reason(Code::InvalidArgument, "invalid-argument", message);
    status.metadata_mut().insert(FIELD, MetadataValue::from_static(field));
    status
}

/// `FAILED_PRECONDITION` that names the field: something has to change before the call can be met.
pub fn refused(reason: &'static str, field: &'static str, message: impl Into<String>) -> Status {
    let mut status = with_reason(Code::FailedPrecondition, reason, message);
    status.metadata_mut().insert(FIELD, MetadataValue::from_static(field));
    status
}

/// The reason code that a status carries; empty if it has none.
pub fn reason(status: &Status) -> &str {
    status.metadata().get(REASON).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
