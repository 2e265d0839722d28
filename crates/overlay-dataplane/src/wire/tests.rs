//! Views and `Repr`s against etherparse, an independent implementation.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::{
    Malformed,
    dissection::Dissection,
    ethernet::EthernetFrame,
    icmp::{ErrorRepr, Trouble},
    ipv4::Ipv4Packet,
    ipv6::Ipv6Packet,
    tcp::TcpSegment,
    udp::UdpDatagram,
    vxlan,
};

/// A frame made by etherparse, with TCP or UDP.
fn frame(
    v6: bool,
    tcp: bool,
    from: [u8; 16],
    to: [u8; 16],
    ports: (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let quarter = |bytes: [u8; 16]| [bytes[0], bytes[1], bytes[2], bytes[3]];
    let ip =
        if v6 { ethernet.ipv6(from, to, 9) } else { ethernet.ipv4(quarter(from), quarter(to), 9) };
    if tcp {
        ip.tcp(ports.0, ports.1, 7, 8).ack(9).write(&mut out, data).unwrap();
    } else {
        ip.udp(ports.0, ports.1).write(&mut out, data).unwrap();
    }
    out
}

proptest! {
    #[test]
    fn dissection_sees_what_etherparse_wrote(
        v6: bool, tcp: bool, from: [u8; 16], to: [u8; 16], ports: (u16, u16),
        data in prop::collection::vec(any::<u8>(), 0..100), padding in 0_usize..20,
    ) {
        let mut bytes = frame(v6, tcp, from, to, ports, &data);
        let end = bytes.len();
        bytes.resize(end + padding, 0);
        let seen = Dissection::of_frame(&bytes).unwrap();
        let address = |bytes: [u8; 16]| -> IpAddr {
            if v6 { Ipv6Addr::from(bytes).into() } else { Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into() }
        };
        prop_assert_eq!((seen.source, seen.destination), (address(from), address(to)));
        prop_assert_eq!((seen.ports, seen.end, seen.fragment), (Some(ports), end, None));
        let transport = &bytes[seen.transport..seen.end];
        let payload = if tcp {
            let segment = TcpSegment::new(transport).unwrap();
            prop_assert_eq!((segment.source(), segment.destination()), ports);
            prop_assert_eq!((segment.sequence(), segment.flags()), (7, 0x10));
            segment.payload()
        } else {
            let datagram = UdpDatagram::new(transport).unwrap();
            prop_assert_eq!((datagram.source(), datagram.destination()), ports);
            datagram.payload()
        };
        prop_assert_eq!(payload, &data[..]);
    }

    /// Of damaged bytes that both accept, both read the same addresses and ports; nothing panics.
    #[test]
    fn damaged_bytes_that_both_accept_are_read_alike(
        v6: bool, tcp: bool, cut in 0_usize..70, damage in prop::collection::vec((14_usize..60, any::<u8>()), 0..3),
    ) {
        let mut bytes = frame(v6, tcp, [1; 16], [2; 16], (1, 2), &[7; 20]);
        for (at, value) in damage {
            if at < bytes.len() {
                bytes[at] = value;
            }
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let ours = Dissection::of_frame(&bytes);
        let theirs = SlicedPacket::from_ethernet(&bytes);
        if let (Ok(seen), Ok(packet)) = (&ours, &theirs)
            && let (Some(net), Some(ports)) = (&packet.net, seen.ports)
        {
            let (source, destination): (IpAddr, IpAddr) = match net {
                NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
                NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
                NetSlice::Arp(_) => return Ok(()),
            };
            prop_assert_eq!((seen.source, seen.destination), (source, destination));
            match &packet.transport {
                Some(TransportSlice::Udp(udp)) => prop_assert_eq!(ports, (udp.source_port(), udp.destination_port())),
                Some(TransportSlice::Tcp(tcp)) => prop_assert_eq!(ports, (tcp.source_port(), tcp.destination_port())),
                _ => {}
            }
        }
        let _ = (EthernetFrame::new(&bytes).map(EthernetFrame::source), vxlan::parse(&bytes));
    }

    #[test]
    fn icmp_errors_are_what_etherparse_expects(v6: bool, length in 0_usize..2000) {
        let about = frame(v6, false, [1; 16], [2; 16], (1, 2), &vec![7; length]);
        let (source, destination): (IpAddr, IpAddr) = if v6 {
            (Ipv6Addr::from([3; 16]).into(), Ipv6Addr::from([1; 16]).into())
        } else {
            (Ipv4Addr::from([3; 4]).into(), Ipv4Addr::from([1; 4]).into())
        };
        let mut packet = Vec::new();
        ErrorRepr { trouble: Trouble::TooBig(1400), source, destination, packet: &about[14..] }.emit(&mut packet);
        let longest = if v6 { 1280 } else { 576 };
        prop_assert!(packet.len() <= longest);
        let parsed = SlicedPacket::from_ip(&packet).unwrap();
        match (parsed.transport.unwrap(), source, destination) {
            (TransportSlice::Icmpv4(icmp), ..) => {
                prop_assert!(Ipv4Packet::new(&packet).unwrap().verify_checksum());
                prop_assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
            }
            (TransportSlice::Icmpv6(icmp), IpAddr::V6(s), IpAddr::V6(d)) => {
                prop_assert!(icmp.is_checksum_valid(s.octets(), d.octets()));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn extension_headers_are_walked_and_long_chains_refused() {
    let chain = |headers: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, headers[0], 64];
        packet.resize(40, 0);
        for next in headers[1..].iter().chain([&17]) {
            packet.extend_from_slice(&[*next, 0, 0, 0, 0, 0, 0, 0]);
        }
        packet.extend_from_slice(&[0, 1, 0, 2, 0, 8, 0, 0]);
        let length = packet.len() as u16 - 40;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet
    };
    let seen = Ipv6Packet::new(&chain(&[0, 43, 44, 60])).unwrap().upper_layer().unwrap();
    assert_eq!((seen.protocol, seen.offset, seen.fragment), (17, 40 + 32, None));
    let long = chain(&[60; 9]);
    assert_eq!(Ipv6Packet::new(&long).unwrap().upper_layer(), Err(Malformed::Field));
    let mut fragment = chain(&[44]);
    fragment[42..48].copy_from_slice(&[0, 9, 0, 0, 0, 7]);
    let seen = Ipv6Packet::new(&fragment).unwrap().upper_layer().unwrap();
    assert_eq!(seen.fragment, Some((7, 8)));
}

#[test]
fn header_of_rfc_7348() {
    let vni = overlay_types::Vni::new(0x12_3456).unwrap();
    assert_eq!(vxlan::header(vni), [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    assert_eq!(vxlan::parse(&[0x08, 9, 9, 9, 0x12, 0x34, 0x56, 9, 1]), Ok((vni, &[1][..])));
    assert_eq!(vxlan::parse(&[0x00, 0, 0, 0, 0x12, 0x34, 0x56, 0]), Err(Malformed::Field));
    assert_eq!(vxlan::parse(&[0x08; 7]), Err(Malformed::Truncated));
}
