//! Services in VIP mode, with real traffic.

use core::net::{IpAddr, SocketAddr};
use std::{io, net::TcpStream, time::Instant};

use overlay_testkit::lab::Namespace;
use overlay_testkit::traffic::sctp_init;
use overlay_types::ServiceId;
use socket2::{Domain, Socket, Type};

use super::{
    super::netlink::fuse,
    eventually,
    fleet::{Fleet, PORT, PORTS, ask, count, endpoint, ip, of_container, of_service, with_fleet},
};
use crate::{Dataplane as _, Desired, Op, desired::LocalEndpoint, diff};

const SCTP: i32 = 132;

fn vip(number: u16, ipv6: bool) -> SocketAddr {
    SocketAddr::new(ip(of_service(number), ipv6), PORT)
}

#[test]
fn s01_new_connections_are_spread_evenly_and_answers_come_from_the_virtual_address() {
    with_fleet(11, |mut fleet| {
        let backends: Vec<usize> = (1..11).collect();
        fleet.serve(1, &backends, &[]);
        let _servers: Vec<_> = backends.iter().map(|number| fleet.server(*number)).collect();
        // Sockets that are connected take answers from the virtual address only.
        let mut answers = Vec::new();
        for number in 0..4096 {
            let socket = fleet.udp_from(0, 10_000 + number, vip(1, false));
            for port in PORT..PORT + PORTS {
                socket.connect(SocketAddr::new(vip(1, false).ip(), port)).unwrap();
                answers.push(ask(&socket).unwrap());
            }
        }
        assert_eq!(answers.len(), 1 << 16);
        let even = answers.len() / backends.len();
        let spread = count(answers.into_iter());
        assert_eq!(spread.len(), backends.len());
        for (backend, flows) in spread {
            let far = flows.abs_diff(even) * 100 / even;
            assert!(far < 3, "backend {backend} got {flows} of {even} on average");
        }
        for ipv6 in [false, true] {
            let streams = (0..50).map(|_| fleet.tcp(0, vip(1, ipv6)).unwrap());
            let spread = count(streams.map(|stream| ask(&stream).unwrap()));
            assert_eq!(spread.into_values().collect::<Vec<_>>(), [5; 10]);
        }
    });
}

#[test]
fn s01_flows_stay_with_their_backend_through_updates_drain_and_restart() {
    with_fleet(9, |mut fleet| {
        let _servers: Vec<_> = (1..9).map(|number| fleet.server(number)).collect();
        fleet.serve(1, &[1, 2, 3, 4], &[]);
        let udp: Vec<_> = (0..900)
            .map(|n| fleet.udp(0, vip(1, n % 2 == 0)))
            .map(|s| (ask(&s).unwrap(), s))
            .collect();
        let tcp: Vec<_> = (0..100)
            .map(|n| fleet.tcp(0, vip(1, n % 2 == 0)).unwrap())
            .map(|s| (ask(&s).unwrap(), s))
            .collect();
        for update in 0..50 {
            // Scaled up and down, with some of the first draining.
            let draining = [1 + update % 4];
            let staying = (1..5).filter(|n| *n != draining[0]);
            let backends: Vec<_> = staying.chain(5..5 + update * 7 % 5).collect();
            fleet.serve(1, &backends, &draining);
            fleet.serve(2 + update as u16 % 3, &[update % 8 + 1], &[]);
            if update % 10 == 9 {
                fleet.dataplane = fleet.lab.start();
                let changes = fuse::changes();
                fleet.converge();
                assert_eq!(fuse::changes(), changes, "a restart writes nothing");
            }
            for (first, socket) in &udp {
                assert_eq!(ask(socket).unwrap(), *first, "update {update}");
            }
            for (first, stream) in &tcp {
                assert_eq!(ask(stream).unwrap(), *first, "update {update}");
            }
            let port = |n| 10_000 + update as u16 * 8 + n;
            let new = (0..8).map(|n| fleet.udp_from(0, port(n), vip(1, n % 2 == 0)));
            let new = count(new.map(|socket| ask(&socket).unwrap()));
            assert!(new.keys().all(|n| backends.contains(&usize::from(*n))), "{new:?}");
        }
    });
}

#[test]
fn s12_flows_of_a_backend_that_is_gone_go_to_another_at_once_and_others_stay() {
    with_fleet(4, |mut fleet| {
        let _servers: Vec<_> = (1..4).map(|number| fleet.server(number)).collect();
        fleet.serve(1, &[1, 2], &[]);
        fleet.serve(2, &[1, 2], &[]);
        let flows = |to: u16| (0..20).map(move |n| vip(to, n % 2 == 0));
        let lost: Vec<_> = flows(1).map(|to| fleet.udp(0, to)).collect();
        let other: Vec<_> = flows(2).map(|to| fleet.udp(0, to)).collect();
        let direct = fleet.udp(0, SocketAddr::new(ip(of_container(1), false), PORT));
        let first: Vec<_> = lost.iter().chain(&other).map(|s| ask(s).unwrap()).collect();
        assert_eq!(ask(&direct).unwrap(), 1);
        assert_eq!(count(first.iter().copied()).len(), 2);
        let port = direct.local_addr().unwrap();
        fleet.serve(1, &[2, 3], &[]);
        for (socket, first) in lost.iter().zip(&first) {
            let now = ask(socket).unwrap();
            assert!(now == *first && now == 2 || *first == 1 && now != 1, "{first} {now}");
        }
        for (socket, first) in other.iter().zip(&first[20..]) {
            assert_eq!(ask(socket).unwrap(), *first, "flows of another service");
        }
        let listed = fleet.containers[0].run(&["conntrack", "-L", "-p", "udp"]).unwrap();
        assert!(listed.contains(&format!("sport={} ", port.port())), "{listed}");
        // A drained one keeps its flows, until it is listed no more.
        fleet.serve(1, &[2], &[3]);
        let third: Vec<_> = lost.iter().filter(|socket| ask(*socket).unwrap() == 3).collect();
        assert!(!third.is_empty());
        fleet.serve(1, &[2], &[]);
        assert!(third.iter().all(|socket| ask(*socket).unwrap() == 2));
    });
}

#[test]
fn s12_a_flow_that_is_older_than_the_service_finds_it() {
    with_fleet(2, |mut fleet| {
        let _server = fleet.server(1);
        // Connection tracking knows the flow as one that is not translated.
        fleet.serve(2, &[1], &[]);
        for ipv6 in [false, true] {
            let socket = fleet.udp(0, vip(1, ipv6));
            socket.send(&[0]).unwrap();
            fleet.serve(1, &[1], &[]);
            eventually("it is answered", || {
                socket.set_read_timeout(Some(core::time::Duration::from_millis(200))).unwrap();
                ask(&socket).is_ok()
            });
            // Of a service that is gone nothing is left in connection tracking.
            fleet.remove(1);
            let listed = fleet.containers[0].run(&["conntrack", "-L"]).unwrap();
            assert!(!listed.contains(&vip(1, ipv6).ip().to_string()), "{listed}");
        }
    });
}

/// Docker's virtual addresses forget a connection that was silent for a quarter of an hour.
#[test]
fn s12_an_idle_connection_lives_as_long_as_connection_tracking_says() {
    with_fleet(3, |mut fleet| {
        let _servers = [fleet.server(1), fleet.server(2)];
        fleet.serve(1, &[1, 2], &[]);
        let idle = [false, true].map(|ipv6| fleet.tcp(0, vip(1, ipv6)).unwrap());
        let first = idle.each_ref().map(|stream| ask(stream).unwrap());
        // What changes meanwhile, and a restart, leave them alone.
        fleet.serve(2, &[1], &[]);
        fleet.serve(1, &[1, 2, 0], &[]);
        fleet.dataplane = fleet.lab.start();
        fleet.converge();
        let left = idle.each_ref().map(|stream| idle_time_left(&fleet.containers[0], stream));
        assert!(left.iter().all(|left| left.is_some_and(|left| left > 3600)), "{left:?}");
        // The kernel's timer alone ends them.
        let timer = "net.netfilter.nf_conntrack_tcp_timeout_established=2";
        fleet.containers[0].run(&["sysctl", "-w", timer]).unwrap();
        assert_eq!(idle.each_ref().map(|stream| ask(stream).unwrap()), first);
        for stream in &idle {
            eventually("it is forgotten", || {
                idle_time_left(&fleet.containers[0], stream).is_none()
            });
        }
    });
}

/// Seconds that connection tracking remembers a connection for, if nothing more comes.
fn idle_time_left(client: &Namespace, stream: &TcpStream) -> Option<u64> {
    let from = stream.local_addr().unwrap();
    let family = if from.is_ipv6() { "ipv6" } else { "ipv4" };
    let listed = client.run(&["conntrack", "-L", "-p", "tcp", "-f", family]).unwrap();
    let port = format!("sport={} ", from.port());
    let entry = listed.lines().find(|entry| entry.contains(&port))?;
    Some(entry.split_whitespace().nth(2).unwrap().parse().expect("seconds"))
}

#[test]
fn s01_a_ping_of_a_virtual_address_is_answered() {
    with_fleet(2, |mut fleet| {
        fleet.serve(1, &[1], &[]);
        fleet.serve(2, &[], &[]);
        for number in [1, 2] {
            for ipv6 in [false, true] {
                let address = vip(number, ipv6).ip().to_string();
                fleet.containers[0]
                    .run(&["ping", "-c", "2", "-i", "0.2", "-W", "5", &address])
                    .unwrap();
            }
        }
    });
}

#[test]
fn s01_a_task_reaches_its_own_service() {
    with_fleet(2, |mut fleet| {
        let _servers = [fleet.server(0), fleet.server(1)];
        fleet.serve(1, &[0], &[]);
        fleet.serve(2, &[0, 1], &[]);
        for ipv6 in [false, true] {
            assert_eq!(ask(&fleet.udp(0, vip(1, ipv6))).unwrap(), 0);
            let stream = fleet.tcp(0, vip(1, ipv6)).unwrap();
            assert_eq!(ask(&stream).unwrap(), 0);
            assert_eq!(stream.peer_addr().unwrap(), vip(1, ipv6));
            let flows = (0..4).map(|_| fleet.tcp(0, vip(2, ipv6)).unwrap());
            let flows = count(flows.map(|stream| ask(&stream).unwrap()));
            assert_eq!(flows, [(0, 2), (1, 2)].into());
        }
    });
}

/// A client may have a flow to a backend's own address from the same port.
#[test]
fn s01_a_flow_to_the_backend_itself_is_another_one() {
    with_fleet(2, |mut fleet| {
        let _server = fleet.server(1);
        fleet.serve(1, &[1], &[]);
        for ipv6 in [false, true] {
            let own = ip(of_container(0), ipv6);
            let direct = SocketAddr::new(ip(of_container(1), ipv6), PORT);
            for (port, pair) in [(5001, [direct, vip(1, ipv6)]), (5002, [vip(1, ipv6), direct])] {
                let sockets = pair.map(|to| {
                    let open = || -> io::Result<std::net::UdpSocket> {
                        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
                        let socket = Socket::new(domain, Type::DGRAM, None)?;
                        socket.set_reuse_port(true)?;
                        socket.bind(&SocketAddr::new(own, port).into())?;
                        socket.connect(&to.into())?;
                        socket.set_read_timeout(Some(core::time::Duration::from_secs(5)))?;
                        Ok(socket.into())
                    };
                    fleet.containers[0].enter(open).unwrap()
                });
                for _ in 0..3 {
                    for socket in &sockets {
                        assert_eq!(ask(socket).unwrap(), 1);
                    }
                }
            }
        }
    });
}

#[test]
fn s01_without_a_backend_new_connections_are_refused_at_once_and_nothing_is_sent() {
    with_fleet(2, |mut fleet| {
        let _server = fleet.server(1);
        fleet.serve(1, &[1], &[]);
        fleet.containers[0]
            .run(&[
                "nft",
                "add table inet theirs; add chain inet theirs sent \
                { type filter hook postrouting priority 0; }; \
                add rule inet theirs sent oifname eth0 ip daddr 10.0.128.0/17 counter drop; \
                add rule inet theirs sent oifname eth0 ip6 daddr fd00:1::1:0/112 counter drop",
            ])
            .unwrap();
        for (backends, draining) in [(&[][..], &[][..]), (&[], &[1])] {
            fleet.serve(1, backends, draining);
            for ipv6 in [false, true] {
                let begin = Instant::now();
                let error = fleet.tcp(0, vip(1, ipv6)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                let error = ask(&fleet.udp(0, vip(1, ipv6))).unwrap_err();
                let kinds = [io::ErrorKind::ConnectionRefused, io::ErrorKind::PermissionDenied];
                assert!(kinds.contains(&error.kind()), "{error}");
                assert!(begin.elapsed().as_secs() < 1);
            }
        }
        let rules = fleet.ruleset(0);
        assert_eq!(rules.matches("counter packets 0 bytes 0").count(), 2, "{rules}");
        // It comes back.
        fleet.serve(1, &[1], &[]);
        assert_eq!(ask(&fleet.udp(0, vip(1, false))).unwrap(), 1);
    });
}

#[test]
fn d07_services_endpoints_and_networks_that_go_leave_nothing_in_the_containers() {
    with_fleet(2, |mut fleet| {
        let theirs = "add table ip nat; add chain ip nat OUTPUT { type nat hook output priority -100; }; \
            add rule ip nat OUTPUT ip daddr 192.0.2.9 dnat to 192.0.2.10; \
            add table inet theirs; add set inet theirs some { type ipv4_addr; elements = { 10.0.128.1 } }";
        for container in &fleet.containers {
            container.run(&["nft", theirs]).unwrap();
        }
        let before = [fleet.ruleset(0), fleet.ruleset(1)];
        let rulesets = |fleet: &Fleet| [fleet.ruleset(0), fleet.ruleset(1)];
        fleet.serve(1, &[0, 1], &[]);
        let with_one = rulesets(&fleet);
        assert!(with_one[0].contains(&before[0]), "what others have is as it was");
        fleet.serve(2, &[1], &[0]);
        fleet.remove(2);
        assert_eq!(rulesets(&fleet), with_one);
        fleet.remove(1);
        assert_eq!(rulesets(&fleet), before);

        fleet.serve(1, &[0, 1], &[]);
        let gone = fleet.network().locals.remove(&endpoint(0));
        fleet.converge();
        assert_eq!(fleet.ruleset(0), before[0]);
        fleet.network().locals.extend(gone.map(|local| (endpoint(0), local)));
        fleet.converge();
        assert_eq!(rulesets(&fleet), with_one, "plugged in again, it has them again");
        let desired = core::mem::take(&mut fleet.desired);
        fleet.converge();
        assert_eq!(rulesets(&fleet), before);
        // And what a process before this one made.
        fleet.desired = desired;
        fleet.converge();
        fleet.dataplane = fleet.lab.start();
        fleet.desired = Desired::default();
        fleet.converge();
        assert_eq!(rulesets(&fleet), before);
    });
}

#[test]
fn d06_what_was_changed_by_hand_in_a_container_is_put_back() {
    with_fleet(2, |mut fleet| {
        fleet.serve(1, &[0, 1], &[]);
        fleet.serve(2, &[1], &[0]);
        let before = fleet.table(0);
        let table = format!("inet overlay_vip_{}", endpoint(0));
        let service = format!("service_{}", ServiceId::from_u128(1));
        for (number, damage) in [
            "flush ruleset".to_owned(),
            format!("delete table {table}"),
            format!("flush table {table}"),
            format!("flush chain {table} vip"),
            format!("flush chain {table} {service}"),
            format!("delete chain {table} output"),
            format!("add chain {table} more"),
            format!("add rule {table} output counter"),
            format!("insert rule {table} {service} ip daddr 10.0.128.1 drop"),
            format!("add set {table} more {{ type ipv4_addr; }}"),
            format!("flush map {table} vips4"),
            format!("delete element {table} vips6 {{ fd00:1::1:1 }}"),
            format!("add element {table} vips4 {{ 10.0.128.9 : jump {service} }}"),
            format!("add element {table} vips4 {{ 10.0.128.10 : goto {service} }}"),
            format!("flush set {table} addresses4"),
            format!("flush map {table} backends4_1"),
            format!("add element {table} backends4_1 {{ 10.0.128.1 . 7 : 10.0.1.9 . :: }}"),
            format!("add element {table} backends4_2 {{ 10.0.128.66 . 0 : 10.0.1.9 . :: }}"),
            format!("add chain {table} service_0000000000000000000000009"),
            format!("add table {table} {{ flags dormant; }}"),
        ]
        .into_iter()
        .enumerate()
        {
            fleet.containers[0].run(&["nft", &damage]).unwrap();
            assert_ne!(fleet.table(0), before, "{damage}: it changes nothing");
            if number % 2 == 1 {
                fleet.dataplane = fleet.lab.start();
            }
            let ops =
                diff(&fleet.desired, &crate::Dataplane::observe(&mut fleet.dataplane).unwrap());
            assert!(!ops.is_empty(), "{damage}: it is not seen");
            fleet.converge();
            let after = fleet.table(0).unwrap();
            assert_eq!(normal(after), normal(before.clone().unwrap()), "{damage}");
        }
    });
}

/// A table without the order of turns, which differs where it was lost.
fn normal(table: super::Table) -> (super::Table, Vec<super::super::nft::Data>) {
    let mut table = table;
    let mut backends = Vec::new();
    for (_, set) in table.sets.iter_mut().filter(|(name, _)| name.starts_with("backends")) {
        backends.extend(core::mem::take(&mut set.elements).into_values().flatten());
    }
    backends.sort_by_key(|data| format!("{data:?}"));
    (table, backends)
}

/// By somebody who knows nothing of this code.
#[test]
fn d05_the_nft_command_shows_what_was_asked_for() {
    with_fleet(3, |mut fleet| {
        fleet.serve(1, &[1, 2], &[0]);
        fleet.serve(2, &[], &[]);
        let text = fleet.containers[0].run(&["nft", "-j", "list ruleset"]).unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let of = |kind: &str, name: &str| {
            let mut objects =
                all["nftables"].as_array().unwrap().iter().map(|object| &object[kind]);
            objects.find(|object| object["name"] == name).cloned()
        };
        for (ipv6, name) in [(false, "vips4"), (true, "vips6")] {
            let elements = of("map", name).unwrap()["elem"].clone();
            for number in [1_u16, 2] {
                let chain = format!("service_{}", ServiceId::from_u128(number.into()));
                let verdict = serde_json::json!({"jump": {"target": chain}});
                let element = serde_json::json!([vip(number, ipv6).ip().to_string(), verdict]);
                assert!(elements.as_array().unwrap().contains(&element), "{elements}");
                assert!(of("chain", &chain).is_some());
            }
            let backends = of("map", if ipv6 { "backends6_1" } else { "backends4_1" }).unwrap();
            for number in 0..3 {
                let address = ip(of_container(number), ipv6).to_string();
                let id = IpAddr::from(endpoint(number).to_bytes()).to_string();
                let value = serde_json::json!({"concat": [address, id]});
                let elements = backends["elem"].as_array().unwrap();
                assert!(elements.iter().any(|pair| pair[1] == value), "{elements:?}");
            }
        }
    });
}

#[test]
fn a_container_that_is_gone_is_no_error_for_the_others() {
    with_fleet(3, |mut fleet| {
        let _server = fleet.server(1);
        fleet.serve(1, &[1], &[]);
        fleet.containers.pop().unwrap().end();
        // Nothing was observed in between.
        let service = fleet.network().services[&ServiceId::from_u128(1)].clone();
        let vips = of_service(3);
        let service = crate::desired::Service { vips, ..service };
        fleet.apply(Op::PutService(
            super::fleet::NETWORK,
            ServiceId::from_u128(3),
            service.clone(),
        ));
        assert_eq!(ask(&fleet.udp(0, vip(3, false))).unwrap(), 1);
        fleet.network().services.insert(ServiceId::from_u128(3), service);
        fleet.network().locals.remove(&endpoint(2));
        fleet.converge();
    });
}

/// Sockets that are kept for the next change of its services let go of its namespace, whose end the port shows.
#[test]
fn d07_a_container_that_is_gone_is_not_held_on_to() {
    with_fleet(2, |mut fleet| {
        fleet.serve(1, &[1], &[]);
        assert_eq!(fleet.ports(), 2);
        fleet.containers.pop().unwrap().end();
        eventually("its namespace ends", || {
            fleet.dataplane.observe().unwrap();
            fleet.ports() == 1
        });
    });
}

/// On several networks, with equal subnets, and equal virtual addresses.
#[test]
fn d01_each_network_of_a_container_has_its_own_services() {
    with_fleet(3, |mut fleet| {
        let _servers = [fleet.server(1), fleet.server(2)];
        fleet.serve(1, &[1], &[]);
        let one = fleet.ruleset(0);
        let mut other = fleet.network().clone();
        other.settings = super::fleet::network_settings(4098);
        let local = |number: usize| LocalEndpoint {
            port: crate::desired::PortKind::Veth {
                name: "eth1".into(),
                netns: fleet.containers[number].path(),
            },
            ..other.locals[&endpoint(number)].clone()
        };
        other.locals = [0, 2].map(|number| (endpoint(number + 50), local(number))).into();
        for service in other.services.values_mut() {
            service.backends = std::mem::take(&mut service.backends)
                .into_values()
                .map(|b| {
                    (endpoint(52), crate::desired::Backend { addresses: of_container(2), ..b })
                })
                .collect();
        }
        let id = overlay_types::NetworkId::from_u128(2);
        fleet.desired.networks.insert(id, other);
        fleet.converge();
        // By the device that leads there: the first one, then, without it, the other.
        assert_eq!(ask(&fleet.udp(0, vip(1, false))).unwrap(), 1);
        for number in [0, 2] {
            fleet.containers[number].ip("link set eth0 down").unwrap();
        }
        assert_eq!(ask(&fleet.udp(0, vip(1, false))).unwrap(), 2);
        fleet.desired.networks.remove(&id);
        fleet.converge();
        assert_eq!(fleet.ruleset(0), one);
    });
}

/// A namespace behind a container reaches services by it.
#[test]
fn s01_what_a_container_forwards_reaches_services_too() {
    with_fleet(2, |mut fleet| {
        let _server = fleet.server(1);
        fleet.serve(1, &[1], &[]);
        let inner = Namespace::new().unwrap();
        fleet.containers[0].connect("inner", &inner, "eth0").unwrap();
        for (ipv6, outside, inside) in
            [(false, "10.99.0.1/24", "10.99.0.2/24"), (true, "fd99::1/64", "fd99::2/64")]
        {
            let version = if ipv6 { "-6" } else { "-4" };
            let nodad = if ipv6 { "nodad" } else { "" };
            fleet.containers[0].ip(&format!("address add {outside} dev inner {nodad}")).unwrap();
            inner.ip(&format!("address add {inside} dev eth0 {nodad}")).unwrap();
            let via = outside.split('/').next().unwrap();
            inner.ip(&format!("{version} route add default via {via}")).unwrap();
        }
        fleet.containers[0]
            .enter(|| {
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
                std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
            })
            .unwrap();
        let masquerade = "add table inet theirs; add chain inet theirs out \
            { type nat hook postrouting priority 100; }; \
            add rule inet theirs out oifname eth0 masquerade";
        fleet.containers[0].run(&["nft", masquerade]).unwrap();
        fleet.containers.push(inner);
        for ipv6 in [false, true] {
            assert_eq!(ask(&fleet.udp(2, vip(1, ipv6))).unwrap(), 1);
            assert_eq!(ask(&fleet.tcp(2, vip(1, ipv6)).unwrap()).unwrap(), 1);
        }
        fleet.serve(1, &[], &[]);
        for ipv6 in [false, true] {
            let error = fleet.tcp(2, vip(1, ipv6)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn s01_sctp_is_translated() {
    with_fleet(2, |mut fleet| {
        fleet.serve(1, &[1], &[]);
        let raw = |number: usize| {
            let open = || Socket::new(Domain::IPV4, Type::RAW, Some(SCTP.into()));
            fleet.containers[number].enter(open).unwrap()
        };
        let server = raw(1);
        server.set_read_timeout(Some(super::DEADLINE)).unwrap();
        raw(0).send_to(&sctp_init(PORT), &vip(1, false).into()).unwrap();
        let mut buffer = [0; 128];
        let length = io::Read::read(&mut &server, &mut buffer).unwrap();
        assert_eq!(
            IpAddr::from([buffer[16], buffer[17], buffer[18], buffer[19]]),
            ip(of_container(1), false)
        );
        assert_eq!(buffer[20..length], sctp_init(PORT));
    });
}

#[test]
fn s01_thousands_of_services_are_put_compared_changed_and_taken_over() {
    with_fleet(2, |mut fleet| {
        let _server = fleet.server(1);
        fleet.serve(1, &[1], &[]);
        let one = fleet.network().services[&ServiceId::from_u128(1)].clone();
        for number in 1..2_000 {
            let service = crate::desired::Service { vips: of_service(number), ..one.clone() };
            fleet.network().services.insert(ServiceId::from_u128(number.into()), service);
        }
        fleet.converge();
        assert_eq!(fleet.table(0).unwrap().sets["vips6"].elements.len(), 1999);
        assert_eq!(ask(&fleet.udp(0, vip(1999, true))).unwrap(), 1);
        // A change among them is as large as a change without them.
        let changes = fuse::changes();
        fleet.serve(1500, &[0, 1], &[]);
        assert!(fuse::changes() - changes < 30, "{}", fuse::changes() - changes);
        fleet.dataplane = fleet.lab.start();
        let changes = fuse::changes();
        fleet.converge();
        assert_eq!(fuse::changes(), changes);
        fleet.network().services.clear();
        fleet.converge();
        assert_eq!(fleet.table(0), None);
    });
}
