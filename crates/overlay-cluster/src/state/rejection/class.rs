//! What programs see of a rejection: class, code and field.

use overlay_api::status::Reason;
use serde::{Deserialize, Serialize};
use tonic::Code;

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
    /// Why, for programs.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoCluster => Reason::NoCluster,
            Self::ClusterExists { .. } => Reason::ClusterExists,
            Self::NotLocked => Reason::NotLocked,
            Self::NotFound { .. } => Reason::NotFound,
            Self::Ambiguous { .. } => Reason::Ambiguous,
            Self::NameTaken { .. } => Reason::NameTaken,
            Self::IdTaken { .. } => Reason::IdTaken,
            Self::Invalid { .. } => Reason::InvalidArgument,
            Self::RequestReused { .. } => Reason::RequestReused,
            Self::Undone { .. } => Reason::RequestUndone,
            Self::Stale { .. } => Reason::Stale,
            Self::TooMany { .. } | Self::TooManyRoots { .. } => Reason::TooMany,
            Self::Addresses { class, .. } => match class {
                Class::InvalidArgument => Reason::InvalidArgument,
                Class::ResourceExhausted => Reason::AddressesExhausted,
                _ => Reason::AddressInUse,
            },
            Self::NetworkInUse { .. } => Reason::NetworkInUse,
            Self::IngressExists { .. } => Reason::IngressExists,
            Self::NoIngress { .. } => Reason::NoIngress,
            Self::NotAttachable { .. } => Reason::NotAttachable,
            Self::ServiceNotOnNetwork { .. } => Reason::ServiceNotOnNetwork,
            Self::ServiceInUse { .. } => Reason::ServiceInUse,
            Self::MissingCapability { .. } => Reason::MissingCapability,
            Self::ClusterBehind { .. } | Self::NodeBehind { .. } => Reason::FeatureLevel,
            Self::VniTaken { .. } => Reason::VniInUse,
            Self::MacTaken { .. } => Reason::MacInUse,
            Self::PortTaken { .. } => Reason::PortInUse,
            Self::NoFreePort { .. } => Reason::PortsExhausted,
            Self::LastManager { .. } => Reason::LastManager,
            Self::NodeIsManager { .. } => Reason::NodeIsManager,
            Self::NodeNotActive { .. } => Reason::NodeNotActive,
            Self::MeshEndpoint { .. } => Reason::MeshEndpoint,
            Self::RotationRunning { .. } => Reason::RotationRunning,
            Self::EpochStep { .. } => Reason::EpochStep,
            Self::EpochNumber { .. } => Reason::EpochNumber,
            Self::NotReady { .. } => Reason::NotReady,
            Self::RootChanged { .. } => Reason::RootChanged,
            Self::RootInUse { .. } => Reason::RootInUse,
        }
    }

    /// The text of [`reason`](Self::reason).
    pub const fn code(&self) -> &'static str {
        self.reason().text()
    }

    /// What sort of trouble it is.
    pub const fn class(&self) -> Class {
        match self.reason().code() {
            Code::NotFound => Class::NotFound,
            Code::AlreadyExists => Class::AlreadyExists,
            Code::InvalidArgument => Class::InvalidArgument,
            Code::ResourceExhausted => Class::ResourceExhausted,
            Code::Aborted => Class::Conflict,
            _ => Class::FailedPrecondition,
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
            Self::NodeBehind { .. } => "level",
            Self::LastManager { .. } => "role",
            Self::NodeIsManager { .. } | Self::NodeNotActive { .. } => "node",
            Self::PortTaken { .. } | Self::NoFreePort { .. } | Self::NoIngress { .. } => "publish",
            _ => return None,
        })
    }
}
