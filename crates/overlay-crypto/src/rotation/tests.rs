use core::time::Duration;

use super::*;
use crate::{
    aead::PacketAead,
    esp::{InboundSa, OutboundSa, SaKeys},
};

mod model;

fn node(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

fn status(epoch: u64, state: EpochState) -> EpochStatus {
    EpochStatus { epoch: Epoch::new(epoch), state, drained: None }
}

fn rotation(number: u8) -> Rotation {
    let config = RotationConfig::default();
    Rotation::new(ClusterId::from_u128(9), node(number.into()), config, [number; 32])
}

fn outputs(rotation: &mut Rotation, now: Instant) -> Vec<Output> {
    let mut outputs = Vec::new();
    loop {
        match rotation.poll_output(now) {
            Output::Wait(_) => return outputs,
            output => outputs.push(output),
        }
    }
}

fn peer_key(number: u8, epoch: u64, ready: bool) -> NodeKeyStatus {
    let public = KeyPair::from_entropy(&[number; 32]).public();
    NodeKeyStatus { node: node(number.into()), epoch: Epoch::new(epoch), public, ready }
}

#[expect(clippy::disallowed_methods, reason = "an Instant to count from; its value plays no part")]
fn start() -> Instant {
    Instant::now()
}

/// Published key of `rotation` in `epoch`, as the replicated state would show it.
fn own_key(outputs: &[Output], number: u8, epoch: u64, ready: bool) -> NodeKeyStatus {
    let published = outputs.iter().find_map(|output| match output {
        Output::Publish { epoch: e, public } if e.get() == epoch => Some(*public),
        _ => None,
    });
    let public = published.expect("a key is published");
    NodeKeyStatus { node: node(number.into()), epoch: Epoch::new(epoch), public, ready }
}

fn report_of(own: NodeKeyStatus) -> Output {
    Output::ReportReady { epoch: own.epoch, public: own.public }
}

/// The steps of one epoch in order, as data.
#[test]
fn e02_an_epoch_from_preparing_to_erased() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Preparing), now);
    let done = outputs(&mut one, now);
    let own = own_key(&done, 1, 7, false);
    assert_eq!(done.len(), 1);

    one.handle_key(peer_key(2, 7, false), now).unwrap();
    let done = outputs(&mut one, now);
    assert!(matches!(&done[..], [Output::InstallInbound { id, .. }] if id.peer == node(2)));
    one.handle_key(own, now).unwrap();
    assert_eq!(outputs(&mut one, now), [], "nobody is asked to be ready yet");

    one.handle_epoch(status(7, EpochState::Ready), now);
    assert_eq!(outputs(&mut one, now), [report_of(own)]);
    one.handle_key(NodeKeyStatus { ready: true, ..own }, now).unwrap();
    one.handle_key(peer_key(2, 7, true), now).unwrap();
    assert_eq!(outputs(&mut one, now), [], "nobody sends yet");

    one.handle_epoch(status(7, EpochState::Active), now);
    let done = outputs(&mut one, now);
    assert!(matches!(&done[..], [Output::UseForSending { id, greet: false, .. }]
        if Some(*id) == one.sending_with(node(2))));
    assert_eq!(one.poll_output(now), Output::Wait(None));

    let drained = now + Duration::from_mins(5);
    let retired = EpochStatus { drained: Some(drained), ..status(7, EpochState::Retired) };
    one.handle_epoch(retired, now);
    assert_eq!(outputs(&mut one, now), []);
    let margin = drained.checked_sub(one.config.send_margin);
    assert_eq!(one.poll_output(now), Output::Wait(margin));
    let done = outputs(&mut one, drained);
    assert!(matches!(&done[..],
        [Output::StopSending { .. }, Output::Remove(_), Output::Erased(epoch)]
        if *epoch == Epoch::new(7)));
    one.handle_epoch(status(7, EpochState::Active), drained);
    assert_eq!(outputs(&mut one, drained), [], "an erased epoch does not come back");
}

/// A peer that has no key in the active epoch is sent to with the one before, or not at all.
#[test]
fn sealed_without_a_key_nothing_is_sent() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    assert_eq!(one.sending_with(node(2)), None);
    one.handle_key(peer_key(2, 7, true), now).unwrap();
    let before = one.sending_with(node(2));
    assert!(before.is_some());
    one.handle_epoch(status(8, EpochState::Active), now);
    assert_eq!(one.sending_with(node(2)), before);
    one.handle_epoch_removed(Epoch::new(7));
    assert_eq!(one.sending_with(node(2)), None);
    assert!(outputs(&mut one, now).contains(&Output::StopSending { peer: node(2) }));
}

#[test]
fn e02_weak_keys_are_refused() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    let weak = NodeKeyStatus { public: PublicKey([0; 32]), ..peer_key(2, 7, true) };
    let refused = CryptoError::WeakPublicKey { peer: node(2), epoch: Epoch::new(7) };
    assert_eq!(one.handle_key(weak, now), Err(refused));
    assert_eq!(one.sending_with(node(2)), None);
}

/// A key that comes back would start its packet counter again: nonces would repeat.
#[test]
fn e02_a_key_is_never_handed_out_twice() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    one.handle_key(peer_key(2, 7, true), now).unwrap();
    one.handle_peer_gone(node(2));
    assert_eq!(one.sending_with(node(2)), None);
    let refused = CryptoError::SpentPublicKey { peer: node(2), epoch: Epoch::new(7) };
    assert_eq!(one.handle_key(peer_key(2, 7, true), now), Err(refused));
    let fresh = NodeKeyStatus { node: node(2), ..peer_key(3, 7, true) };
    assert_eq!(one.handle_key(fresh, now), Ok(()));
    assert!(one.sending_with(node(2)).is_some());
}

#[test]
fn e03_a_rotation_is_asked_for_once_per_epoch() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    one.handle_key(peer_key(2, 7, true), now).unwrap();
    let id = one.sending_with(node(2)).unwrap();
    outputs(&mut one, now);
    let limit = one.config.packet_limit;
    one.handle_usage(id, limit - 1, one.config.byte_limit - 1);
    assert_eq!(outputs(&mut one, now), []);
    one.handle_usage(id, limit, 0);
    one.handle_usage(id, 0, one.config.byte_limit);
    assert_eq!(outputs(&mut one, now), [Output::RequestRotation(Epoch::new(7))]);
}

#[test]
fn publishing_and_reporting_are_repeated_until_seen() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    let first = outputs(&mut one, now);
    let later = now + one.config.retry_interval;
    assert_eq!(one.poll_output(now), Output::Wait(Some(later)));
    assert_eq!(outputs(&mut one, later), first);
    let own = own_key(&first, 1, 7, false);
    one.handle_key(own, later).unwrap();
    assert_eq!(outputs(&mut one, later), [report_of(own)]);
    let last = later + one.config.retry_interval;
    assert_eq!(outputs(&mut one, last), [report_of(own)]);
}

/// A write from before a restart that arrives late replaces our key: we make yet another.
#[test]
fn a_replaced_own_key_is_not_published_again() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    one.handle_key(peer_key(2, 7, true), now).unwrap();
    let own = own_key(&outputs(&mut one, now), 1, 7, false);
    let before = one.sending_with(node(2));
    one.handle_key(NodeKeyStatus { public: PublicKey([5; 32]), ..own }, now).unwrap();
    assert_eq!(outputs(&mut one, now), [], "what was there before our publication is no news");
    one.handle_key(own, now).unwrap();
    one.handle_key(NodeKeyStatus { public: PublicKey([5; 32]), ..own }, now).unwrap();
    let done = outputs(&mut one, now);
    assert_ne!(own_key(&done, 1, 7, false).public, own.public);
    assert_ne!(one.sending_with(node(2)), before);
}

/// Receive association of an epoch, as the outputs say.
fn inbound(outputs: &[Output], epoch: u64) -> SaId {
    let id = outputs.iter().find_map(|output| match output {
        Output::InstallInbound { id, .. } if id.epoch.get() == epoch => Some(*id),
        _ => None,
    });
    id.expect("an association is installed")
}

/// Node 1 in two active epochs with a peer in both, sending with the older, which the peer has for
/// certain; and when that is drained.
fn between_two_epochs(now: Instant) -> (Rotation, Instant) {
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    one.handle_key(peer_key(2, 7, true), now).unwrap();
    let heard = inbound(&outputs(&mut one, now), 7);
    one.handle_heard(heard);
    one.handle_epoch(status(8, EpochState::Active), now);
    one.handle_key(peer_key(2, 8, true), now).unwrap();
    assert_eq!(one.sending_with(node(2)).map(|id| id.epoch.get()), Some(7));
    let drained = now + one.config.default_drain;
    (one, drained)
}

#[test]
fn e03_an_epoch_is_left_before_it_is_erased() {
    let now = start();
    let (mut one, drained) = between_two_epochs(now);
    let stop = drained.checked_sub(one.config.send_margin).unwrap();
    outputs(&mut one, stop.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(one.sending_with(node(2)).map(|id| id.epoch.get()), Some(7));
    outputs(&mut one, stop);
    assert_eq!(one.sending_with(node(2)).map(|id| id.epoch.get()), Some(8));
}

#[test]
fn e03_a_restarted_peer_is_not_sent_what_it_lost() {
    let now = start();
    let (mut one, _) = between_two_epochs(now);
    let restarted = NodeKeyStatus { node: node(2), ..peer_key(3, 8, false) };
    one.handle_key(restarted, now).unwrap();
    assert_eq!(one.sending_with(node(2)).map(|id| id.epoch.get()), Some(8));
}

/// Going back to an older epoch would leave the newer one's keys spent.
#[test]
fn e03_there_is_no_way_back() {
    let now = start();
    let mut one = rotation(1);
    one.handle_epoch(status(7, EpochState::Active), now);
    one.handle_epoch(status(8, EpochState::Active), now);
    one.handle_key(peer_key(2, 8, false), now).unwrap();
    one.handle_key(peer_key(2, 7, false), now).unwrap();
    let heard = inbound(&outputs(&mut one, now), 7);
    one.handle_heard(heard);
    assert_eq!(one.sending_with(node(2)).map(|id| id.epoch.get()), Some(8));
}

#[test]
fn epochs_are_bounded() {
    let now = start();
    let mut one = rotation(1);
    for epoch in 1..=MAX_EPOCHS as u64 + 1 {
        one.handle_epoch(status(epoch, EpochState::Preparing), now);
    }
    assert_eq!(one.epochs().count(), MAX_EPOCHS);
    assert!(outputs(&mut one, now).contains(&Output::Erased(Epoch::new(1))));
}

/// The keys that two machines hand out fit each other.
#[test]
fn e02_two_nodes_understand_each_other() {
    let now = start();
    let (mut one, mut two) = (rotation(1), rotation(2));
    one.handle_epoch(status(7, EpochState::Active), now);
    two.handle_epoch(status(7, EpochState::Active), now);
    let key_of_two = own_key(&outputs(&mut two, now), 2, 7, false);
    let key_of_one = own_key(&outputs(&mut one, now), 1, 7, false);
    one.handle_key(key_of_two, now).unwrap();
    two.handle_key(key_of_one, now).unwrap();
    let keys = outputs(&mut one, now).into_iter().find_map(|output| match output {
        Output::UseForSending { keys, .. } => Some(keys),
        _ => None,
    });
    let mut sender = OutboundSa::new(&keys.unwrap());
    let keys = outputs(&mut two, now).into_iter().find_map(|output| match output {
        Output::InstallInbound { keys, .. } => Some(keys),
        _ => None,
    });
    let mut receiver = InboundSa::<crate::aead::PortableAead>::with_aead(&keys.unwrap());
    assert_eq!(exchange(&mut sender, &mut receiver), b"hello");
}

fn exchange<A: PacketAead, B: PacketAead>(
    sender: &mut OutboundSa<A>,
    receiver: &mut InboundSa<B>,
) -> Vec<u8> {
    let mut buffer = [0; 80];
    buffer[16..21].copy_from_slice(b"hello");
    let packet = sender.seal(&mut buffer, 16..21).unwrap();
    let payload = receiver.open(&mut buffer[packet.clone()]).unwrap();
    buffer[packet][payload].to_vec()
}
