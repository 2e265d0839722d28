//! Key epochs of the data plane and the gossip ring.

use overlay_api::v1;
use serde::Serialize;

use super::{Names, Reference, joined, lines};
use crate::{output::Inspected, timestamp};

/// How far the keys are. No key is in it, public ones neither.
#[derive(Serialize, Debug)]
pub(crate) struct Keys {
    epochs: Vec<Epoch>,
    gossip: Gossip,
}

#[derive(Serialize, Debug)]
#[expect(clippy::struct_field_names, reason = "they are keys of the document")]
struct Epoch {
    epoch: u64,
    /// `preparing`, `ready`, `active` or `retired`.
    state: &'static str,
    deadline_unix_ms: u64,
    /// Nodes that have their receive associations.
    ready: Vec<Reference>,
    /// Nodes that published a key and do not have them yet.
    waiting: Vec<Reference>,
}

#[derive(Serialize, Debug)]
struct Gossip {
    current: u64,
    epochs: Vec<u64>,
    deadline_unix_ms: u64,
}

impl Keys {
    /// Nodes get their names from `names`.
    pub(crate) fn new(message: v1::GetKeyStatusResponse, names: &Names) -> Self {
        let nodes = |epoch: u64, ready: bool| {
            let keys = message.node_keys.iter();
            let mut nodes: Vec<_> = keys
                .filter(|key| key.epoch == epoch && key.ready == ready)
                .map(|key| names.of(&key.node))
                .collect();
            nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
            nodes
        };
        let epoch = |e: &v1::KeyEpoch| Epoch {
            epoch: e.epoch,
            state: match e.state() {
                v1::EpochState::Preparing => "preparing",
                v1::EpochState::Ready => "ready",
                v1::EpochState::Active => "active",
                v1::EpochState::Retired => "retired",
                v1::EpochState::Unspecified => "unknown",
            },
            deadline_unix_ms: e.deadline,
            ready: nodes(e.epoch, true),
            waiting: nodes(e.epoch, false),
        };
        let mut epochs: Vec<Epoch> = message.epochs.iter().map(epoch).collect();
        epochs.sort_by_key(|e| e.epoch);
        let mut gossip_epochs = message.gossip_epochs.clone();
        gossip_epochs.sort_unstable();
        Self {
            epochs,
            gossip: Gossip {
                current: message.gossip_current,
                epochs: gossip_epochs,
                deadline_unix_ms: message.gossip_deadline,
            },
        }
    }
}

impl Inspected for Keys {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let epoch = |e: &Epoch| {
            let waiting = match e.waiting.as_slice() {
                [] => String::new(),
                nodes => format!(", waiting for {}", joined(nodes, ", ")),
            };
            let until = timestamp::utc(e.deadline_unix_ms);
            let nodes = e.ready.len() + e.waiting.len();
            format!(
                "{} {}, until {until}, {} of {nodes} nodes ready{waiting}",
                e.epoch,
                e.state,
                e.ready.len()
            )
        };
        let until = timestamp::utc(self.gossip.deadline_unix_ms);
        vec![
            ("Epochs", lines(self.epochs.iter().map(epoch))),
            ("Gossip key", format!("{}, until {until}", self.gossip.current)),
            ("Gossip ring", joined(&self.gossip.epochs, ", ")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_by_epoch_and_state() {
        let key = |node: &str, epoch, ready| v1::NodeKey {
            node: node.into(),
            epoch,
            ready,
            public: vec![7; 32],
            ..v1::NodeKey::default()
        };
        let epoch = |epoch, state: v1::EpochState| v1::KeyEpoch {
            epoch,
            state: state.into(),
            deadline: 1_795_478_400_000,
            ..v1::KeyEpoch::default()
        };
        let message = v1::GetKeyStatusResponse {
            epochs: vec![epoch(4, v1::EpochState::Preparing), epoch(3, v1::EpochState::Active)],
            node_keys: vec![
                key("b", 4, false),
                key("a", 4, true),
                key("a", 3, true),
                key("b", 3, true),
            ],
            gossip_current: 7,
            gossip_epochs: vec![8, 6, 7],
            gossip_deadline: 1_795_478_400_000,
        };
        let node = v1::Node { id: "b".into(), name: "two".into(), ..v1::Node::default() };
        let keys = Keys::new(message, &Names::default().with_nodes([&node].into_iter()));
        let epochs = "3 active, until 2026-11-24 00:00:00 UTC, 2 of 2 nodes ready\n\
                      4 preparing, until 2026-11-24 00:00:00 UTC, 1 of 2 nodes ready, \
                      waiting for two";
        assert_eq!(keys.fields()[0], ("Epochs", epochs.to_owned()));
        assert_eq!(keys.fields()[2], ("Gossip ring", "6, 7, 8".to_owned()));
    }
}
