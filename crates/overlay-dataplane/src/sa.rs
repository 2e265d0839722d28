//! Security associations that a dataplane shall have.

use core::{net::IpAddr, ops::AddAssign};
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

/// What the associations with one peer have carried and refused since the first of them was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerTraffic {
    /// Authentic packets from the peer.
    pub packets_in: u64,
    /// Octets of their payloads. The kernel counts headers, too.
    pub bytes_in: u64,
    /// Packets that were sealed for the peer.
    pub packets_out: u64,
    /// Octets of their payloads. The kernel counts headers, too.
    pub bytes_out: u64,
    /// Packets with a number that was seen, or is too old to tell.
    pub replays: u64,
    /// Packets with a wrong tag.
    pub bad_tags: u64,
    /// Packets from the peer's address with an SPI that no association has. The kernel does not tell
    /// where these come from.
    pub unknown_spis: u64,
}

impl AddAssign for PeerTraffic {
    fn add_assign(&mut self, other: Self) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.replays += other.replays;
        self.bad_tags += other.bad_tags;
        self.unknown_spis += other.unknown_spis;
    }
}
