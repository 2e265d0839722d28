//! Key epochs, node keys and the gossip ring.

use overlay_types::{
    Epoch, EpochState, GossipKey, GossipKeys, KeyEpoch, NodeKey, SpecError, UnixMillis,
};

use super::{meta, parse};
use crate::v1;

impl From<EpochState> for v1::EpochState {
    fn from(state: EpochState) -> Self {
        match state {
            EpochState::Preparing => Self::Preparing,
            EpochState::Ready => Self::Ready,
            EpochState::Active => Self::Active,
            EpochState::Retired => Self::Retired,
        }
    }
}

impl TryFrom<v1::EpochState> for EpochState {
    type Error = SpecError;

    fn try_from(message: v1::EpochState) -> Result<Self, SpecError> {
        match message {
            v1::EpochState::Preparing => Ok(Self::Preparing),
            v1::EpochState::Ready => Ok(Self::Ready),
            v1::EpochState::Active => Ok(Self::Active),
            v1::EpochState::Retired => Ok(Self::Retired),
            v1::EpochState::Unspecified => {
                Err(SpecError::new("key_epoch.state", "", "the state is not known here"))
            }
        }
    }
}

impl From<&KeyEpoch> for v1::KeyEpoch {
    fn from(epoch: &KeyEpoch) -> Self {
        Self {
            epoch: epoch.epoch.get(),
            meta: Some(epoch.meta.into()),
            state: v1::EpochState::from(epoch.state).into(),
            deadline: epoch.deadline.0,
        }
    }
}

impl TryFrom<v1::KeyEpoch> for KeyEpoch {
    type Error = SpecError;

    fn try_from(message: v1::KeyEpoch) -> Result<Self, SpecError> {
        Ok(Self {
            epoch: Epoch::new(message.epoch),
            state: message.state().try_into()?,
            meta: meta(message.meta),
            deadline: UnixMillis(message.deadline),
        })
    }
}

/// 32 bytes; the value itself is not repeated in the error, it may be secret.
pub fn bytes32(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], SpecError> {
    bytes.try_into().map_err(|_| {
        SpecError::new(field, format!("({} bytes)", bytes.len()), "a key has 32 bytes")
    })
}

impl From<&NodeKey> for v1::NodeKey {
    fn from(key: &NodeKey) -> Self {
        Self {
            node: key.node.to_string(),
            epoch: key.epoch.get(),
            meta: Some(key.meta.into()),
            public: key.public.to_vec(),
            ready: key.ready,
        }
    }
}

impl TryFrom<v1::NodeKey> for NodeKey {
    type Error = SpecError;

    fn try_from(message: v1::NodeKey) -> Result<Self, SpecError> {
        Ok(Self {
            node: parse("node_key.node", &message.node)?,
            epoch: Epoch::new(message.epoch),
            meta: meta(message.meta),
            public: bytes32("node_key.public", &message.public)?,
            ready: message.ready,
        })
    }
}

impl From<&GossipKeys> for v1::GossipKeys {
    fn from(keys: &GossipKeys) -> Self {
        let key = |k: &GossipKey| v1::GossipKey { epoch: k.epoch.get(), key: k.key.to_vec() };
        Self {
            meta: Some(keys.meta.into()),
            current: keys.current.get(),
            keys: keys.keys.iter().map(key).collect(),
            deadline: keys.deadline.0,
        }
    }
}

impl TryFrom<v1::GossipKeys> for GossipKeys {
    type Error = SpecError;

    fn try_from(message: v1::GossipKeys) -> Result<Self, SpecError> {
        let key = |k: &v1::GossipKey| {
            let key = bytes32("gossip_keys.key", &k.key)?;
            Ok(GossipKey { epoch: Epoch::new(k.epoch), key })
        };
        Ok(Self {
            meta: meta(message.meta),
            current: Epoch::new(message.current),
            keys: message.keys.iter().map(key).collect::<Result<_, SpecError>>()?,
            deadline: UnixMillis(message.deadline),
        })
    }
}
