//! Kinds of objects.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Kinds of objects, as messages call them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A node.
    Node,
    /// A network.
    Network,
    /// A service.
    Service,
    /// An endpoint.
    Endpoint,
    /// A key epoch.
    KeyEpoch,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Node => "node",
            Self::Network => "network",
            Self::Service => "service",
            Self::Endpoint => "endpoint",
            Self::KeyEpoch => "key epoch",
        })
    }
}

impl Kind {
    /// The field of a request that names one.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Network => "network",
            Self::Service => "service",
            Self::Endpoint => "endpoint",
            Self::KeyEpoch => "epoch",
        }
    }
}
