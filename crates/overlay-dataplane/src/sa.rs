//! Security associations that a dataplane shall have.

use core::net::IpAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use overlay_crypto::esp::{SaId, SaKeys};
use overlay_types::NodeId;

/// An association with another node, in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sa {
    /// Which one: peer, epoch, SPI.
    pub id: SaId,
    /// Data-path address of the peer.
    pub address: IpAddr,
    /// Its keys. Erased when the last clone is dropped.
    pub keys: Arc<SaKeys>,
}

/// The associations of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SaSet {
    /// What is sealed with: one per peer.
    pub outbound: BTreeMap<NodeId, Sa>,
    /// What is opened with: one per peer and epoch that may still be in use.
    pub inbound: BTreeMap<SaId, Sa>,
    /// Peers that are greeted when their outbound association is set: one empty datagram tells them
    /// that they are understood with its epoch, although nobody has a frame for them.
    pub greet: BTreeSet<NodeId>,
}
