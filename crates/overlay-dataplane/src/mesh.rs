//! What parts of the routing mesh have in common: the kernel's and the one in user space.

use core::fmt;

use overlay_types::{EndpointId, PortSpec, PublishMode, ServiceId};

use crate::{Error, desired::MeshPort, kernel::nft::publish::HostPort};

/// How answers find back to the gate that the question came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IngressMode {
    /// Tasks see clients' own addresses; their namespaces know the way back.
    #[default]
    Transparent,
    /// Tasks see the gate's address, as with Docker: for tasks whose namespaces cannot be changed, or
    /// whose kernels lack what it takes (before Linux 5.16).
    Snat,
}

/// Whom something is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concerned {
    /// All published ports of this node.
    Everybody,
    /// A service that publishes ports.
    Service(ServiceId),
    /// A task on this node.
    Task(EndpointId),
}

/// For logs.
impl fmt::Display for Concerned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("all published ports"),
            Self::Service(id) => write!(f, "service {id}"),
            Self::Task(id) => write!(f, "task {id}"),
        }
    }
}

/// What one comparison came to.
#[derive(Debug, Default)]
pub struct MeshOutcome {
    /// What was changed, for a log.
    pub changes: Vec<String>,
    /// What failed, and for whom. It is tried again the next time.
    pub refused: Vec<(Concerned, Error)>,
}

impl MeshOutcome {
    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.changes.extend(other.changes);
        self.refused.extend(other.refused);
        self
    }
}

/// The port as users know it.
pub(crate) fn spec(port: &MeshPort) -> Option<PortSpec> {
    Some(PortSpec {
        protocol: port.protocol,
        target: port.target.try_into().ok()?,
        published: Some(port.published.try_into().ok()?),
        mode: PublishMode::Ingress,
        host_ip: port.bind,
    })
}

impl From<&MeshPort> for HostPort {
    fn from(port: &MeshPort) -> Self {
        Self { protocol: port.protocol, address: port.bind, port: port.published }
    }
}
