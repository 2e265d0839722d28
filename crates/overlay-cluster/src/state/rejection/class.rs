//! What programs see of a rejection: class, code and field.

use serde::{Deserialize, Serialize};

use super::Rejection;

/// What sort of trouble a [`Rejection`] is; a gRPC code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Class {
    /// What is asked about does not exist.
    NotFound,
    /// The name or id is taken.
    AlreadyExists,
    /// The request makes no sense, whatever the state. [`Rejection::field`] says which part.
    InvalidArgument,
    /// The state has to change before the request can be met.
    FailedPrecondition,
    /// Something is used up.
    ResourceExhausted,
    /// The request was made from an old state: read again and make a new one.
    Conflict,
}

impl Rejection {
    /// Stable code for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCluster => "no-cluster",
            Self::ClusterExists { .. } => "cluster-exists",
            Self::NotFound { .. } => "not-found",
            Self::Ambiguous { .. } => "ambiguous",
            Self::NameTaken { .. } => "name-taken",
            Self::IdTaken { .. } => "id-taken",
            Self::Invalid { .. } => "invalid-argument",
            Self::RequestReused { .. } => "request-reused",
            Self::Undone { .. } => "request-undone",
            Self::Stale { .. } => "stale",
            Self::TooMany { .. } => "too-many",
            Self::Addresses { class, .. } => match class {
                Class::InvalidArgument => "invalid-argument",
                Class::ResourceExhausted => "addresses-exhausted",
                _ => "address-in-use",
            },
            Self::NetworkInUse { .. } => "network-in-use",
            Self::IngressExists { .. } => "ingress-exists",
            Self::NoIngress { .. } => "no-ingress",
            Self::NotAttachable { .. } => "not-attachable",
            Self::ServiceNotOnNetwork { .. } => "service-not-on-network",
            Self::ServiceInUse { .. } => "service-in-use",
            Self::MissingCapability { .. } => "missing-capability",
            Self::VniTaken { .. } => "vni-in-use",
            Self::MacTaken { .. } => "mac-in-use",
            Self::PortTaken { .. } => "port-in-use",
            Self::NoFreePort { .. } => "ports-exhausted",
            Self::LastManager { .. } => "last-manager",
            Self::NodeIsManager { .. } => "node-is-manager",
            Self::NodeNotActive { .. } => "node-not-active",
            Self::RotationRunning { .. } => "rotation-running",
            Self::EpochStep { .. } => "epoch-step",
            Self::EpochNumber { .. } => "epoch-number",
            Self::NotReady { .. } => "not-ready",
        }
    }

    /// What sort of trouble it is.
    pub const fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NotFound,
            Self::ClusterExists { .. }
            | Self::NameTaken { .. }
            | Self::IdTaken { .. }
            | Self::IngressExists { .. } => Class::AlreadyExists,
            Self::Ambiguous { .. } | Self::Invalid { .. } | Self::RequestReused { .. } => {
                Class::InvalidArgument
            }
            Self::NoCluster
            | Self::NetworkInUse { .. }
            | Self::NoIngress { .. }
            | Self::NotAttachable { .. }
            | Self::ServiceNotOnNetwork { .. }
            | Self::ServiceInUse { .. }
            | Self::MissingCapability { .. }
            | Self::VniTaken { .. }
            | Self::MacTaken { .. }
            | Self::PortTaken { .. }
            | Self::LastManager { .. }
            | Self::NodeIsManager { .. }
            | Self::NodeNotActive { .. }
            | Self::RotationRunning { .. }
            | Self::NotReady { .. } => Class::FailedPrecondition,
            Self::TooMany { .. } | Self::NoFreePort { .. } => Class::ResourceExhausted,
            Self::Undone { .. }
            | Self::Stale { .. }
            | Self::EpochStep { .. }
            | Self::EpochNumber { .. } => Class::Conflict,
            Self::Addresses { class, .. } => *class,
        }
    }

    /// The field that is to blame, as its user knows it.
    pub fn field(&self) -> Option<&str> {
        Some(match self {
            Self::Invalid { field, .. } | Self::Addresses { field, .. } => field,
            Self::Ambiguous { kind, .. } | Self::NotFound { kind, .. } => kind.field(),
            Self::NameTaken { .. } => "name",
            Self::IdTaken { .. } => "id",
            Self::RequestReused { .. } | Self::Undone { .. } => "request_id",
            Self::Stale { .. } => "changed_at",
            Self::VniTaken { .. } => "vni",
            Self::MacTaken { .. } => "mac",
            Self::LastManager { .. } => "role",
            Self::NodeIsManager { .. } | Self::NodeNotActive { .. } => "node",
            Self::PortTaken { .. } | Self::NoFreePort { .. } | Self::NoIngress { .. } => "publish",
            _ => return None,
        })
    }
}
