//! The trait that every dataplane implements, and its vocabulary.
//!
//! ```text
//!  Desired ──┐
//!            ├─ diff ──► [Op] ──► apply ──► a result for each
//!  Observed ─┘                      │
//!     ▲─────────── observe ─────────┘
//! ```

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_crypto::esp::SaId;
use overlay_types::{EndpointId, NetworkId, NodeId, ServiceId};

use crate::{
    Error,
    desired::{Desired, LocalEndpoint, Network, RemoteEndpoint, Service, Settings},
    sa::Sa,
};

/// What a dataplane is found to be: all of it, read anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Networks that are there.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Association that each peer's frames are sealed with, and where they are sent.
    pub outbound: BTreeMap<NodeId, (SaId, IpAddr)>,
    /// Associations that are opened with, and where their packets must come from.
    pub inbound: BTreeMap<SaId, IpAddr>,
}

/// What a dataplane is found to be that is as desired: until others change it, it need not be read.
impl From<Desired> for Observed {
    fn from(desired: Desired) -> Self {
        let Desired { networks, sas } = desired;
        let inbound = sas.inbound.into_iter().map(|(id, sa)| (id, sa.address)).collect();
        let outbound =
            sas.outbound.into_iter().map(|(peer, sa)| (peer, (sa.id, sa.address))).collect();
        Self { networks, outbound, inbound }
    }
}

/// One small change. Applying it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Open with this association.
    AddInboundSa(Sa),
    /// Seal with this association for its peer, and with no other.
    SetOutboundSa {
        /// The association.
        sa: Sa,
        /// Send the peer one empty datagram with it, unless it is in use already.
        greet: bool,
    },
    /// Open with this association no more; its keys are erased.
    RemoveInboundSa(SaId),
    /// Seal for this peer no more; its keys are erased.
    RemoveOutboundSa(NodeId),
    /// Have a network with these settings.
    PutNetwork(NetworkId, Settings),
    /// Remove a network and all that is on it.
    RemoveNetwork(NetworkId),
    /// Accept frames of the network from these data-path addresses only.
    SetMembers(NetworkId, BTreeSet<IpAddr>),
    /// Plug in an endpoint of this node.
    PutLocal(NetworkId, EndpointId, LocalEndpoint),
    /// Unplug an endpoint of this node.
    RemoveLocal(NetworkId, EndpointId),
    /// Know an endpoint of another node.
    PutRemote(NetworkId, EndpointId, RemoteEndpoint),
    /// Forget an endpoint of another node.
    RemoveRemote(NetworkId, EndpointId),
    /// Translate a service's virtual addresses.
    PutService(NetworkId, ServiceId, Service),
    /// Translate them no more.
    RemoveService(NetworkId, ServiceId),
}

/// Something that carries overlay traffic and has no opinions.
pub trait Dataplane {
    /// Reads the whole state. An error means that nothing is known.
    fn observe(&mut self) -> Result<Observed, Error>;

    /// Makes changes, in order, and says of each whether it is made. A change that fails leaves
    /// what it concerns as it was and does not keep the next from being tried.
    fn apply(&mut self, ops: Vec<Op>) -> Vec<Result<(), Error>>;
}
