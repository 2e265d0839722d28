//! Refusals as gRPC statuses, with details for programs in `grpc-status-details-bin`.
//!
//! | detail                   | content                                                      |
//! |--------------------------|--------------------------------------------------------------|
//! | `google.rpc.ErrorInfo`   | a [`Reason`], [`DOMAIN`], and the field that is to blame     |
//! | `google.rpc.BadRequest`  | that field, of `INVALID_ARGUMENT`                            |
//! | `google.rpc.RetryInfo`   | when to try again, where that may help                       |

mod reason;

use core::time::Duration;

use overlay_types::SpecError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use reason::Reason;

/// What reasons belong to: the package that documents them.
pub const DOMAIN: &str = "overlay.v1";

/// Key of the field that is to blame in the metadata of `ErrorInfo`.
const FIELD: &str = "field";

/// When to ask again where nothing better is known: managers elect a leader and catch up within a
/// second.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Characters of a message. It is in a status three times, and clients refuse headers beyond 8 KiB.
const MAX_MESSAGE: usize = 1000;

/// A status that carries a stable reason code.
pub fn with_reason(reason: Reason, message: impl Into<String>) -> Status {
    let delay = (reason.code() == Code::Unavailable).then_some(RETRY_DELAY);
    status(reason, None, delay, message.into())
}

/// A status that says when the same request may succeed.
pub fn retry_after(reason: Reason, delay: Duration, message: impl Into<String>) -> Status {
    status(reason, None, Some(delay), message.into())
}

/// `INVALID_ARGUMENT` that names field and value.
pub fn invalid(error: &SpecError) -> Status {
    invalid_field(error.field(), error.to_string())
}

/// `INVALID_ARGUMENT` that names the field, for values that a message must not repeat: secrets.
pub fn invalid_field(field: &str, message: impl Into<String>) -> Status {
    refused(Reason::InvalidArgument, field, message)
}

/// A status that names the field that is to blame.
pub fn refused(reason: Reason, field: &str, message: impl Into<String>) -> Status {
    status(reason, Some(field), None, message.into())
}

fn status(reason: Reason, field: Option<&str>, delay: Option<Duration>, message: String) -> Status {
    let message = shortened(message);
    let mut details = ErrorDetails::new();
    let metadata = field.map(|field| (FIELD.to_owned(), field.to_owned()));
    details.set_error_info(reason.text(), DOMAIN, metadata.into_iter().collect::<Metadata>());
    if let Some(field) = field
        && reason.code() == Code::InvalidArgument
    {
        details.add_bad_request_violation(field, message.clone());
    }
    if let Some(delay) = delay {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(reason.code(), message, details)
}

type Metadata = std::collections::HashMap<String, String>;

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// The reason that a status carries, if this version knows it.
pub fn reason(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    Reason::of_text(&info.reason)
}

/// The field that a status blames.
pub fn field(status: &Status) -> Option<String> {
    status.get_details_error_info()?.metadata.remove(FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_value_and_reason_reach_the_caller() {
        let status = invalid(&SpecError::new("mtu", 12, "the smallest MTU of this network is 68"));
        let message = r#"mtu "12": the smallest MTU of this network is 68"#;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, message));
        assert_eq!(reason(&status), Some(Reason::InvalidArgument));
        assert_eq!(field(&status).as_deref(), Some("mtu"));
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!((violations[0].field.as_str(), &*violations[0].description), ("mtu", message));
        assert!(status.get_details_retry_info().is_none());
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        let delay = |status: Status| status.get_details_retry_info()?.retry_delay;
        assert_eq!(delay(with_reason(Reason::NoLeader, "no")), Some(RETRY_DELAY));
        let rate = retry_after(Reason::JoinRate, Duration::from_secs(3), "slowly");
        assert_eq!(delay(rate), Some(Duration::from_secs(3)));
        assert_eq!(delay(with_reason(Reason::AddressesExhausted, "no")), None);
    }

    #[test]
    fn a_reason_of_somebody_else_is_none_of_ours() {
        let details = ErrorDetails::with_error_info("NOT_FOUND", "example.com", Metadata::new());
        let status = Status::with_error_details(Code::NotFound, "no", details);
        assert_eq!(reason(&status), None);
        assert_eq!(reason(&Status::not_found("no")), None);
    }

    #[test]
    fn r06_a_status_fits_into_the_headers_of_any_client() {
        let status = invalid_field("name", "\u{1}".repeat(1 << 20));
        let headers = status.into_http::<()>().into_parts().0.headers;
        let size: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len() + 32).sum();
        assert!(size < 8 << 10, "{size}");
    }
}
