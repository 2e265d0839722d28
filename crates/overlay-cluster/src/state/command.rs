//! What can be written.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::collections::BTreeSet;

use overlay_types::{
    Capabilities, Cluster, Encapsulation, EndpointId, EndpointSpec, Epoch, EpochState,
    FeatureLevel, GossipKey, HostReport, NetworkId, NetworkSpec, Node, NodeId, Readiness,
    RequestId, Revision, Role, Root, RootId, Scale, ServiceId, ServiceSpec, Subnet, UnixMillis,
};
use serde::{Deserialize, Serialize};

use super::{OpaqueSecret, Successor, Trust, Wanted};

/// Host routes of one command. A host with a full routing table sends the aggregates.
pub const MAX_HOST_ROUTES: usize = 16_384;

/// A write. Whatever replicas could disagree about travels inside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Command {
    /// The write as its caller sees it: a repeated one is applied once (C12).
    pub request: RequestId,
    /// When it was proposed, by the clock of the leader.
    pub at: UnixMillis,
    /// What is to be done.
    pub action: Action,
}

/// What a [`Command`] does. Ids of new objects are drawn by whoever proposes it.
///
/// `based_on` is the `changed_at` of the object that an update was made from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Makes the cluster, its first node and the ingress network (N04).
    InitCluster(Box<InitCluster>),
    /// Adds a node; a node that comes back replaces what was known of it.
    JoinNode(Node),
    /// Changes a node.
    UpdateNode {
        /// The node as it shall be.
        node: Node,
        /// Revision of the node that the update was made from.
        based_on: Revision,
    },
    /// Says where a node is from now on.
    MoveNode(MoveNode),
    /// Removes a worker with its endpoints and public keys.
    RemoveNode(NodeId),
    /// Creates a network.
    CreateNetwork {
        /// Its id.
        id: NetworkId,
        /// What was asked for.
        spec: NetworkSpec,
        /// What the caller's host routes; no subnet may overlap it (N02).
        host_routes: Vec<Subnet>,
    },
    /// Changes labels and adds subnets, nothing else (N11).
    UpdateNetwork {
        /// The network.
        id: NetworkId,
        /// Revision of the network that the update was made from.
        based_on: Revision,
        /// The whole spec as it shall be.
        spec: NetworkSpec,
        /// What the caller's host routes.
        host_routes: Vec<Subnet>,
    },
    /// Removes a network that nothing uses (N13).
    RemoveNetwork(Wanted),
    /// Creates a service.
    CreateService {
        /// Its id.
        id: ServiceId,
        /// What was asked for.
        spec: ServiceSpec,
    },
    /// Changes everything of a service but its name.
    UpdateService {
        /// The service.
        id: ServiceId,
        /// Revision of the service that the update was made from.
        based_on: Revision,
        /// The whole spec as it shall be.
        spec: ServiceSpec,
    },
    /// Removes a service without tasks.
    ///
    /// Docker stops the tasks. Nothing here could: their owner detaches them first, and until then
    /// the removal is refused and names them.
    RemoveService(Wanted),
    /// Attaches an endpoint and gives it addresses.
    AttachEndpoint {
        /// Its id.
        id: EndpointId,
        /// What was asked for.
        spec: EndpointSpec,
    },
    /// Detaches an endpoint and takes its addresses back.
    DetachEndpoint(EndpointId),
    /// An endpoint takes new flows or not, as its owner says.
    SetReadiness {
        /// The endpoint.
        id: EndpointId,
        /// Anything but failing.
        to: Readiness,
    },
    /// Endpoints of a node are ready or failing, as their probes say.
    ReportHealth(HealthReport),
    /// Publishes a node's public key for an epoch, also a new one after a restart.
    PublishNodeKey {
        /// The node.
        node: NodeId,
        /// The epoch.
        epoch: Epoch,
        /// The X25519 public key.
        public: [u8; 32],
    },
    /// A node has its receive associations of an epoch.
    ReportEpochReady {
        /// The node.
        node: NodeId,
        /// The epoch.
        epoch: Epoch,
        /// The X25519 public key that it has them for.
        public: [u8; 32],
    },
    /// Starts the next key epoch.
    StartRotation {
        /// Its number: one more than the last.
        epoch: Epoch,
        /// When the leader stops waiting for keys.
        deadline: UnixMillis,
    },
    /// Moves an epoch one step: to ready, or to active, which retires the one before.
    AdvanceEpoch {
        /// The epoch.
        epoch: Epoch,
        /// The state after the step.
        to: EpochState,
        /// When that state ends.
        deadline: UnixMillis,
        /// With `to` active: until when the epoch before is drained.
        drained: UnixMillis,
    },
    /// Deletes a retired epoch and its public keys.
    RemoveEpoch(Epoch),
    /// Adds the next key to the gossip ring.
    RotateGossipKey {
        /// The key; its epoch is one more than the last.
        key: GossipKey,
        /// When it becomes the current one.
        deadline: UnixMillis,
    },
    /// Makes the next gossip key the current one and drops the one before the previous.
    AdvanceGossipKey {
        /// The next key.
        to: Epoch,
        /// When the rotation after this one is due.
        deadline: UnixMillis,
    },
    /// Replaces a join secret; the one before admits nobody any more.
    RotateJoinSecret {
        /// What it admits as.
        role: Role,
        /// The new one, 16 bytes.
        secret: OpaqueSecret,
    },
    /// Changes what holds for the whole cluster.
    UpdateCluster(ClusterUpdate),
    /// Replaces the unlock key, 32 bytes.
    RotateUnlockKey(OpaqueSecret),
    /// A node tells what its release knows.
    AnnounceLevel {
        /// The node.
        node: NodeId,
        /// Its level.
        level: FeatureLevel,
    },
    /// A node tells what it can do and what its host has.
    AnnounceCapabilities {
        /// The node.
        node: NodeId,
        /// What it can do. The level is [`AnnounceLevel`](Self::AnnounceLevel)'s, and passed over.
        capabilities: Capabilities,
        /// What its host has.
        host: Box<HostReport>,
    },
    /// Begins to replace the root of the CA, again if that is under way (C04).
    RotateRoot {
        /// The oldest root, which certified the new one.
        replaces: RootId,
        /// The new root, cross-certified.
        root: Root,
        /// What managers sign with from now on.
        successor: Successor,
    },
    /// A node was seen to use a certificate of this root.
    NoteCertificate {
        /// The node.
        node: NodeId,
        /// The root.
        root: RootId,
    },
    /// Ends a root rotation: this root, of which every node has a certificate, becomes the only one.
    FinishRootRotation(RootId),
}

impl Action {
    /// The feature level that brought the action, or the newest of the fields that it uses: nodes
    /// of a lower one would not understand it, or not all of it.
    pub fn level(&self) -> FeatureLevel {
        match self {
            Self::SetReadiness { .. }
            | Self::ReportHealth(_)
            | Self::AnnounceCapabilities { .. } => FeatureLevel::SECOND,
            Self::AttachEndpoint { spec, .. }
                if (spec.role, spec.readiness) != Default::default() || spec.health.is_some() =>
            {
                FeatureLevel::SECOND
            }
            Self::CreateService { spec, .. } | Self::UpdateService { spec, .. }
                if spec.prefer_local || spec.scale != Scale::Open =>
            {
                FeatureLevel::SECOND
            }
            Self::InitCluster(init) if init.cluster.esp == Encapsulation::None => {
                FeatureLevel::SECOND
            }
            // The ways out of a level that is too low.
            Self::JoinNode(_) | Self::RemoveNode(_) | Self::AnnounceLevel { .. } => {
                FeatureLevel::NONE
            }
            Self::UpdateNode { node, .. } if node.host.is_some() => FeatureLevel::SECOND,
            _ => FeatureLevel::FIRST,
        }
    }
}

/// What probes of a node's endpoints say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthReport {
    /// The node.
    pub node: NodeId,
    /// Endpoints whose probes succeed.
    pub passing: BTreeSet<EndpointId>,
    /// Endpoints whose probes fail.
    pub failing: BTreeSet<EndpointId>,
}

impl HealthReport {
    /// Most endpoints of one report; a node with more sends several.
    pub const MAX_ENDPOINTS: usize = 1024;
}

/// What is to hold for the whole cluster; `None`: as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterUpdate {
    /// Managers keep their data keys under this unlock key, 32 bytes, or under none.
    pub autolock: Option<Option<OpaqueSecret>>,
    /// Time from one generation of keys to the next, at least a second.
    pub rotation_period: Option<Duration>,
}

/// Where a node is from now on: what [`Node`] says of the same names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MoveNode {
    /// The node.
    pub node: NodeId,
    /// Where its management API answers.
    pub control: SocketAddr,
    /// Where its gossip answers.
    pub gossip: SocketAddr,
    /// Address of its data path.
    pub data_path: IpAddr,
    /// Nodes that are not at these addresses, whatever the state says: gossip knows them elsewhere,
    /// or dead. They lose the addresses, and say themselves where they are when they are back.
    pub vacated: BTreeSet<NodeId>,
}

/// What a cluster starts with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InitCluster {
    /// The cluster. Without default pools it gets 10.0.0.0/8 in /24.
    pub cluster: Cluster,
    /// Its CA and join secrets.
    pub trust: Trust,
    /// The unlock key, 32 bytes, if managers shall start locked.
    pub unlock_key: Option<OpaqueSecret>,
    /// The first manager.
    pub node: Node,
    /// The first gossip key.
    pub gossip_key: GossipKey,
    /// Id of the network `ingress`.
    pub ingress: NetworkId,
    /// What the first manager's host routes.
    pub host_routes: Vec<Subnet>,
}
