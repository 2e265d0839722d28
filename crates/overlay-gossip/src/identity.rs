//! Who a member is: node, incarnation, address.

use std::net::SocketAddr;

use overlay_types::{Incarnation, NodeId};

/// How many incarnations one start of a node may use: `start .. start + INCARNATIONS_PER_START`.
///
/// One is spent each time the node learns that it was declared dead. A start reserves them all at
/// once, so nothing is written while the node runs; at one false death a second they last 12 days.
pub const INCARNATIONS_PER_START: u64 = 1 << 20;

/// A member of the cluster as gossip knows it.
///
/// Of two identities of one node, that with the greater incarnation counts. A node starts with an
/// incarnation greater than all it ever had ([`crate::io::incarnation`]) and takes the next one when
/// it learns that it was declared dead, and when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Grows with each start, each return from a false death, and on leaving.
    pub incarnation: Incarnation,
    /// Where its gossip listens, UDP and TCP.
    pub address: SocketAddr,
    /// The node said that it goes.
    pub leaving: bool,
}

impl Identity {
    /// The identity of a node that starts with this incarnation.
    pub fn new(node: NodeId, incarnation: Incarnation, address: SocketAddr) -> Self {
        Self { node, incarnation, address, leaving: false }
    }

    /// Whether a node whose start had `start` as incarnation may call itself this.
    pub(crate) fn belongs_to_start(&self, node: NodeId, start: Incarnation) -> bool {
        let used = self.incarnation.get().checked_sub(start.get());
        self.node == node && used.is_some_and(|used| used < INCARNATIONS_PER_START)
    }

    /// The same node, announcing that it goes.
    pub(crate) fn departing(&self) -> Self {
        Self { incarnation: self.incarnation.next(), leaving: true, ..*self }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        // A node that leaves has asked to be declared down.
        (!self.leaving).then(|| Self { incarnation: self.incarnation.next(), ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // Equal incarnations that differ otherwise are two hosts with one identity; any rule that
        // all members share keeps them from disagreeing about which one to drop.
        (self.incarnation, self.leaving, self.address)
            > (adversary.incarnation, adversary.leaving, adversary.address)
    }
}

/// What is known about a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer someone, and has yet to object to that. Treated as alive.
    Suspect,
    /// It was declared dead.
    Dead,
    /// It said that it goes.
    Left,
}

impl MemberState {
    /// Whether the member takes part: alive or only suspected.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }

    pub(crate) fn of(member: &foca::Member<Identity>) -> Self {
        match member.state() {
            _ if member.id().leaving => Self::Left,
            foca::State::Alive => Self::Alive,
            foca::State::Suspect => Self::Suspect,
            foca::State::Down => Self::Dead,
        }
    }
}
