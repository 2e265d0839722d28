//! What an accepted command answers.

use overlay_types::{Change, Cluster, Endpoint, KeyEpoch, Network, Node, NodeKey, Service};
use serde::{Deserialize, Serialize};

use super::Action;

/// The answer to an accepted command. Remembered for a while, for those who repeat the request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// Something was removed, or a node reported.
    Done,
    /// The cluster as it is now.
    Cluster(Cluster),
    /// The node as it is now.
    Node(Node),
    /// The network as it is now.
    Network(Network),
    /// The service as it is now.
    Service(Service),
    /// The endpoint as it is now.
    Endpoint(Endpoint),
    /// The epoch as it is now.
    Epoch(KeyEpoch),
    /// The node's key as it is now.
    NodeKey(NodeKey),
    /// The gossip ring was changed. The ring itself is secret, and not kept here.
    GossipKeys,
}

impl Response {
    /// Whether this can be the answer to `action`.
    pub(super) const fn answers(&self, action: &Action) -> bool {
        matches!(
            (self, action),
            (
                Self::Cluster(_),
                Action::InitCluster(_)
                    | Action::RotateJoinSecret { .. }
                    | Action::UpdateCluster(_)
                    | Action::RotateUnlockKey(_)
                    | Action::RotateRoot { .. }
                    | Action::FinishRootRotation(_)
            ) | (
                Self::Node(_),
                Action::JoinNode(_)
                    | Action::UpdateNode { .. }
                    | Action::AnnounceLevel { .. }
                    | Action::MoveNode(_)
                    | Action::NoteCertificate { .. }
            ) | (Self::Network(_), Action::CreateNetwork { .. } | Action::UpdateNetwork { .. })
                | (Self::Service(_), Action::CreateService { .. } | Action::UpdateService { .. })
                | (Self::Endpoint(_), Action::AttachEndpoint { .. } | Action::SetReadiness { .. })
                | (
                    Self::NodeKey(_),
                    Action::PublishNodeKey { .. } | Action::ReportEpochReady { .. }
                )
                | (Self::Epoch(_), Action::StartRotation { .. } | Action::AdvanceEpoch { .. })
                | (
                    Self::GossipKeys,
                    Action::RotateGossipKey { .. } | Action::AdvanceGossipKey { .. }
                )
                | (
                    Self::Done,
                    Action::RemoveNode(_)
                        | Action::RemoveNetwork(_)
                        | Action::RemoveService(_)
                        | Action::DetachEndpoint(_)
                        | Action::ReportHealth(_)
                        | Action::AnnounceCapabilities { .. }
                        | Action::RemoveEpoch(_)
                )
        )
    }
}

/// What an accepted command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The answer to its caller.
    pub response: Response,
    /// What it changed, in order. Empty: nothing, and the revision is as before.
    pub changes: Vec<Change>,
}
