use proptest::prelude::*;

use super::*;
use crate::{aead::PortableAead, replay::WINDOW};

fn key(epoch: u64) -> RingKey {
    RingKey { epoch: Epoch::new(epoch), key: AeadKey::from_bytes([epoch as u8; KEY_LEN]) }
}

/// The ring while epoch `current` is sealed with.
fn keys(current: u64) -> RingKeys {
    RingKeys {
        next: Some(key(current + 1)),
        current: key(current),
        previous: current.checked_sub(1).map(key),
    }
}

fn ring(node: u128, incarnation: u64, current: u64) -> GossipKeyRing {
    GossipKeyRing::new(NodeId::from_u128(node), Incarnation::new(incarnation), keys(current))
}

fn open(ring: &mut GossipKeyRing, sealed: &[u8]) -> Result<Vec<u8>, UnsealError> {
    let mut bytes = sealed.to_vec();
    ring.open(&mut bytes).map(|unsealed| bytes[unsealed.message].to_vec())
}

proptest! {
    /// Members take each step of a rotation in any order, at most one step apart, and everything
    /// that any of them seals is opened by all others.
    #[test]
    fn g02_rotation_loses_no_message(steps in prop::collection::vec(0_usize..3, 1..60)) {
        let mut at = [5_u64; 3];
        let mut rings = [ring(1, 1, 5), ring(2, 1, 5), ring(3, 1, 5)];
        for who in steps {
            let slowest = *at.iter().min().unwrap();
            if at[who] == slowest {
                at[who] += 1;
                rings[who].set_keys(keys(at[who]));
            }
            for from in 0..3 {
                let sealed = rings[from].seal(b"alive").unwrap();
                for to in (0..3).filter(|to| *to != from) {
                    prop_assert_eq!(open(&mut rings[to], &sealed), Ok(b"alive".to_vec()));
                    prop_assert_eq!(open(&mut rings[to], &sealed), Err(UnsealError::Replayed));
                }
            }
        }
    }

    #[test]
    fn g02_damaged_messages_change_nothing(
        message in prop::collection::vec(any::<u8>(), 0..80),
        bit: u16,
        garbage in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let sealed = ring(1, 1, 5).seal(&message).unwrap();
        prop_assert_eq!(sealed.len(), message.len() + OVERHEAD);
        let mut receiver = ring(2, 1, 5);
        let mut damaged = sealed.clone();
        let bit = usize::from(bit) % (sealed.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&mut receiver, &damaged).is_err());
        prop_assert!(open(&mut receiver, &sealed[..sealed.len() - 1]).is_err());
        prop_assert!(open(&mut receiver, &garbage).is_err());
        prop_assert_eq!(receiver.senders(), 0);
        prop_assert_eq!(open(&mut receiver, &sealed), Ok(message));
    }
}

#[test]
fn g02_a_missed_rotation_is_told_apart() {
    let sealed = ring(1, 1, 9).seal(b"hello").unwrap();
    assert_eq!(open(&mut ring(2, 1, 5), &sealed), Err(UnsealError::UnknownKey(Epoch::new(9))));
    let sealed = ring(1, 1, 5).seal(b"hello").unwrap();
    assert_eq!(open(&mut ring(2, 1, 9), &sealed), Err(UnsealError::UnknownKey(Epoch::new(5))));
}

#[test]
fn g02_a_restart_goes_on_and_its_past_is_refused() {
    let mut receiver = ring(2, 1, 5);
    let (mut before, mut after) = (ring(1, 10, 5), ring(1, 11, 5));
    let old = before.seal(b"old").unwrap();
    assert!(open(&mut receiver, &before.seal(b"x").unwrap()).is_ok());
    assert_eq!(open(&mut receiver, &after.seal(b"new").unwrap()), Ok(b"new".to_vec()));
    assert_eq!(open(&mut receiver, &old), Err(UnsealError::StaleIncarnation));
    // A forged greater incarnation does not shut out the real one.
    let mut forged = after.seal(b"x").unwrap();
    forged[25..33].fill(0xFF);
    assert_eq!(open(&mut receiver, &forged), Err(UnsealError::BadTag));
    assert!(open(&mut receiver, &after.seal(b"y").unwrap()).is_ok());
}

#[test]
fn g02_nonces_never_repeat() {
    // The same counter under two incarnations, senders or epochs is sealed with other keys.
    let texts = [ring(1, 1, 5), ring(1, 2, 5), ring(2, 1, 5), ring(1, 1, 6)]
        .map(|mut ring| ring.seal(&[0; 32]).unwrap()[HEADER_LEN..].to_vec());
    for (n, text) in texts.iter().enumerate() {
        assert!(!texts[..n].contains(text));
    }
    let mut ring = ring(1, 1, 5);
    ring.seal(b"x").unwrap();
    ring.set_keys(keys(6));
    ring.set_keys(keys(5));
    assert_eq!(ring.seal(b"x").unwrap()[33..41], 2_u64.to_be_bytes(), "the counter goes on");
    ring.counter = u64::MAX;
    assert_eq!(ring.seal(b"x"), Err(CryptoError::CounterSpent));
}

#[test]
fn g02_reflections_and_far_late_messages_are_refused() {
    let (mut one, mut two) = (ring(1, 1, 5), ring(2, 1, 5));
    let first = one.seal(b"first").unwrap();
    assert_eq!(open(&mut one, &first), Err(UnsealError::Reflected));
    for _ in 1..WINDOW {
        one.seal(b"").unwrap();
    }
    let last = one.seal(b"last").unwrap();
    assert!(open(&mut two, &last).is_ok());
    assert_eq!(open(&mut two, &first), Err(UnsealError::Replayed));
}

#[test]
fn g02_senders_are_bounded_and_forgotten_with_their_keys() {
    let mut receiver = ring(0, 1, 5);
    for node in 1..=MAX_SENDERS as u128 {
        open(&mut receiver, &ring(node, 1, 5).seal(b"x").unwrap()).unwrap();
    }
    let late = ring(1 << 64, 1, 6).seal(b"x").unwrap();
    assert_eq!(open(&mut receiver, &late), Err(UnsealError::SenderTableFull));
    receiver.set_keys(keys(6));
    assert_eq!(receiver.senders(), MAX_SENDERS, "what they sealed could still be replayed");
    receiver.set_keys(keys(7));
    assert_eq!(receiver.senders(), 0);
    assert!(open(&mut receiver, &late).is_ok());
}

#[test]
fn g02_expanded_keys_leave_with_the_ring() {
    let mut receiver = ring(2, 1, 5);
    let mut sender = ring(1, 1, 6);
    let newer = sender.seal(b"x").unwrap();
    sender.set_keys(keys(4));
    let older = sender.seal(b"x").unwrap();
    open(&mut receiver, &newer).unwrap();
    open(&mut receiver, &older).unwrap();
    assert_eq!(receiver.senders[&NodeId::from_u128(1)].subkey.0, Epoch::new(4));
    receiver.set_keys(keys(6));
    assert_eq!(receiver.senders[&NodeId::from_u128(1)].subkey.0, Epoch::new(6));
    assert_eq!(open(&mut receiver, &newer), Err(UnsealError::Replayed));
}

#[test]
fn implementations_agree() {
    let node = NodeId::from_u128(1);
    let mut portable = GossipKeyRing::<PortableAead>::with_aead(node, Incarnation::new(1), keys(5));
    assert_eq!(portable.seal(b"hello"), ring(1, 1, 5).seal(b"hello"));
}

#[test]
fn a_replicated_ring_needs_its_current_key() {
    let gossip_key = |epoch| overlay_types::object::GossipKey {
        epoch: Epoch::new(epoch),
        key: [epoch as u8; KEY_LEN],
    };
    let mut replicated = GossipKeys {
        current: Epoch::new(5),
        keys: [3, 4, 5, 6].map(gossip_key).into(),
        ..GossipKeys::default()
    };
    assert_eq!(RingKeys::from_replicated(&replicated), Some(keys(5)));
    replicated.current = Epoch::new(7);
    assert_eq!(RingKeys::from_replicated(&replicated), None);
}
