//! What the state machine asks for.

use std::time::Instant;

use overlay_types::{Epoch, NodeId};

use crate::{
    agreement::PublicKey,
    esp::{SaId, SaKeys},
};

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Receive with these keys from now on, besides all others.
    InstallInbound {
        /// Which association.
        id: SaId,
        /// Its keys.
        keys: SaKeys,
    },
    /// Send to the peer with these keys from now on, and with no others. Keys are handed out once,
    /// so whoever seals with them may count from 1.
    UseForSending {
        /// Which association.
        id: SaId,
        /// Its keys.
        keys: SaKeys,
        /// Send one empty datagram with it: the peer came late, and learns by it that it is understood.
        greet: bool,
    },
    /// There are no keys for the peer any more: send it nothing.
    StopSending {
        /// The peer.
        peer: NodeId,
    },
    /// Receive with this association no more, and erase its keys.
    Remove(SaId),
    /// All secrets of the epoch are gone.
    Erased(Epoch),
    /// Have the managers replicate this node's public key. Repeated until they have.
    Publish {
        /// The epoch.
        epoch: Epoch,
        /// The public half.
        public: PublicKey,
    },
    /// Tell the managers that this node can receive with its key. Repeated until the state shows it.
    /// The key is named, because a report can outlive the process that had its secret half.
    ReportReady {
        /// The epoch.
        epoch: Epoch,
        /// The public half.
        public: PublicKey,
    },
    /// A key of this active epoch has carried enough: ask the managers for the next epoch.
    RequestRotation(Epoch),
    /// Nothing more to do until something is handled or this time has come.
    Wait(Option<Instant>),
}
