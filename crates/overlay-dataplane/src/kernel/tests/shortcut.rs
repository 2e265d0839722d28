//! Frames go past the bridge where a program can send them, and by the bridge where none can.

use core::{net::IpAddr, time::Duration};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream, UdpSocket},
};

use socket2::{Domain, Socket, Type};

use super::{
    converge,
    fleet::{Fleet, NETWORK, PORT, ask, endpoint, ip, of_container, with_fleet},
};
use crate::{
    Dataplane, diff,
    kernel::{fence::ShortWay, port::port_name},
};

/// How long an answer that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// Has the bridge keep the ports of these containers apart, or not any more.
fn part(fleet: &Fleet, containers: &[usize], apart: bool) {
    for number in containers {
        let (port, apart) = (port_name(endpoint(*number)), if apart { "on" } else { "off" });
        fleet.lab.run(0, &format!("bridge link set dev {port} isolated {apart}"));
    }
}

/// Whether a container answers another one that asks from an address, by UDP and TCP.
fn answers(fleet: &Fleet, (from, address): (usize, IpAddr), to: usize) -> [bool; 2] {
    let at = SocketAddr::new(ip(of_container(to), address.is_ipv6()), PORT);
    let socket = |kind| {
        let socket = Socket::new(Domain::for_address(at), kind, None).unwrap();
        socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    };
    fleet.containers[from].enter(|| {
        let (udp, tcp) = (socket(Type::DGRAM), socket(Type::STREAM));
        udp.connect(&at.into()).unwrap();
        let udp = UdpSocket::from(udp);
        // The first one may wait for a neighbour.
        let asked = (0..3).any(|_| ask(&udp).is_ok_and(|by| usize::from(by) == to));
        let connected = tcp.connect_timeout(&at.into(), SILENCE).is_ok();
        [asked, connected && ask(&TcpStream::from(tcp)).is_ok()]
    })
}

/// The same from its own addresses.
fn reaches(fleet: &Fleet, from: usize, to: usize) -> [bool; 4] {
    let own = [false, true].map(|ipv6| ip(of_container(from), ipv6));
    let [[a, b], [c, d]] = own.map(|address| answers(fleet, (from, address), to));
    [a, b, c, d]
}

#[test]
fn n08_d01_frames_go_past_the_bridge_and_by_it_where_they_cannot() {
    with_fleet(2, |mut fleet| {
        let _servers = [fleet.server(0), fleet.server(1)];
        for exists in [true, false, true] {
            part(&fleet, &[0, 1], false);
            fleet.dataplane.short_way = ShortWay(Some(exists));
            converge(&mut fleet.dataplane, &fleet.desired);
            let programs = fleet.lab.programs(0).matches("overlay short way").count();
            assert_eq!(programs, if exists { 3 } else { 0 });
            let rules = fleet.lab.run(0, "nft list ruleset");
            assert!(rules.contains("another IP address"), "{rules}");
            assert_eq!(reaches(&fleet, 0, 1), [true; 4], "short way {exists}");
            part(&fleet, &[0, 1], true);
            assert_eq!(reaches(&fleet, 0, 1), [exists; 4], "past the bridge");
        }
        // The bridge has what is for no station here.
        let before = fleet.lab.programs(0);
        fleet.network().settings.multicast = true;
        part(&fleet, &[0, 1], false);
        fleet.converge();
        assert_ne!(fleet.lab.programs(0), before);
        part(&fleet, &[0, 1], true);
        assert_eq!(reaches(&fleet, 0, 1), [true; 4], "past a bridge that floods");
    });
}

/// What is not an endpoint's own goes by the fence, which has to say what becomes of it.
#[test]
fn n08_what_an_endpoint_may_not_send_does_not_take_the_short_way() {
    with_fleet(2, |fleet| {
        let _server = fleet.server(1);
        assert_eq!(reaches(&fleet, 0, 1), [true; 4]);
        let refused = |fleet: &Fleet, reason: &str| -> usize {
            let rules = fleet.lab.run(0, "nft list ruleset");
            let packets = |line: &str| -> Option<usize> {
                line.split("packets ").nth(1)?.split(' ').next()?.parse().ok()
            };
            rules.lines().filter(|line| line.contains(reason)).filter_map(packets).sum()
        };
        let spoofs = ["10.0.1.77/32", "fd00:1::77/128"];
        for address in spoofs {
            fleet.containers[0].ip(&format!("address add {address} dev eth0 nodad")).unwrap();
            let address = address.split('/').next().unwrap().parse().unwrap();
            let before = refused(&fleet, "another IP address");
            assert_eq!(answers(&fleet, (0, address), 1), [false; 2], "{address}");
            // Three datagrams and what opens a connection.
            assert!(refused(&fleet, "another IP address") >= before + 4, "{address}");
        }
        assert_eq!(reaches(&fleet, 0, 1), [true; 4]);
        fleet.containers[0].ip("link set eth0 address 02:42:0a:00:01:77").unwrap();
        let neighbor = "neighbor replace 10.0.1.3 lladdr 02:42:0a:00:01:03 dev eth0 nud permanent";
        fleet.containers[0].ip(neighbor).unwrap();
        let before = refused(&fleet, "another Ethernet address");
        assert_eq!(answers(&fleet, (0, ip(of_container(0), false)), 1), [false; 2]);
        assert!(refused(&fleet, "another Ethernet address") >= before + 4);
    });
}

/// A later process finds the program and its table; a table that is full is made anew.
#[test]
fn d05_the_short_way_outlives_a_process_and_grows() {
    with_fleet(2, |mut fleet| {
        let before = fleet.lab.programs(0);
        fleet.dataplane = fleet.lab.start();
        converge(&mut fleet.dataplane, &fleet.desired);
        assert_eq!(fleet.lab.programs(0), before);
        // Into the table that was there.
        fleet.add();
        fleet.converge();
        let number = |programs: &str| {
            let numbers = programs.split(" id ").skip(1).map(|rest| rest.split(' ').next());
            let numbers: BTreeSet<_> = numbers.map(|number| number.map(str::to_owned)).collect();
            assert_eq!(numbers.len(), 1, "{programs}");
            numbers
        };
        assert_eq!(number(&fleet.lab.programs(0)), number(&before));
        for _ in 3..17 {
            fleet.add();
            fleet.converge();
        }
        assert_ne!(number(&fleet.lab.programs(0)), number(&before));
        part(&fleet, &(0..17).collect::<Vec<_>>(), true);
        for to in [1, 2, 9, 16] {
            let _server = fleet.server(to);
            assert_eq!(reaches(&fleet, 0, to), [true; 4], "to {to}");
        }
        // With the gateway.
        let stations =
            |fleet: &Fleet| fleet.dataplane.programmed[&NETWORK].fence.shortcut().table_len();
        assert_eq!(stations(&fleet), 18);
        fleet.network().locals.remove(&endpoint(16));
        fleet.converge();
        assert_eq!(stations(&fleet), 17);
    });
}

/// What somebody did to the table is seen, and put back.
#[test]
fn d06_a_table_of_stations_that_was_changed_is_put_back() {
    with_fleet(2, |mut fleet| {
        let _servers = [fleet.server(0), fleet.server(1)];
        part(&fleet, &[0, 1], true);
        let programmed = &fleet.dataplane.programmed[&NETWORK];
        programmed.fence.shortcut().empty_table().unwrap();
        assert_eq!(reaches(&fleet, 0, 1), [false; 4]);
        assert_ne!(diff(&fleet.desired, &fleet.dataplane.observe().unwrap()), []);
        fleet.converge();
        assert_eq!(reaches(&fleet, 0, 1), [true; 4]);
    });
}
