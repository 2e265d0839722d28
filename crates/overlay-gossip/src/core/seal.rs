//! The gossip key ring's answers as reasons of this crate.

use overlay_crypto::keyring::{GossipKeyRing, UnsealError};
use overlay_types::{Incarnation, NodeId};

use crate::counters::DropReason;

/// Who sealed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) node: NodeId,
    /// The incarnation with which the node started.
    pub(super) incarnation: Incarnation,
}

/// Opens what another node sealed.
pub(super) fn open(
    ring: &mut GossipKeyRing,
    sealed: &[u8],
) -> Result<(Sender, Vec<u8>), DropReason> {
    let mut bytes = sealed.to_vec();
    let unsealed = ring.open(&mut bytes).map_err(|error| match error {
        UnsealError::Length => DropReason::Truncated,
        UnsealError::UnknownVersion => DropReason::UnknownVersion,
        UnsealError::UnknownKey(_) => DropReason::UnknownEpoch,
        UnsealError::BadTag => DropReason::Unauthentic,
        UnsealError::Replayed => DropReason::Replayed,
        UnsealError::StaleIncarnation => DropReason::StaleIncarnation,
        UnsealError::Reflected => DropReason::FromSelf,
        UnsealError::SenderTableFull => DropReason::SenderTableFull,
    })?;
    let sender = Sender { node: unsealed.sender, incarnation: unsealed.incarnation };
    bytes.truncate(unsealed.message.end);
    bytes.drain(..unsealed.message.start);
    Ok((sender, bytes))
}
