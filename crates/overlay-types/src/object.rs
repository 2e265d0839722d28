//! Replicated objects, as every node sees them.

mod cluster;
mod endpoint;
mod gossip_key;
mod key;
mod meta;
mod network;
mod node;
mod root;
mod service;
mod time;

use serde::{Deserialize, Serialize};

pub use self::{
    cluster::{Cluster, DefaultPool, Encapsulation},
    endpoint::{Endpoint, EndpointExtras, EndpointRole, Readiness},
    gossip_key::{GossipKey, GossipKeys},
    key::{EpochState, KeyEpoch, NodeKey},
    meta::Meta,
    network::{Network, NetworkSubnet},
    node::{Availability, Capabilities, DataplaneKind, HostReport, Node, Role},
    root::Root,
    service::Service,
    time::UnixMillis,
};
use crate::{EndpointId, Epoch, NetworkId, NodeId, ServiceId};

/// Any replicated object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Object {
    /// The cluster itself.
    Cluster(Cluster),
    /// A node.
    Node(Node),
    /// A network.
    Network(Network),
    /// A service.
    Service(Service),
    /// An endpoint.
    Endpoint(Endpoint),
    /// A key epoch.
    KeyEpoch(KeyEpoch),
    /// A node's public key.
    NodeKey(NodeKey),
    /// The gossip ring.
    GossipKeys(GossipKeys),
}

/// Names one replicated object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ObjectKey {
    /// The cluster itself.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A key epoch.
    KeyEpoch(Epoch),
    /// A node's public key for an epoch.
    NodeKey(Epoch, NodeId),
    /// The gossip ring.
    GossipKeys,
}

impl Object {
    /// What names this object.
    pub const fn key(&self) -> ObjectKey {
        match self {
            Self::Cluster(_) => ObjectKey::Cluster,
            Self::Node(o) => ObjectKey::Node(o.id),
            Self::Network(o) => ObjectKey::Network(o.id),
            Self::Service(o) => ObjectKey::Service(o.id),
            Self::Endpoint(o) => ObjectKey::Endpoint(o.id),
            Self::KeyEpoch(o) => ObjectKey::KeyEpoch(o.epoch),
            Self::NodeKey(o) => ObjectKey::NodeKey(o.epoch, o.node),
            Self::GossipKeys(_) => ObjectKey::GossipKeys,
        }
    }
}

/// One step from a state to the next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// The object now is so; it may be new.
    Put(Object),
    /// The object is gone.
    Delete(ObjectKey),
}

impl Change {
    /// What names the object that is another one now.
    pub const fn key(&self) -> ObjectKey {
        match self {
            Self::Put(object) => object.key(),
            Self::Delete(key) => *key,
        }
    }
}
