//! ARP and neighbor discovery, answered from the tables.

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr, RawHardwareAddress,
};

use super::*;

fn hardware(mac: MacAddr) -> EthernetAddress {
    EthernetAddress(mac.0)
}

fn request(from: u8, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: hardware(mac(from)),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut frame = vec![0; 14 + arp.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    EthernetRepr {
        src_addr: hardware(mac(from)),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    }
    .emit(&mut ethernet);
    arp.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
    frame
}

#[test]
fn arp_is_answered_for_endpoints_gateway_and_virtual_addresses() {
    let plan = Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21)]).serve(100, &[21]);
    let mut a = Node::new(1, &[&plan]);
    for (target, expected) in [(12, mac(12)), (21, mac(21)), (1, ROUTER_MAC), (100, ROUTER_MAC)] {
        let out = frames(&a.frame(11, &request(11, v4(11), v4(target))));
        let [(11, answer)] = &out[..] else { panic!("one answer: {out:?}") };
        let ethernet = EthernetFrame::new_checked(answer).unwrap();
        assert_eq!(ethernet.dst_addr(), hardware(mac(11)));
        let arp = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
        assert_eq!(
            arp,
            ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: hardware(expected),
                source_protocol_addr: v4(target),
                target_hardware_addr: hardware(mac(11)),
                target_protocol_addr: v4(11),
            }
        );
    }
    assert_eq!(a.drops(), []);
}

#[test]
fn arp_lies_and_strangers_get_no_answer() {
    let cases = [
        (DropReason::SpoofedIp, request(11, v4(12), v4(21))),
        (DropReason::SpoofedMac, {
            let mut frame = request(11, v4(11), v4(21));
            frame[22..28].copy_from_slice(&mac(12).0);
            frame
        }),
        (DropReason::Arp, request(11, v4(11), v4(99))),
        (DropReason::Arp, request(11, v4(11), v4(11))),
        (DropReason::Malformed, request(11, v4(11), v4(21))[..30].to_vec()),
    ];
    for (reason, frame) in cases {
        let (mut a, _) = pair();
        assert!(a.frame(11, &frame).is_empty());
        assert_eq!(a.drops(), [(reason, 1)]);
    }
}

fn solicit(source: Ipv6Addr, target: Ipv6Addr, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: target,
        lladdr: Some(RawHardwareAddress::from(hardware(mac(11)))),
    });
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x15),
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    let mut frame = vec![0; 14 + 40 + message.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    EthernetRepr {
        src_addr: hardware(mac(11)),
        dst_addr: EthernetAddress([0x33, 0x33, 0xff, 0, 0, 0x15]),
        ethertype: EthernetProtocol::Ipv6,
    }
    .emit(&mut ethernet);
    let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet);
    message.emit(
        &ip.src_addr,
        &ip.dst_addr,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &smoltcp::phy::ChecksumCapabilities::default(),
    );
    change(&mut frame);
    frame
}

#[test]
fn n12_solicitations_are_answered() {
    let (mut a, _) = pair();
    let link_local = link_local(mac(11));
    assert_eq!(link_local, "fe80::42:aff:fe00:10b".parse::<Ipv6Addr>().unwrap());
    for source in [v6(11), link_local, Ipv6Addr::UNSPECIFIED] {
        for (target, expected) in [(21, mac(21)), (1, ROUTER_MAC)] {
            let out = frames(&a.frame(11, &solicit(source, v6(target), |_| {})));
            let [(11, answer)] = &out[..] else { panic!("one answer: {out:?}") };
            assert_checksums(answer);
            let ethernet = EthernetFrame::new_checked(answer).unwrap();
            let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            let capabilities = smoltcp::phy::ChecksumCapabilities::default();
            let parsed = Icmpv6Repr::parse(&from, &to, &message, &capabilities).unwrap();
            let mut flags = NdiscNeighborFlags::OVERRIDE;
            flags.set(NdiscNeighborFlags::SOLICITED, !source.is_unspecified());
            assert_eq!(
                parsed,
                Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                    flags,
                    target_addr: v6(target),
                    lladdr: Some(RawHardwareAddress::from(hardware(expected))),
                })
            );
        }
    }
    assert_eq!(a.drops(), []);
}

#[test]
fn n12_bad_solicitations_get_no_answer() {
    use DropReason as D;
    let cases = [
        (D::SpoofedIp, solicit(v6(12), v6(21), |_| {})),
        (D::NeighborDiscovery, solicit(v6(11), v6(99), |_| {})),
        (D::NeighborDiscovery, solicit(v6(11), v6(11), |_| {})),
        (D::Malformed, solicit(v6(11), v6(21), |f| f[21] = 254)),
        (D::Malformed, solicit(v6(11), v6(21), |f| f[56] ^= 1)),
        // A router advertisement.
        (D::NeighborDiscovery, solicit(v6(11), v6(21), |f| f[54] = 134)),
    ];
    for (reason, frame) in cases {
        let (mut a, _) = pair();
        assert!(a.frame(11, &frame).is_empty());
        assert_eq!(a.drops(), [(reason, 1)]);
    }
}

#[test]
fn n17_the_switch_routes_between_subnets() {
    // Hosts 11 and 21 think the other is behind the gateway.
    let (mut a, mut b) = pair();
    let frame = to_router(udp(11, 21, (1, 2), b"routed"));
    let out = cross(&mut a, &mut b, 11, &frame);
    let [(21, routed)] = &out[..] else { panic!("delivered: {out:?}") };
    assert_checksums(routed);
    assert_eq!(routed[..6], mac(21).0);
    assert_eq!((routed[22], frame[22]), (63, 64));
    let nowhere = to_router(udp(11, 99, (1, 2), b"lost"));
    let answer = frames(&a.frame(11, &nowhere));
    assert_checksums(&answer[0].1);
    assert_eq!(a.drops(), [(DropReason::NoRoute, 1)]);
}

/// What the ports of node 1 are told when one plan follows the other.
fn told(before: &Plan, after: &Plan) -> Vec<(u32, Vec<u8>)> {
    let table = |plan: &Plan| {
        let port =
            |id: EndpointId| PortBinding { port: PortId(id.to_u128() as u32), offload: false };
        NetworkTable::build(&plan.on(1), |id| Some(port(id)))
    };
    let mut out = Batch::default();
    let announcements = table(after).announcements(&table(before));
    Node::new(1, &[after]).engine.announce(&announcements, &mut out);
    frames(&out)
}

/// The address that a frame announces, and where it is said to be.
fn announced(frame: &[u8]) -> (IpAddr, EthernetAddress) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let mac = ethernet.src_addr();
    if ethernet.ethertype() == EthernetProtocol::Arp {
        assert_eq!(ethernet.dst_addr(), EthernetAddress::BROADCAST);
        let arp = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 { source_protocol_addr: address, .. } = arp else { panic!() };
        let wanted = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: mac,
            source_protocol_addr: address,
            target_hardware_addr: mac,
            target_protocol_addr: address,
        };
        assert_eq!(arp, wanted);
        return (address.into(), mac);
    }
    assert_checksums(frame);
    assert_eq!(ethernet.dst_addr(), EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
    let message = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert_eq!(message.neighbor_flags(), NdiscNeighborFlags::OVERRIDE);
    assert_eq!(ip.src_addr(), message.target_addr());
    (message.target_addr().into(), mac)
}

#[test]
fn n12_endpoints_are_told_who_has_come() {
    let before = Plan::new(PLAIN, &[(1, 11), (1, 12)]);
    assert_eq!(told(&before, &before), []);
    let after = Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21)]).serve(100, &[21]);
    let told_after = told(&before, &after);
    let seen: BTreeSet<_> =
        told_after.iter().map(|(port, frame)| (*port, announced(frame))).collect();
    let mut wanted = BTreeSet::new();
    for port in [11, 12] {
        for (host, mac) in [(21, mac(21)), (100, ROUTER_MAC)] {
            wanted.insert((port, (v4(host).into(), hardware(mac))));
            wanted.insert((port, (v6(host).into(), hardware(mac))));
        }
    }
    assert_eq!((&seen, told_after.len()), (&wanted, wanted.len()));
    // One that comes here is no news to itself.
    let here = Plan::new(PLAIN, &[(1, 11), (1, 12), (1, 13), (2, 21)]).serve(100, &[21]);
    let ports: Vec<u32> = told(&after, &here).iter().map(|(port, _)| *port).collect();
    assert_eq!((ports.len(), ports.contains(&13)), (4, false));
    // Nobody is told of those who go, and nobody waits for many.
    assert_eq!(told(&after, &before), []);
    let many: Vec<_> = [(1, 11)].into_iter().chain((12..252).map(|host| (2, host))).collect();
    assert_eq!(told(&Plan::new(PLAIN, &[(1, 11)]), &Plan::new(PLAIN, &many)).len(), 128);
}
