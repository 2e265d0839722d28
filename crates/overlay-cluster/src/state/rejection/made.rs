//! How rejections are made: of their parts, and of the errors of others.

use core::fmt;

use overlay_ipam::IpamError;
use overlay_types::SpecError;

use super::{Class, Rejection};
use crate::state::kind::Kind;

impl Rejection {
    pub(in crate::state) fn not_found(kind: Kind, wanted: impl fmt::Display) -> Self {
        Self::NotFound { kind, wanted: wanted.to_string() }
    }

    pub(in crate::state) fn invalid(
        field: &'static str,
        value: impl fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self::Invalid { field: field.into(), value: value.to_string(), reason: reason.into() }
    }
}

impl From<SpecError> for Rejection {
    fn from(error: SpecError) -> Self {
        Self::invalid(error.field(), error.value(), error.reason())
    }
}

impl From<IpamError> for Rejection {
    fn from(error: IpamError) -> Self {
        let class = match error {
            IpamError::Spec(error) => return error.into(),
            IpamError::Outside { .. } | IpamError::RequestedTwice { .. } => Class::InvalidArgument,
            IpamError::NoFreeSubnet { .. } | IpamError::Exhausted { .. } => {
                Class::ResourceExhausted
            }
            _ => Class::FailedPrecondition,
        };
        Self::Addresses {
            class,
            field: error.field().into(),
            value: error.value(),
            message: error.to_string(),
        }
    }
}
