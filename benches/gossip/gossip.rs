//! This project's gossip with its default settings.

use std::time::Instant;

use overlay_crypto::{
    aead::AeadKey,
    keyring::{RingKey, RingKeys},
};
use overlay_gossip::{Event, Gossip, GossipConfig, Identity};
use overlay_types::{Epoch, Incarnation, NodeId};

use crate::{Protocol, address, machine::Member};

impl Protocol for Member {
    const NAME: &str = "overlay";
    const TARGETS: [&str; 4] = ["<= 10", "<= 15", "<= 20", "<= 0"];

    fn start(index: usize, seed: u64, now: Instant) -> Self {
        let node = NodeId::from_u128(index as u128);
        let identity = Identity::new(node, Incarnation::new(1), address(index));
        let current = RingKey { epoch: Epoch::new(1), key: AeadKey::from_bytes([1; 32]) };
        let keys = RingKeys { next: None, current, previous: None };
        let gossip = Gossip::new(GossipConfig::default(), identity, keys, seed, now);
        let mut gossip = gossip.expect("a usable address");
        gossip.announce([address(0)]);
        Self(gossip)
    }

    fn active(&self) -> usize {
        self.0.members().filter(|(_, state)| state.is_active()).count()
    }

    fn dead(event: &Event) -> Option<usize> {
        match event {
            Event::MemberDown(identity) => Some(identity.node.to_u128() as usize),
            _ => None,
        }
    }
}
