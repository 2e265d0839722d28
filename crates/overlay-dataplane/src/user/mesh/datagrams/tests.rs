#![expect(clippy::disallowed_methods, reason = "an instant to count from")]

use etherparse::{SlicedPacket, TransportSlice};

use super::{
    super::ways::tests::{PORT, mesh},
    *,
};

fn client(number: u8, port: u16) -> Client {
    let address = SocketAddr::from(([192, 0, 2, number], port));
    Client { port: PORT, address, via: Some([198, 51, 100, 1].into()) }
}

/// Both ends of a datagram as another parser reads them, and what is in it.
fn read(frame: &[u8]) -> (Ends, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    let (source, destination): (IpAddr, IpAddr) = match packet.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::NetSlice::Arp(_) => panic!("no IP"),
    };
    let ends = (
        SocketAddr::new(destination, udp.destination_port()),
        SocketAddr::new(source, udp.source_port()),
    );
    (ends, udp.payload().to_vec())
}

#[test]
fn s11_s12_a_flow_keeps_its_task_and_its_clients_address_until_it_is_silent() {
    let (mut flows, mut ways, now) = (Flows::default(), Ways::default(), Instant::now());
    ways.set(&mesh(&[(1, false), (2, false)]));
    let mut ask = |flows: &mut Flows, client, at| {
        let (ends, payload) =
            read(&flows.handle_client(client, b"question", &mut ways, at).unwrap());
        assert_eq!(payload, b"question");
        ends
    };
    let first = ask(&mut flows, client(1, 4000), now);
    assert_eq!(first.1, client(1, 4000).address);
    let second = ask(&mut flows, client(2, 4000), now);
    assert_ne!(first.0, second.0, "tasks take turns");
    let later = now + IDLE / 2;
    assert_eq!(ask(&mut flows, client(1, 4000), later), first);
    assert_eq!(flows.handle_task(second, later), Some(client(2, 4000)), "an answer keeps it, too");
    assert_eq!(flows.handle_task((first.0, second.1), later), None);

    let late = later + IDLE;
    ask(&mut flows, client(3, 4000), late);
    assert_eq!(flows.by_client.len(), 1, "the silent ones are forgotten");
    assert_eq!(flows.by_ends.len(), 1);
}

#[test]
fn s12_a_flow_to_a_task_that_is_gone_moves_and_to_one_that_drains_stays() {
    let (mut flows, mut ways, now) = (Flows::default(), Ways::default(), Instant::now());
    ways.set(&mesh(&[(1, false)]));
    let before = read(&flows.handle_client(client(1, 1), b"", &mut ways, now).unwrap()).0;
    ways.set(&mesh(&[(1, true), (2, false)]));
    flows.retain(&ways);
    assert_eq!(read(&flows.handle_client(client(1, 1), b"", &mut ways, now).unwrap()).0, before);
    ways.set(&mesh(&[(2, false)]));
    flows.retain(&ways);
    assert_eq!(flows.handle_task(before, now), None);
    let after = read(&flows.handle_client(client(1, 1), b"", &mut ways, now).unwrap()).0;
    assert_ne!(after.0, before.0);
    ways.set(&mesh(&[]));
    flows.retain(&ways);
    assert_eq!(flows.handle_client(client(1, 1), b"", &mut ways, now), Err(Dropped::NoTask));
}

#[test]
fn s11_two_clients_that_a_task_could_not_tell_apart_get_ports_of_their_own() {
    let (mut flows, mut ways, now) = (Flows::default(), Ways::new(true), Instant::now());
    ways.set(&mesh(&[(1, false)]));
    let mut seen = std::collections::BTreeSet::new();
    for number in 1..=100 {
        let frame = flows.handle_client(client(number, 65_530), b"", &mut ways, now).unwrap();
        let ends = read(&frame).0;
        assert_eq!(ends.1.ip().to_string(), "10.0.0.200");
        assert!(seen.insert(ends), "{ends:?} twice");
        assert_eq!(flows.handle_task(ends, now), Some(client(number, 65_530)));
    }
}

#[test]
fn n09_what_is_longer_than_a_packet_of_the_network_goes_nowhere() {
    let (mut flows, mut ways, now) = (Flows::default(), Ways::default(), Instant::now());
    ways.set(&mesh(&[(1, false)]));
    let most = vec![0; 1450 - 28];
    let frame = flows.handle_client(client(1, 1), &most, &mut ways, now).unwrap();
    assert_eq!(frame.len(), 1450 + ethernet::HEADER_LEN);
    let more = vec![0; 1450 - 27];
    assert_eq!(flows.handle_client(client(1, 1), &more, &mut ways, now), Err(Dropped::TooLong));
    // Over IPv6.
    let six = Client { address: "[2001:db8::1]:9".parse().unwrap(), via: None, port: PORT };
    let frame = flows.handle_client(six, &most[20..], &mut ways, now).unwrap();
    assert_eq!(read(&frame).0.0.to_string(), "[fd00::1]:80");
}
