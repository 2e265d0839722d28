//! What must not cross: N08, E04, E07 and the invariants **no-entry** and **sealed**.

use proptest::prelude::*;

use super::*;

const PORTS: (u16, u16) = (1000, 2000);

fn vxlan(number: u32, frame: &[u8]) -> Vec<u8> {
    let mut datagram = vxlan::header(vni(number)).to_vec();
    datagram.extend_from_slice(frame);
    datagram
}

fn plain() -> Channel {
    Channel::Plain { source_port: 50_000 }
}

#[test]
fn frames_cross_unchanged() {
    let (mut a, mut b) = pair();
    for frame in [udp(11, 21, PORTS, b"across"), udp6(11, 21, PORTS, b"across")] {
        assert_eq!(cross(&mut a, &mut b, 11, &frame), [(21, frame)]);
    }
    let frame = udp(11, 12, PORTS, b"same node");
    assert_eq!(frames(&a.frame(11, &frame)), [(12, frame)]);
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn outer_source_port_follows_the_flow() {
    let (mut a, _) = pair();
    let mut ports = BTreeSet::new();
    for port in 0..200 {
        let frame = udp(11, 21, (port, 80), b"");
        let [(_, Channel::Plain { source_port }, _)] = datagrams(&a.frame(11, &frame))[..] else {
            panic!("one plain datagram")
        };
        let again = datagrams(&a.frame(11, &frame));
        assert_eq!(again[0].1, Channel::Plain { source_port });
        assert!(source_port >= 49_152);
        ports.insert(source_port);
    }
    assert!(ports.len() > 150, "{} ports for 200 flows", ports.len());
}

/// Each case: what an endpoint sends, and why it goes nowhere.
#[test]
fn n08_an_endpoint_sends_only_as_itself() {
    use DropReason as D;
    let good = udp(11, 21, PORTS, b"x");
    let edit = |change: fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let tag = |kind: [u8; 2]| {
        let mut frame = good.clone();
        frame.splice(12..12, [kind[0], kind[1], 0, 5]);
        frame
    };
    let cases = [
        (D::SpoofedMac, edit(|f| f[6..12].copy_from_slice(&mac(12).0))),
        (D::SpoofedMac, udp(12, 21, PORTS, b"x")),
        (D::SpoofedIp, edit(|f| f[26..30].copy_from_slice(&v4(12).octets()))),
        (D::UnknownUnicast, edit(|f| f[..6].copy_from_slice(&mac(99).0))),
        (D::Group, edit(|f| f[..6].copy_from_slice(&[0xff; 6]))),
        (D::Group, edit(|f| f[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]))),
        (D::VlanTagged, tag([0x81, 0])),
        (D::VlanTagged, tag([0x88, 0xa8])),
        (D::EtherType, edit(|f| f[12..14].copy_from_slice(&[0x88, 0xcc]))),
        (D::EtherType, edit(|f| f[12..14].copy_from_slice(&[0, 40]))),
        (D::Malformed, edit(|f| f[14] = 0x41)),
        (D::Malformed, edit(|f| f[14] = 0x65)),
        (D::Malformed, edit(|f| f[17] = 200)),
        (D::Malformed, good[..13].to_vec()),
        (D::Malformed, good[..30].to_vec()),
        (D::Malformed, Vec::new()),
        (D::Oversized, udp(11, 21, PORTS, &[0; 1400])),
    ];
    for (reason, frame) in cases {
        let (mut a, _) = pair();
        let out = a.frame(11, &frame);
        assert_eq!(datagrams(&out), [], "{reason:?}");
        assert_eq!(a.drops(), [(reason, 1)]);
    }
}

#[test]
fn n08_a_port_that_is_not_there_sends_nothing() {
    let (mut a, _) = pair();
    assert!(a.frame(99, &udp(11, 21, PORTS, b"x")).is_empty());
    assert_eq!(a.drops(), [(DropReason::UnknownPort, 1)]);
}

#[test]
fn n08_networks_with_equal_subnets_do_not_meet() {
    // Host 11 is on one network, 21 and 31 on another with the same subnet.
    let one = Plan::new(PLAIN, &[(1, 11)]);
    let other = Plan::new(OTHER, &[(1, 31), (2, 21)]);
    let mut a = Node::new(1, &[&one, &other]);
    for to in [21, 31] {
        assert!(a.frame(11, &udp(11, to, PORTS, b"x")).is_empty());
    }
    assert_eq!(a.drops(), [(DropReason::UnknownUnicast, 2)]);
}

/// Each case: what comes from where, and why it goes nowhere.
#[test]
fn e07_only_members_reach_a_plain_network() {
    use DropReason as D;
    let frame = udp(21, 11, PORTS, b"x");
    let good = vxlan(PLAIN, &frame);
    let edit = |change: fn(&mut Vec<u8>)| {
        let mut datagram = good.clone();
        change(&mut datagram);
        datagram
    };
    let cases = [
        (D::NotMember, 9, good.clone()),
        (D::NotMember, 1, good.clone()),
        (D::UnknownVni, 2, vxlan(OTHER, &frame)),
        (D::ForeignMac, 3, good.clone()),
        (D::ForeignMac, 2, vxlan(PLAIN, &udp(31, 11, PORTS, b"x"))),
        (D::ForeignMac, 2, vxlan(PLAIN, &udp(11, 12, PORTS, b"x"))),
        (D::NotLocal, 2, vxlan(PLAIN, &udp(21, 31, PORTS, b"x"))),
        (D::NotLocal, 2, vxlan(PLAIN, &udp(21, 99, PORTS, b"x"))),
        (D::NotVxlan, 2, edit(|d| d[0] = 0)),
        (D::NotVxlan, 2, good[..7].to_vec()),
        (D::NotVxlan, 2, Vec::new()),
        (D::Malformed, 2, good[..20].to_vec()),
        (D::Malformed, 2, good[..30].to_vec()),
        (D::Group, 2, edit(|d| d[8..14].copy_from_slice(&[0xff; 6]))),
        (D::EtherType, 2, edit(|d| d[20..22].copy_from_slice(&[0x88, 0xcc]))),
        (D::VlanTagged, 2, edit(|d| d[20..22].copy_from_slice(&[0x81, 0]))),
        (D::Oversized, 2, vxlan(PLAIN, &udp(21, 11, PORTS, &[0; 1400]))),
    ];
    for (reason, from, datagram) in cases {
        let plan = Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21), (3, 31)]);
        let mut a = Node::new(1, &[&plan]);
        assert!(a.datagram(from, plain(), &datagram).is_empty(), "{reason:?}");
        assert_eq!(a.drops(), [(reason, 1)]);
    }
}

#[test]
fn reserved_vxlan_bits_are_ignored_on_receive() {
    let (mut a, _) = pair();
    let frame = udp(21, 11, PORTS, b"x");
    let mut datagram = vxlan(PLAIN, &frame);
    datagram[0] = 0xff;
    datagram[1..4].fill(0xff);
    datagram[7] = 0xff;
    assert_eq!(frames(&a.datagram(2, plain(), &datagram)), [(11, frame)]);
}

#[test]
fn n16_group_frames_reach_members_only_where_the_network_carries_them() {
    let mut plan = Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21)]);
    plan.settings.multicast = true;
    let other = Plan::new(OTHER, &[(1, 13), (3, 31)]);
    let mut a = Node::new(1, &[&plan, &other]);
    let mut b = Node::new(2, &[&plan]);
    let mut frame = udp(11, 11, PORTS, b"hello all");
    frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 7]);
    let sent = a.frame(11, &frame);
    assert_eq!(frames(&sent), [(12, frame.clone())]);
    let [(to, channel, datagram)] = &datagrams(&sent)[..] else { panic!("one member") };
    assert_eq!(*to, node_address(2));
    assert_eq!(frames(&b.datagram(1, *channel, datagram)), [(21, frame)]);
    let mut spoofed = udp(12, 11, PORTS, b"");
    spoofed[..12].copy_from_slice(&[[0xff; 6], mac(11).0].concat());
    assert!(a.frame(11, &spoofed).is_empty());
    assert_eq!(a.drops(), [(DropReason::SpoofedIp, 1)]);
}

#[test]
fn oversized_packets_are_answered() {
    let (mut a, _) = pair();
    for frame in [udp(11, 21, PORTS, &[0; 1400]), udp6(11, 21, PORTS, &[0; 1400])] {
        let out = frames(&a.frame(11, &frame));
        let [(11, answer)] = &out[..] else { panic!("one answer to the sender: {out:?}") };
        assert_checksums(answer);
        let packet = etherparse::SlicedPacket::from_ethernet(answer).unwrap();
        let mtu = match packet.transport.unwrap() {
            etherparse::TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
                etherparse::Icmpv4Type::DestinationUnreachable(
                    etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu },
                ) => u32::from(next_hop_mtu),
                other => panic!("{other:?}"),
            },
            etherparse::TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
                etherparse::Icmpv6Type::PacketTooBig { mtu } => mtu,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(mtu, 1400);
    }
}

#[test]
fn fragments_cross_and_are_checked_like_others() {
    let (mut a, mut b) = pair();
    let mut fragment = udp(11, 21, PORTS, b"first of two");
    fragment[20] = 0x20;
    crate::wire::ipv4::fill_checksum(&mut fragment[14..]);
    assert_eq!(cross(&mut a, &mut b, 11, &fragment), [(21, fragment.clone())]);
    fragment[26..30].copy_from_slice(&v4(12).octets());
    assert!(a.frame(11, &fragment).is_empty());
    assert_eq!(a.drops(), [(DropReason::SpoofedIp, 1)]);
}

proptest! {
    #[test]
    fn r06_garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), seal: bool) {
        let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(100, &[21]);
        let mut a = Node::new(1, &[&plan]);
        let channel = if seal { Channel::Esp } else { plain() };
        a.datagram(2, channel, &bytes);
        a.datagram(2, channel, &vxlan(PLAIN, &bytes));
        a.frame(11, &bytes);
    }

    /// A good frame with a few octets changed: nothing panics, and what leaves for another node is
    /// still from the endpoint that sent it.
    #[test]
    fn r06_damaged_frames_never_panic(
        v6: bool,
        cut in 0_usize..120,
        damage in prop::collection::vec((12_usize..90, any::<u8>()), 0..6),
        segment in prop::option::of(1_u16..2000),
        router: bool,
    ) {
        let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(100, &[21]);
        let mut a = Node::new(1, &[&plan]);
        let to = if router { 100 } else { 21 };
        let mut frame = if v6 { udp6(11, to, PORTS, &[1; 60]) } else { udp(11, to, PORTS, &[1; 60]) };
        if router {
            frame = to_router(frame);
        }
        for (at, value) in damage {
            frame[at] = value;
        }
        frame.truncate(frame.len().saturating_sub(cut).max(14));
        let offload = segment
            .and_then(core::num::NonZeroU16::new)
            .map_or(Offload::None, Offload::Segment);
        let out = a.super_frame(11, &frame, offload);
        for (_, _, datagram) in datagrams(&out) {
            prop_assert_eq!(&datagram[14..20], &mac(11).0);
        }
    }
}

/// A gate of the routing mesh sends packets of clients, under its own Ethernet address, and hears of
/// those that are too large.
#[test]
fn s11_a_gate_sends_from_any_address_but_its_own_station_only() {
    let plan = Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21)]).gate(11);
    let (mut a, mut b) = (Node::new(1, &[&plan]), Node::new(2, &[&plan]));
    let mut foreign = udp(12, 21, PORTS, b"from a client");
    foreign[6..12].copy_from_slice(&mac(11).0);
    assert_eq!(cross(&mut a, &mut b, 11, &foreign), [(21, foreign.clone())]);
    let mut large = udp(12, 21, PORTS, &[0; 1400]);
    large[6..12].copy_from_slice(&mac(11).0);
    let out = a.frame(11, &large);
    let told = frames(&out);
    assert_eq!((told.len(), told[0].0, &told[0].1[..6]), (1, 11, &mac(11).0[..]));
    // Another endpoint's Ethernet address is not its own, and nobody else is a gate.
    assert!(a.frame(11, &udp(12, 21, PORTS, b"x")).is_empty());
    let mut other = udp(11, 21, PORTS, b"x");
    other[6..12].copy_from_slice(&mac(12).0);
    assert!(a.frame(12, &other).is_empty());
    let reasons = [DropReason::SpoofedMac, DropReason::SpoofedIp, DropReason::Oversized];
    for reason in reasons {
        assert!(a.drops().contains(&(reason, 1)), "{:?}", a.drops());
    }
}
