//! VIP translation: S01, S12, and what a strict endpoint stack would notice.

use std::collections::BTreeMap;

use core::time::Duration;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::*;

const VIP: u8 = 100;

/// Client 11 on node 1; backends 12 on node 1, 21 on node 2, 31 on node 3.
fn plan() -> Plan {
    Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21), (3, 31)]).serve(VIP, &[12, 21, 31])
}

/// Addresses and ports of a frame, read by etherparse.
fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination): (IpAddr, IpAddr) = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let ports = match packet.transport.unwrap() {
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        other => panic!("{other:?}"),
    };
    ((source, ports.0), (destination, ports.1))
}

fn tcp(from: u8, to: u8, ports: (u16, u16), flags: &str) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .tcp(ports.0, ports.1, 1, 512);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(9),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("{other}"),
        };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, b"").unwrap();
    frame
}

/// The inner frame that leaves node 1 for the VIP, wherever it goes.
fn sent(a: &mut Node, frame: Vec<u8>) -> Vec<u8> {
    let out = a.frame(11, &to_router(frame));
    match (&datagrams(&out)[..], &frames(&out)[..]) {
        ([(_, _, datagram)], []) => datagram[8..].to_vec(),
        ([], [(_, frame)]) => frame.clone(),
        other => panic!("one frame: {other:?}"),
    }
}

fn host(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// A frame of backend `from` to client 11, as it arrives on node 1.
fn reply(a: &mut Node, frame: &[u8], from: u8) -> Vec<(u32, Vec<u8>)> {
    if from == 12 {
        return frames(&a.frame(12, frame));
    }
    let mut datagram = vxlan::header(vni(PLAIN)).to_vec();
    datagram.extend_from_slice(frame);
    frames(&a.datagram(from / 10, Channel::Plain { source_port: 50_000 }, &datagram))
}

#[test]
fn s01_flows_spread_and_stay() {
    let mut a = Node::new(1, &[&plan()]);
    let mut count = BTreeMap::new();
    for port in 1000..1300 {
        let first = sent(&mut a, udp(11, VIP, (port, 80), b"hello"));
        assert_checksums(&first);
        let (source, destination) = ends(&first);
        assert_eq!(source, (v4(11).into(), port));
        assert_eq!(first[..6], mac(host(destination.0)).0);
        assert_eq!(ends(&sent(&mut a, udp(11, VIP, (port, 80), b"again"))).1, destination);
        *count.entry(host(destination.0)).or_insert(0) += 1;
    }
    assert_eq!(count.keys().copied().collect::<Vec<_>>(), [12, 21, 31]);
    assert!(count.values().all(|c| (70..130).contains(c)), "{count:?}");
    assert_eq!(a.engine.flows(), 300);
}

#[test]
fn s01_replies_come_from_the_virtual_address() {
    let mut a = Node::new(1, &[&plan()]);
    for v6 in [false, true] {
        for port in 1000..1020 {
            let build = if v6 { udp6 } else { udp };
            let backend = host(ends(&sent(&mut a, build(11, VIP, (port, 80), b"q"))).1.0);
            let out = reply(&mut a, &build(backend, 11, (80, port), b"answer"), backend);
            let [(11, answer)] = &out[..] else { panic!("{out:?}") };
            assert_checksums(answer);
            let vip: IpAddr = if v6 { super::v6(VIP).into() } else { v4(VIP).into() };
            assert_eq!(ends(answer).0, (vip, 80));
            // Of another port, it is no reply and stays what it is.
            let out = reply(&mut a, &build(backend, 11, (81, port), b"own"), backend);
            assert_ne!(ends(&out[0].1).0.0, vip);
        }
    }
}

#[test]
fn s01_a_flow_stays_with_its_backend_while_others_come_and_go() {
    let mut a = Node::new(1, &[&plan()]);
    let ports = 1000..1100;
    let backend = |a: &mut Node, port| host(ends(&sent(a, tcp(11, VIP, (port, 80), "A"))).1.0);
    let before: Vec<u8> = ports.clone().map(|port| backend(&mut a, port)).collect();
    let mut grown = plan();
    grown.places.push((3, 32));
    grown.services.clear();
    a.plan(&[&grown.clone().serve(VIP, &[12, 21, 31, 32])]);
    let after: Vec<u8> = ports.clone().map(|port| backend(&mut a, port)).collect();
    assert_eq!(before, after);
    // Gone: its flows move, the others stay.
    a.plan(&[&grown.serve(VIP, &[12, 31, 32])]);
    for (port, before) in ports.zip(before) {
        let now = backend(&mut a, port);
        assert!(if before == 21 { now != 21 } else { now == before });
    }
}

#[test]
fn s13_a_draining_backend_keeps_its_flows_and_gets_no_new_ones() {
    let mut a = Node::new(1, &[&plan()]);
    let backend =
        |a: &mut Node, port, flags| host(ends(&sent(a, tcp(11, VIP, (port, 80), flags))).1.0);
    let ports: Vec<u16> = (1000..1100).filter(|port| backend(&mut a, *port, "S") == 21).collect();
    let mut draining = plan();
    let (_, service) = &mut draining.services[0];
    service.backends.get_mut(&EndpointId::from_u128(21)).unwrap().draining = true;
    a.plan(&[&draining]);
    assert!(ports.len() > 10);
    for port in ports {
        assert_eq!(backend(&mut a, port, "A"), 21);
        assert_ne!(backend(&mut a, port + 5000, "S"), 21);
        // Closed and opened anew from the same port, it is a new flow.
        backend(&mut a, port, "R");
        assert_ne!(backend(&mut a, port, "S"), 21);
    }
}

#[test]
fn s01_lost_flows_find_their_backend_again() {
    let (mut a, mut fresh) = (Node::new(1, &[&plan()]), Node::new(1, &[&plan()]));
    for port in 1000..1100 {
        let frame = tcp(11, VIP, (port, 80), "A");
        assert_eq!(ends(&sent(&mut a, frame.clone())), ends(&sent(&mut fresh, frame)));
    }
}

#[test]
fn a_service_without_backends_refuses() {
    let mut a = Node::new(1, &[&Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[])]);
    for frame in [tcp(11, VIP, (1, 80), "S"), udp6(11, VIP, (1, 80), b"x")] {
        let out = frames(&a.frame(11, &to_router(frame)));
        let [(11, answer)] = &out[..] else { panic!("{out:?}") };
        assert_checksums(answer);
        assert_eq!(answer[26 + 4..26 + 8] == v4(11).octets(), answer[12] == 8);
    }
    assert_eq!(a.drops(), [(DropReason::NoBackend, 2)]);
}

#[test]
fn a_backend_that_calls_its_own_service_is_answered() {
    // The only backend is the client itself.
    let mut a = Node::new(1, &[&Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[11])]);
    let out = frames(&a.frame(11, &to_router(udp(11, VIP, (1000, 80), b"q"))));
    let [(11, request)] = &out[..] else { panic!("{out:?}") };
    assert_checksums(request);
    assert_eq!(ends(request), ((v4(VIP).into(), 1000), (v4(11).into(), 80)));
    let out = frames(&a.frame(11, &to_router(udp(11, VIP, (80, 1000), b"a"))));
    let [(11, answer)] = &out[..] else { panic!("{out:?}") };
    assert_checksums(answer);
    assert_eq!(ends(answer), ((v4(VIP).into(), 80), (v4(11).into(), 1000)));
    assert_eq!(a.engine.flows(), 1);
}

#[test]
fn two_services_with_one_backend_are_told_apart() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(100, &[21]).serve(101, &[21]);
    let mut a = Node::new(1, &[&plan]);
    let mut seen = Vec::new();
    for vip in [100, 101] {
        let (source, _) = ends(&sent(&mut a, udp(11, vip, (1000, 80), b"q")));
        seen.push((vip, source.1));
    }
    assert_eq!(seen[0].1, 1000);
    assert_ne!(seen[1].1, 1000);
    for (vip, port) in seen {
        let out = reply(&mut a, &udp(21, 11, (80, port), b"a"), 21);
        assert_checksums(&out[0].1);
        assert_eq!(ends(&out[0].1), ((v4(vip).into(), 80), (v4(11).into(), 1000)));
    }
}

#[test]
fn virtual_and_gateway_addresses_answer_pings() {
    let mut a = Node::new(1, &[&plan()]);
    for target in [VIP, 1] {
        let mut ping = Vec::new();
        PacketBuilder::ethernet2(mac(11).0, ROUTER_MAC.0)
            .ipv4(v4(11).octets(), v4(target).octets(), 64)
            .icmpv4_echo_request(7, 8)
            .write(&mut ping, b"payload")
            .unwrap();
        let mut ping6 = Vec::new();
        PacketBuilder::ethernet2(mac(11).0, ROUTER_MAC.0)
            .ipv6(v6(11).octets(), v6(target).octets(), 64)
            .icmpv6_echo_request(7, 8)
            .write(&mut ping6, b"payload")
            .unwrap();
        for ping in [ping, ping6] {
            let out = frames(&a.frame(11, &ping));
            let [(11, pong)] = &out[..] else { panic!("{out:?}") };
            assert_checksums(pong);
            assert_eq!(pong[pong.len() - 7..], *b"payload");
            match SlicedPacket::from_ethernet(pong).unwrap().transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => {
                    assert!(
                        matches!(icmp.icmp_type(), etherparse::Icmpv4Type::EchoReply(h) if h.id == 7)
                    );
                }
                TransportSlice::Icmpv6(icmp) => {
                    assert!(
                        matches!(icmp.icmp_type(), etherparse::Icmpv6Type::EchoReply(h) if h.id == 7)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(a.drops(), []);
}

/// An ICMP error of `from` to `to` that quotes the IP packet in `about`.
fn icmp_error(from: u8, to: u8, about: &[u8]) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = if about[12] == 8 {
        (v4(from).into(), v4(to).into())
    } else {
        (v6(from).into(), v6(to).into())
    };
    let mut frame = [&mac(to).0[..], &mac(from).0[..], &about[12..14]].concat();
    crate::wire::icmp::ErrorRepr {
        trouble: crate::wire::icmp::Trouble::PortUnreachable,
        source,
        destination,
        packet: &about[14..],
    }
    .emit(&mut frame);
    frame
}

#[test]
fn icmp_errors_name_what_the_client_sent() {
    for build in [udp, udp6] {
        let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
        let mut a = Node::new(1, &[&plan]);
        let original = to_router(build(11, VIP, (1000, 80), b"q"));
        let sent = datagrams(&a.frame(11, &original)).remove(0).2;
        let out = reply(&mut a, &icmp_error(21, 11, &sent[8..]), 21);
        let [(11, error)] = &out[..] else { panic!("{out:?}") };
        assert_checksums(error);
        // The quoted packet is byte for byte the one that the client sent.
        let at = if original[12] == 8 { 14 + 20 + 8 } else { 14 + 40 + 8 };
        assert_eq!(error[at..], original[14..]);
        let source = &error[if original[12] == 8 { 26..30 } else { 22..38 }];
        let vip = &original[if original[12] == 8 { 30..34 } else { 38..54 }];
        assert_eq!(source, vip);
    }
}

#[test]
fn icmp_errors_of_the_client_reach_the_backend() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    a.frame(11, &to_router(udp(11, VIP, (1000, 80), b"q")));
    let original = udp(21, 11, (80, 1000), b"a");
    let seen = reply(&mut a, &original, 21).remove(0).1;
    let error = to_router(icmp_error(11, VIP, &seen));
    let out = datagrams(&a.frame(11, &error)).remove(0).2;
    assert_checksums(&out[8..]);
    assert_eq!(out[8..14], mac(21).0);
    assert_eq!(out[8 + 14 + 20 + 8..], original[14..]);
}

fn sctp(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .write(&mut frame, etherparse::IpNumber(132), &{
            let mut packet = vec![0; 32];
            packet[..2].copy_from_slice(&ports.0.to_be_bytes());
            packet[2..4].copy_from_slice(&ports.1.to_be_bytes());
            packet[8..12].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
            packet[12] = 1;
            packet
        })
        .unwrap();
    frame
}

#[test]
fn s01_sctp_is_translated_and_its_checksum_is_not_touched() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    let original = sctp(11, VIP, (5000, 5001));
    let out = sent(&mut a, original.clone());
    assert_eq!(out[30..34], v4(21).octets());
    assert_eq!(out[34..], original[34..]);
    let back = sctp(21, 11, (5001, 5000));
    let out = reply(&mut a, &back, 21);
    assert_eq!(out[0].1[26..30], v4(VIP).octets());
    assert_eq!(out[0].1[34..], back[34..]);
}

#[test]
fn fragments_follow_their_first() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let fragments = |from, to, ports| {
        let whole = udp(from, to, ports, &[7; 64]);
        let part = |range: core::ops::Range<usize>, flags: [u8; 2]| {
            let mut frame = whole[..34].to_vec();
            frame.extend_from_slice(&whole[34..][range.clone()]);
            frame[16..18].copy_from_slice(&(20 + range.len() as u16).to_be_bytes());
            frame[18..22].copy_from_slice(&[0xab, 0xcd, flags[0], flags[1]]);
            crate::wire::ipv4::fill_checksum(&mut frame[14..]);
            frame
        };
        [part(0..40, [0x20, 0]), part(40..72, [0, 5])]
    };
    let mut a = Node::new(1, &[&plan]);
    let [first, second] = fragments(11, VIP, (1000, 80));
    assert!(a.frame(11, &to_router(second.clone())).is_empty());
    assert_eq!(a.drops(), [(DropReason::FragmentWithoutFlow, 1)]);
    for fragment in [first, second] {
        let out = sent(&mut a, fragment);
        assert_eq!(out[30..34], v4(21).octets());
    }
    for fragment in fragments(21, 11, (80, 1000)) {
        let out = reply(&mut a, &fragment, 21);
        assert_eq!(out[0].1[26..30], v4(VIP).octets());
    }
}

#[test]
fn s12_idle_connections_stay_and_dead_flows_go() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    sent(&mut a, tcp(11, VIP, (1, 80), "S"));
    reply(&mut a, &tcp(21, 11, (80, 1), "SA"), 21);
    sent(&mut a, udp(11, VIP, (2, 80), b""));
    sent(&mut a, tcp(11, VIP, (3, 80), "S"));
    reply(&mut a, &tcp(21, 11, (80, 3), "SA"), 21);
    sent(&mut a, tcp(11, VIP, (3, 80), "FA"));
    reply(&mut a, &tcp(21, 11, (80, 3), "FA"), 21);
    assert_eq!(a.engine.flows(), 3);
    let later = |a: &mut Node, seconds| {
        a.now += Duration::from_secs(seconds);
        for _ in 0..3 {
            a.engine.handle_timeout(a.now);
            a.now += Duration::from_secs(1);
        }
    };
    later(&mut a, 11);
    assert_eq!(a.engine.flows(), 2, "both sides have closed port 3");
    later(&mut a, 60);
    assert_eq!(a.engine.flows(), 1, "nobody answered port 2");
    later(&mut a, 24 * 3600);
    assert_eq!(a.engine.flows(), 1, "an idle connection is not broken");
}

#[test]
fn r06_the_flow_table_is_bounded_and_keeps_the_established() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    a.engine = Engine::new(Config { max_flows: 100, ..Config::new(node_address(1), 7) });
    a.plan(&[&plan]);
    for port in 1..=50 {
        sent(&mut a, tcp(11, VIP, (port, 80), "S"));
        reply(&mut a, &tcp(21, 11, (80, port), "SA"), 21);
    }
    for port in 1000..3000 {
        a.now += Duration::from_micros(1);
        sent(&mut a, tcp(11, VIP, (port, 80), "S"));
        assert!(a.engine.flows() <= 100);
    }
    assert_eq!(a.engine.counters().happened(Event::FlowsEvicted), 1950);
    for port in 1..=50 {
        let out = reply(&mut a, &tcp(21, 11, (80, port), "A"), 21);
        assert_eq!(ends(&out[0].1).0.0, IpAddr::from(v4(VIP)), "port {port} was pushed out");
    }
}

#[test]
fn super_frames_to_a_service_are_translated_whole() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    let frame = to_router(offload::tcp_super_frame(11, VIP, 4000));
    let offload = Offload::Segment(core::num::NonZeroU16::new(1300).unwrap());
    let sent = datagrams(&a.super_frame(11, &frame, offload));
    assert_eq!(sent.len(), 4);
    for (_, _, datagram) in sent {
        assert_checksums(&datagram[8..]);
        assert_eq!(ends(&datagram[8..]).1, (v4(21).into(), 80));
    }
}

/// A client that talks to a backend itself, from the port of a flow that leads to the same one.
#[test]
fn s01_a_connection_to_a_backend_itself_is_told_apart_from_a_flow() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    let direct = |a: &mut Node, frame: &[u8]| {
        let out = datagrams(&a.frame(11, frame));
        let [(_, _, datagram)] = &out[..] else { panic!("one datagram: {out:?}") };
        assert_checksums(&datagram[8..]);
        ends(&datagram[8..])
    };
    let back = |a: &mut Node, port| {
        let out = reply(a, &udp(21, 11, (80, port), b"answer"), 21);
        let [(11, answer)] = &out[..] else { panic!("{out:?}") };
        assert_checksums(answer);
        ends(answer)
    };
    let (client, backend) = ((v4(11).into(), 1000), (v4(21).into(), 80));
    let frame = udp(11, 21, (1000, 80), b"to the backend itself");
    assert_eq!(direct(&mut a, &frame), (client, backend), "nothing to tell apart yet");
    assert_eq!(ends(&sent(&mut a, udp(11, VIP, (1000, 80), b"q"))), (client, backend));

    let (seen_as, to) = direct(&mut a, &frame);
    assert_eq!((seen_as.0, to), (client.0, backend));
    assert_ne!(seen_as.1, 1000);
    assert_eq!(direct(&mut a, &frame), (seen_as, backend), "it stays");
    assert_eq!(back(&mut a, seen_as.1), (backend, client));
    assert_eq!(back(&mut a, 1000), ((v4(VIP).into(), 80), client));
    let other = ((v4(11).into(), 1001), backend);
    assert_eq!(direct(&mut a, &udp(11, 21, (1001, 80), b"x")), other);
    assert_eq!(a.engine.flows(), 2);

    // The flow to the VIP ends first: the other one keeps its port.
    a.now += Duration::from_secs(90);
    assert_eq!(direct(&mut a, &frame), (seen_as, backend));
    a.now += Duration::from_secs(90);
    a.engine.handle_timeout(a.now);
    assert_eq!(a.engine.flows(), 1);
    assert_eq!(direct(&mut a, &frame), (seen_as, backend));
    assert_eq!(a.drops(), []);
}

#[test]
fn s01_an_error_about_a_connection_to_a_backend_itself_finds_its_client() {
    let plan = Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(VIP, &[21]);
    let mut a = Node::new(1, &[&plan]);
    sent(&mut a, tcp(11, VIP, (1000, 80), "S"));
    let out = datagrams(&a.frame(11, &tcp(11, 21, (1000, 80), "S")));
    let packet = &out[0].2[8..];
    assert_ne!(ends(packet).0.1, 1000);
    let error = icmp_error(21, 11, packet);
    let out = reply(&mut a, &error, 21);
    let [(11, error)] = &out[..] else { panic!("{out:?}") };
    let quote = &error[14 + 20 + 8..];
    assert_eq!((&quote[12..20], &quote[20..24]), (&packet[26..34], &[3, 232, 0, 80][..]));
}
