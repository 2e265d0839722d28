//! Encrypted networks: sealed or nothing.

use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_types::{Encapsulation, Epoch, NodeId, Spi};

use super::*;
use crate::sa::Sa;

const PORTS: (u16, u16) = (1000, 2000);

/// The association from one node to another, as the node `at` sees it.
fn sa(epoch: u8, from: u8, to: u8, at: u8) -> Sa {
    let spi = Spi::new(u32::from_be_bytes([epoch, from, to, 1])).unwrap();
    let peer = if at == from { to } else { from };
    Sa {
        id: SaId { peer: NodeId::from_u128(peer.into()), epoch: Epoch::new(epoch.into()), spi },
        address: node_address(peer),
        keys: Arc::new(SaKeys {
            spi,
            key: AeadKey::from_bytes([epoch ^ from << 4 ^ to; 32]),
            salt: Salt([epoch; 4]),
        }),
    }
}

fn connect(epoch: u8, from: &mut Node, to: &mut Node) {
    let (a, b) = (from.number, to.number);
    to.engine.sas_mut().add_inbound(&sa(epoch, a, b, b)).unwrap();
    from.engine.sas_mut().set_outbound(&sa(epoch, a, b, a));
}

fn sealed_pair() -> (Node, Node) {
    let plan = Plan::new(SEALED, &[(1, 11), (2, 21)]);
    let plain = Plan::new(PLAIN, &[(1, 12), (2, 22)]);
    (Node::new(1, &[&plan, &plain]), Node::new(2, &[&plan, &plain]))
}

#[test]
fn e01_sealed_frames_cross_and_the_payload_is_not_seen() {
    let (mut a, mut b) = sealed_pair();
    connect(1, &mut a, &mut b);
    let secret = b"a secret that nobody may read";
    for frame in [udp(11, 21, PORTS, secret), udp6(11, 21, PORTS, secret)] {
        let sent = datagrams(&a.frame(11, &frame));
        let [(_, Channel::Esp, datagram)] = &sent[..] else { panic!("one sealed: {sent:?}") };
        assert!(!datagram.windows(8).any(|window| secret.windows(8).any(|s| s == window)));
        assert_eq!(frames(&b.datagram(1, Channel::Esp, datagram)), [(21, frame)]);
    }
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn e04_without_an_association_nothing_leaves() {
    let (mut a, _) = sealed_pair();
    let frame = udp(11, 21, PORTS, b"x");
    assert!(a.frame(11, &frame).is_empty());
    a.engine.sas_mut().set_outbound(&sa(1, 1, 2, 1));
    assert_eq!(datagrams(&a.frame(11, &frame)).len(), 1);
    a.engine.sas_mut().remove_outbound(sa(1, 1, 2, 1).id.peer);
    assert!(a.frame(11, &frame).is_empty());
    assert_eq!(a.drops(), [(DropReason::NoOutboundSa, 2)]);
}

#[test]
fn e04_what_is_not_sealed_as_it_must_be_does_not_enter() {
    use DropReason as D;
    let frame = udp(11, 21, PORTS, b"x");
    let (mut a, mut b) = sealed_pair();
    connect(1, &mut a, &mut b);
    let (_, _, good) = datagrams(&a.frame(11, &frame)).remove(0);
    let mut clear = vxlan::header(vni(SEALED)).to_vec();
    clear.extend_from_slice(&frame);
    let plain = Channel::Plain { source_port: 50_000 };
    assert!(b.datagram(1, plain, &clear).is_empty());
    // The right tag, but from elsewhere.
    assert!(b.datagram(3, Channel::Esp, &good).is_empty());
    let (_, _, second) = datagrams(&a.frame(11, &frame)).remove(0);
    assert_eq!(frames(&b.datagram(1, Channel::Esp, &second)).len(), 1);
    assert!(b.datagram(1, Channel::Esp, &second).is_empty());
    let (_, _, mut damaged) = datagrams(&a.frame(11, &frame)).remove(0);
    damaged[40] ^= 1;
    assert!(b.datagram(1, Channel::Esp, &damaged).is_empty());
    let mut unknown = damaged.clone();
    unknown[0] ^= 0x80;
    assert!(b.datagram(1, Channel::Esp, &unknown).is_empty());
    assert!(b.datagram(1, Channel::Esp, &[0xff]).is_empty());
    assert!(b.datagram(1, Channel::Esp, &[0; 40]).is_empty());
    assert!(b.datagram(1, Channel::Esp, &good[..20]).is_empty());
    assert_eq!(
        b.drops(),
        [
            (D::ClearOnEncrypted, 1),
            (D::UnknownSpi, 1),
            (D::EspInvalid, 2),
            (D::EspReplay, 1),
            (D::EspPeer, 1),
            (D::NotEsp, 2),
        ]
    );
}

#[test]
fn e04_a_plain_network_is_not_entered_through_esp() {
    let (mut a, mut b) = sealed_pair();
    // A node that seals frames of a plain network: its idea of the network is an encrypted one.
    let mut wrong = Plan::new(PLAIN, &[(1, 12), (2, 22)]);
    wrong.settings.encrypted = true;
    a.plan(&[&wrong]);
    connect(1, &mut a, &mut b);
    let (_, channel, datagram) = datagrams(&a.frame(12, &udp(12, 22, PORTS, b"x"))).remove(0);
    assert!(b.datagram(1, channel, &datagram).is_empty());
    assert_eq!(b.drops(), [(DropReason::SealedOnPlain, 1)]);
}

#[test]
fn e07_a_peer_that_is_no_member_does_not_enter() {
    let (mut a, _) = sealed_pair();
    let mut b = Node::new(2, &[&Plan::new(SEALED, &[(2, 21), (3, 31)])]);
    connect(1, &mut a, &mut b);
    let (_, channel, datagram) = datagrams(&a.frame(11, &udp(11, 21, PORTS, b"x"))).remove(0);
    assert!(b.datagram(1, channel, &datagram).is_empty());
    assert_eq!(b.drops(), [(DropReason::NotMember, 1)]);
}

#[test]
fn e03_a_rotation_loses_nothing_and_no_number_repeats() {
    let (mut a, mut b) = sealed_pair();
    connect(1, &mut a, &mut b);
    let frame = udp(11, 21, PORTS, b"x");
    let mut late = Vec::new();
    for _ in 0..3 {
        late.push(datagrams(&a.frame(11, &frame)).remove(0).2);
    }
    connect(2, &mut a, &mut b);
    late.push(datagrams(&a.frame(11, &frame)).remove(0).2);
    for datagram in &late {
        assert_eq!(frames(&b.datagram(1, Channel::Esp, datagram)).len(), 1);
    }
    // Told to go back to the old epoch, it goes on counting: sequence 4, not 1.
    a.engine.sas_mut().set_outbound(&sa(1, 1, 2, 1));
    let again = datagrams(&a.frame(11, &frame)).remove(0).2;
    assert_eq!(again[4..8], [0, 0, 0, 4]);
    assert_eq!(frames(&b.datagram(1, Channel::Esp, &again)).len(), 1);
    let old = sa(1, 1, 2, 2).id;
    b.engine.sas_mut().remove_inbound(old);
    assert!(b.datagram(1, Channel::Esp, &again).is_empty());
    assert_eq!(b.drops(), [(DropReason::UnknownSpi, 1)]);
}

#[test]
fn n09_the_largest_sealed_packet_fills_the_underlay() {
    for (is_ipv6, outer) in [(false, 20), (true, 40)] {
        let mut plan = Plan::new(SEALED, &[(1, 11), (2, 21)]);
        plan.settings.mtu = crate::mtu::overlay(1500, is_ipv6, Some(Encapsulation::default()));
        let (mut a, mut b) = (Node::new(1, &[&plan]), Node::new(2, &[&plan]));
        connect(1, &mut a, &mut b);
        let payload = vec![0; usize::from(plan.settings.mtu) - 28];
        let sent = datagrams(&a.frame(11, &udp(11, 21, PORTS, &payload)));
        let length = outer + 8 + sent[0].2.len();
        assert!(length <= 1500 && length > 1496, "{length}");
    }
}

#[test]
fn super_frames_are_sealed_segment_by_segment() {
    let (mut a, mut b) = sealed_pair();
    connect(1, &mut a, &mut b);
    let frame = offload::tcp_super_frame(11, 21, 10_000);
    let offload = Offload::Segment(core::num::NonZeroU16::new(1300).unwrap());
    let sent = a.super_frame(11, &frame, offload);
    assert_eq!(sent.outputs().len(), 1, "one segmented send");
    let mut payload = 0;
    for (_, channel, datagram) in datagrams(&sent) {
        let out = frames(&b.datagram(1, channel, &datagram));
        assert_checksums(&out[0].1);
        payload += out[0].1.len() - 54;
    }
    assert_eq!(payload, 10_000);
}

#[test]
fn e03_a_peer_that_moves_gets_no_number_twice() {
    let (mut a, _) = sealed_pair();
    let sa = sa(1, 1, 2, 1);
    let frame = udp(11, 21, PORTS, b"x");
    a.engine.sas_mut().set_outbound(&sa);
    let (_, _, first) = datagrams(&a.frame(11, &frame)).remove(0);
    a.engine.sas_mut().set_outbound(&Sa { address: node_address(9), ..sa.clone() });
    assert!(a.frame(11, &frame).is_empty(), "nothing goes where the peer was");
    a.engine.sas_mut().set_outbound(&sa);
    let (_, _, second) = datagrams(&a.frame(11, &frame)).remove(0);
    assert_eq!((first[4..8].to_vec(), second[4..8].to_vec()), (vec![0, 0, 0, 1], vec![0, 0, 0, 2]));
}

#[test]
fn e03_a_greeting_tells_the_peer_that_it_is_understood() {
    let (mut a, mut b) = sealed_pair();
    connect(1, &mut a, &mut b);
    let peer = sa(1, 1, 2, 1).id.peer;
    let mut out = Batch::default();
    a.engine.greet(peer, &mut out);
    let sent = datagrams(&out);
    let [(to, Channel::Esp, greeting)] = &sent[..] else { panic!("one greeting: {sent:?}") };
    assert_eq!(*to, node_address(2));
    assert_eq!(b.engine.sas_mut().newly_heard(), []);
    assert!(b.datagram(1, Channel::Esp, greeting).is_empty());
    assert_eq!(b.engine.sas_mut().newly_heard(), [sa(1, 1, 2, 2).id]);
    assert_eq!(b.drops(), [(DropReason::EspGreeting, 1)]);

    a.engine.sas_mut().remove_outbound(peer);
    out.clear();
    a.engine.greet(peer, &mut out);
    assert!(out.is_empty());
    assert_eq!(a.drops(), [(DropReason::NoOutboundSa, 1)]);
}
