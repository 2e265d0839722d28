//! Key epochs of the data plane and the gossip ring.

use std::fmt::Write;

use overlay_api::v1;
use serde::Serialize;

use super::{Names, Reference, joined, lines};
use crate::{output::Inspected, timestamp};

/// How far the keys are. No key is in it, public ones neither.
#[derive(Serialize, Debug)]
pub(crate) struct Keys {
    epochs: Vec<Epoch>,
    /// `None`: no epoch is active yet.
    active_since_unix_ms: Option<u64>,
    gossip: Gossip,
    /// What this node's keys with each peer are used for.
    peers: Vec<Peer>,
}

/// Figures begin when there is a first key of the peer.
#[derive(Serialize, Debug)]
struct Peer {
    node: Reference,
    /// Epoch that it is sent to with; `None`: it is sent nothing.
    sending_epoch: Option<u64>,
    receiving_epochs: Vec<u64>,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    replays: u64,
    bad_tags: u64,
    unknown_spis: u64,
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
    pub(crate) fn new(
        message: v1::GetKeyStatusResponse,
        peers: Vec<v1::PeerKeys>,
        names: &Names,
    ) -> Self {
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
        let mut peers: Vec<Peer> = peers.into_iter().map(|peer| Peer::new(peer, names)).collect();
        peers.sort_by(|a, b| (&a.node.name, &a.node.id).cmp(&(&b.node.name, &b.node.id)));
        Self {
            epochs,
            active_since_unix_ms: Some(message.active_since).filter(|since| *since > 0),
            peers,
            gossip: Gossip {
                current: message.gossip_current,
                epochs: gossip_epochs,
                deadline_unix_ms: message.gossip_deadline,
            },
        }
    }
}

impl Peer {
    fn new(peer: v1::PeerKeys, names: &Names) -> Self {
        Self {
            node: names.of(&peer.node),
            sending_epoch: Some(peer.sending_epoch).filter(|epoch| *epoch > 0),
            receiving_epochs: peer.receiving_epochs,
            packets_in: peer.packets_in,
            bytes_in: peer.bytes_in,
            packets_out: peer.packets_out,
            bytes_out: peer.bytes_out,
            replays: peer.replays,
            bad_tags: peer.bad_tags,
            unknown_spis: peer.unknown_spis,
        }
    }

    fn line(&self) -> String {
        let sends = match self.sending_epoch {
            None => "sends nothing".to_owned(),
            Some(epoch) => format!("sends with {epoch}"),
        };
        let opens = joined(&self.receiving_epochs, ", ");
        let Self { packets_in, bytes_in, packets_out, bytes_out, .. } = self;
        let mut line = format!(
            "{}: {sends}, opens {opens}; in {packets_in} packets ({bytes_in} bytes), \
             out {packets_out} ({bytes_out})",
            self.node
        );
        let refused = [
            (self.replays, "replays"),
            (self.bad_tags, "wrong tags"),
            (self.unknown_spis, "unknown SPIs"),
        ];
        for (count, what) in refused.iter().filter(|(count, _)| *count > 0) {
            let _ = write!(line, ", {count} {what}");
        }
        line
    }
}

impl Inspected for Keys {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let since = self.active_since_unix_ms.map(timestamp::utc).unwrap_or_default();
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
            ("Active since", since),
            ("Gossip key", format!("{}, until {until}", self.gossip.current)),
            ("Gossip ring", joined(&self.gossip.epochs, ", ")),
            ("Peers of this node", lines(self.peers.iter().map(Peer::line))),
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
            active_since: 1_795_435_200_000,
        };
        let peer = v1::PeerKeys {
            node: "b".into(),
            sending_epoch: 3,
            receiving_epochs: vec![3, 4],
            packets_in: 12,
            bytes_in: 3456,
            bad_tags: 1,
            ..v1::PeerKeys::default()
        };
        let node = v1::Node { id: "b".into(), name: "two".into(), ..v1::Node::default() };
        let keys =
            Keys::new(message, vec![peer], &Names::default().with_nodes([&node].into_iter()));
        let epochs = "3 active, until 2026-11-24 00:00:00 UTC, 2 of 2 nodes ready\n\
                      4 preparing, until 2026-11-24 00:00:00 UTC, 1 of 2 nodes ready, \
                      waiting for two";
        assert_eq!(keys.fields()[0], ("Epochs", epochs.to_owned()));
        assert_eq!(keys.fields()[1], ("Active since", "2026-11-23 12:00:00 UTC".to_owned()));
        assert_eq!(keys.fields()[3], ("Gossip ring", "6, 7, 8".to_owned()));
        let peers = "two: sends with 3, opens 3, 4; in 12 packets (3456 bytes), out 0 (0), \
                     1 wrong tags";
        assert_eq!(keys.fields()[4], ("Peers of this node", peers.to_owned()));
    }
}
