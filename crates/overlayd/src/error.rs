//! What a node cannot do.

use std::{io, net::IpAddr, path::PathBuf};

use overlay_api::status::{Reason, invalid_field, refused, with_reason};
use overlay_cluster::{
    backup::BackupError,
    ca::{CaError, join::AskError},
    control::ControlError,
};
use tonic::Status;

/// A node cannot start, join or attach. What was changed on the way is undone, unless the message
/// says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No address was given and the host does not have just one.
    #[error(
        "which address do other nodes reach this host at? set --advertise-addr to one of: {}",
        list(candidates)
    )]
    NoAdvertiseAddress {
        /// Addresses of this host.
        candidates: Vec<IpAddr>,
    },
    /// The configuration contradicts itself or cannot be read.
    #[error("configuration: {0}")]
    Config(String),
    /// The node is to run the kernel dataplane, and this host has not all that it needs.
    #[error(
        "dataplane kernel: this host lacks {}; or start with --dataplane user", missing.join("; ")
    )]
    NoKernelDataplane {
        /// What is missing, and how to get it.
        missing: Vec<String>,
    },
    /// A file of the data directory cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the data directory is damaged.
    #[error("{} is damaged ({reason}); {hint}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The node's certificate is not valid at this time.
    #[error(
        "{}: {error}; if this host's clock is right, move the data directory away, have a manager \
         remove the node, and join again as a new one", path.display()
    )]
    Outdated {
        /// The file.
        path: PathBuf,
        /// What is wrong with its dates.
        error: CaError,
    },
    /// The data directory holds what a node of some cluster left.
    #[error(
        "{} is there already: this host was a node before, or an init was cut short; move the \
         data directory away to begin anew", path.display()
    )]
    Occupied {
        /// What is there.
        path: PathBuf,
    },
    /// What the node keeps is sealed with the unlock key.
    #[error("this manager is locked; open it with the cluster's unlock key: overlayctl unlock")]
    Locked,
    /// The node has nothing to unlock.
    #[error("this node is not locked")]
    NotLocked,
    /// Another key locked this node.
    #[error(
        "this is not the key that locks this manager; if the unlock key was rotated since it ran \
         last, the one before opens it"
    )]
    WrongUnlockKey,
    /// A port is in use, or the address is not this host's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address, or path of the socket.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The node is in a cluster already.
    #[error("this node is in cluster {0} already")]
    InCluster(overlay_types::ClusterId),
    /// The node is in no cluster.
    #[error("this node is in no cluster; run init or join first")]
    NoCluster,
    /// None of the managers that were named let this node in.
    #[error("no manager let this node join: {0}")]
    Join(String),
    /// Certificates or tokens.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The control plane of this manager.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Gossip.
    #[error(transparent)]
    Gossip(#[from] overlay_gossip::GossipError),
    /// The dataplane.
    #[error(transparent)]
    Dataplane(#[from] overlay_dataplane::Error),
    /// A manager refused, or none answered.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// An endpoint got its addresses but no port, and could not be detached again either.
    #[error("endpoint not plugged in: {reason}; detach {endpoint} yourself, because {error}")]
    StillAttached {
        /// The endpoint.
        endpoint: overlay_types::EndpointId,
        /// Why it has no port.
        reason: String,
        /// Why it is still attached.
        error: String,
    },
    /// An endpoint got its addresses but no port; it was detached again.
    #[error("endpoint not plugged in: {0}; it was detached again")]
    Port(String),
    /// An endpoint that was attached before got no port; it is still attached.
    #[error("endpoint not plugged in: {0}")]
    Unplugged(String),
}

impl From<AskError> for NodeError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(error) => Self::Ca(error),
            AskError::Undecided(reasons) => Self::Join(reasons),
        }
    }
}

impl From<Status> for NodeError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        let message = error.to_string();
        match error {
            NodeError::Refused(status) => *status,
            NodeError::Ca(error @ CaError::Token(_)) => error.into(),
            NodeError::Ca(
                CaError::RotatedOut | CaError::FormerRoot | CaError::OtherRoot { .. },
            ) => refused(Reason::JoinRefused, "token", message),
            NodeError::InCluster(_) => with_reason(Reason::NodeInCluster, message),
            NodeError::NoCluster | NodeError::Backup(BackupError::NoCluster) => {
                with_reason(Reason::NoCluster, message)
            }
            NodeError::Occupied { .. } => with_reason(Reason::NodeOccupied, message),
            NodeError::NoAdvertiseAddress { .. } => invalid_field("advertise-addr", message),
            NodeError::Config(_) | NodeError::Ca(_) => {
                with_reason(Reason::InvalidArgument, message)
            }
            NodeError::Locked => with_reason(Reason::Locked, message),
            NodeError::NotLocked => with_reason(Reason::NotLocked, message),
            NodeError::WrongUnlockKey => invalid_field("unlock_key", message),
            NodeError::Backup(error) => invalid_field(error.field(), message),
            NodeError::Join(_) => with_reason(Reason::NoManager, message),
            NodeError::Port(_) | NodeError::Unplugged(_) => {
                with_reason(Reason::NotPluggedIn, message)
            }
            _ => Self::internal(message),
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
