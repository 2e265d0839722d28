//! What arrives at the gossip port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use overlay_crypto::{
    aead::AeadKey,
    keyring::{GossipKeyRing, RingKey, RingKeys},
};
use overlay_gossip::{Gossip, GossipConfig, Identity, Output};
use overlay_types::{Epoch, Incarnation, NodeId};

use super::now;

/// Incarnation with which every member starts.
const START: Incarnation = Incarnation::new(1);

/// Bytes from a stranger, as a datagram and as a message of a stream.
pub fn gossip(bytes: &[u8]) -> bool {
    let from = address(1);
    let now = now();
    let mut as_datagram = member(2, now);
    as_datagram.handle_datagram(from, bytes, now);
    let mut as_stream = member(2, now);
    as_stream.handle_stream_message(from, bytes, now);

    let counters = [as_datagram.counters(), as_stream.counters()];
    assert!(counters.iter().all(|c| c.datagrams_in + c.streams_in + c.total_dropped() == 1));
    counters.iter().any(|c| c.total_dropped() == 0)
}

/// A message that a member sealed who may do as he likes.
pub fn gossip_message(bytes: &[u8]) -> bool {
    gossip(&seal_message(bytes))
}

/// The first datagram of member 1.
pub fn seal_message(message: &[u8]) -> Vec<u8> {
    ring(1).seal(message).expect("the first message of a ring")
}

/// What member 1 sends to member 2, unsealed: they meet, probe and exchange for 30 s.
pub fn conversation() -> Vec<Vec<u8>> {
    let mut now = now();
    let mut members = [member(1, now), member(2, now)];
    members[0].announce([address(2)]);
    let mut heard = Vec::new();
    for _ in 0..150 {
        now += Duration::from_millis(200);
        for me in 0..2 {
            members[me].handle_timeout(now);
            for bytes in sent(&mut members[me], now) {
                members[1 - me].handle_datagram(address(me as u8 + 1), &bytes, now);
                if me == 0 {
                    heard.push(bytes);
                }
            }
        }
    }
    heard.iter().map(|sealed| unsealed(sealed)).collect()
}

/// What waits to be sent; streams as datagrams.
fn sent(member: &mut Gossip, now: Instant) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    loop {
        match member.poll_output(now) {
            Output::SendDatagram { bytes, .. } | Output::SendStream { bytes, .. } => {
                sent.push(bytes);
            }
            Output::Event(_) => {}
            Output::WakeAt(_) | Output::Gone => return sent,
        }
    }
}

fn unsealed(sealed: &[u8]) -> Vec<u8> {
    let mut bytes = sealed.to_vec();
    let opened = ring(2).open(&mut bytes).expect("a member sealed it");
    bytes[opened.message].to_vec()
}

fn member(number: u8, now: Instant) -> Gossip {
    let identity = Identity::new(node(number), START, address(number));
    Gossip::new(GossipConfig::default(), identity, keys(), 1, now).expect("a usable address")
}

fn ring(number: u8) -> GossipKeyRing {
    GossipKeyRing::new(node(number), START, keys())
}

fn keys() -> RingKeys {
    let current = RingKey { epoch: Epoch::new(1), key: AeadKey::from_bytes([9; 32]) };
    RingKeys { next: None, current, previous: None }
}

fn node(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

fn address(last: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, last), 7946).into()
}
