//! This project's gossip with its default settings.

use std::time::Instant;

use overlay_crypto::{
    aead::AeadKey,
    keyring::{RingKey, RingKeys},
};
use overlay_gossip::{Event, Gossip, GossipConfig, Identity, Output};
use overlay_testkit::sim::{Action, Carrier, Delivery, Machine};
use overlay_types::{Epoch, Incarnation, NodeId};

use crate::{Member, Told, address};

pub(crate) struct Ours(Gossip);

impl Member for Ours {
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
}

impl Machine for Ours {
    type Event = Told;

    fn handle_arrival(&mut self, arrival: Delivery<Vec<u8>>, now: Instant) {
        let Delivery { from, carrier, payload, .. } = arrival;
        match carrier {
            Carrier::Datagram => self.0.handle_datagram(from, &payload, now),
            Carrier::Stream => self.0.handle_stream_message(from, &payload, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_action(&mut self, now: Instant) -> Action<Told> {
        match self.0.poll_output(now) {
            Output::SendDatagram { to, bytes } => {
                Action::Send { to, carrier: Carrier::Datagram, bytes }
            }
            Output::SendStream { to, bytes } => {
                Action::Send { to, carrier: Carrier::Stream, bytes }
            }
            Output::Event(Event::MemberDown(id)) => {
                Action::Tell(Told::Dead(id.node.to_u128() as usize))
            }
            Output::Event(_) => Action::Tell(Told::Other),
            Output::WakeAt(at) => Action::WakeAt(at),
            Output::Gone => Action::Stop,
        }
    }
}
