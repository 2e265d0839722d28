//! What strangers send to the gossip port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use overlay_gossip::{Gossip, GossipConfig, GossipKeys, Identity, KeySlot, Output};
use overlay_types::{Epoch, Incarnation, NodeId};

use super::now;

/// The same bytes as a datagram and as a message of a stream.
pub fn gossip(bytes: &[u8]) -> bool {
    let from = address(1);
    let now = now();
    let mut as_datagram = member(2, now);
    as_datagram.handle_datagram(from, bytes, now);
    let mut as_stream = member(2, now);
    as_stream.handle_stream_message(from, bytes, now);

    let counters = [as_datagram.counters(), as_stream.counters()];
    assert!(counters.iter().all(|c| c.datagrams_in + c.streams_in + c.total_dropped() == 1));
    let accepted = counters.iter().any(|c| c.total_dropped() == 0);
    let known = as_datagram.members().count() + as_stream.members().count();
    assert!(accepted || known == 0, "a member was made of bytes that were dropped");
    accepted
}

/// What a member sends to greet another.
pub fn greeting() -> Vec<u8> {
    let now = now();
    let mut greeter = member(1, now);
    greeter.announce([address(2)]);
    greeter.handle_timeout(now);
    loop {
        match greeter.poll_output(now) {
            Output::SendDatagram { bytes, .. } => return bytes,
            Output::WakeAt(_) | Output::Gone => panic!("a seed was announced and not greeted"),
            Output::SendStream { .. } | Output::Event(_) => {}
        }
    }
}

fn member(number: u8, now: Instant) -> Gossip {
    let node = NodeId::from_u128(number.into());
    let identity = Identity::new(node, Incarnation::new(1), address(number));
    let current = KeySlot { epoch: Epoch::new(1), key: [9; 32] };
    let keys = GossipKeys { next: None, current, previous: None };
    Gossip::new(GossipConfig::default(), identity, keys, 1, now).expect("a usable address")
}

fn address(last: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, last), 7946).into()
}
