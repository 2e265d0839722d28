//! Published ports: from outside, from the host, and from containers of the host.

use core::net::{IpAddr, SocketAddr};
use std::net::{TcpListener, UdpSocket};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{Error, desired::Uplinks};
use overlay_testkit::{
    lab::{self, Namespace},
    traffic::{ask, connect, is_refused, listen, resumed, sctp_init},
};
use socket2::{Domain, Socket, Type};

use crate::site::{A, B, Site, converge, eventually, inside, outer, overlay};

const SCTP: i32 = 132;
const DEADLINE: core::time::Duration = core::time::Duration::from_secs(20);

#[test]
fn s15_s16_ports_of_all_protocols_and_ranges_answer_on_all_addresses_of_the_host() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    let ports = ["8080:80", "9000-9009:8000-8009", "5353:53/udp", "3868:80/sctp"];
    converge(&mut gateway, &site.uplinks(&ports)?)?;
    for ipv6 in [false, true] {
        let own = inside(&site.a, ipv6)?;
        let listener = listen(&site.a, own, 80)?;
        for address in [outer(ipv6, 1), outer(ipv6, 7)] {
            let seen = connect(&site.outside, SocketAddr::new(address, 8080), &listener)?;
            assert_eq!(seen, outer(ipv6, 9), "the client's address is kept");
        }
        for port in 9000..9010 {
            let listener = listen(&site.a, own, port - 1000)?;
            connect(&site.outside, SocketAddr::new(outer(ipv6, 1), port), &listener)?;
        }
        let server = site.a.enter(|| UdpSocket::bind((own, 53)))?;
        let seen = ask(&site.outside, SocketAddr::new(outer(ipv6, 1), 5353), &server)?;
        assert_eq!(seen, outer(ipv6, 9));
    }
    sctp_arrives(&site)?;
    // Published no more, it answers no more, and its port is free.
    converge(&mut gateway, &site.uplinks(&[])?)?;
    let _listener = listen(&site.a, inside(&site.a, false)?, 80)?;
    assert!(is_refused(&site.outside, SocketAddr::new(outer(false, 1), 8080)));
    eventually(|| listen(&site.host, outer(false, 1), 8080))?;
    Ok(())
}

fn sctp_arrives(site: &Site) -> Result<()> {
    let raw = |namespace: &Namespace| {
        namespace.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(SCTP.into())))
    };
    let server = raw(&site.a)?;
    server.set_read_timeout(Some(DEADLINE))?;
    let to = SocketAddr::new(outer(false, 1), 0);
    raw(&site.outside)?.send_to(&sctp_init(3868), &to.into())?;
    let mut buffer = [0; 128];
    let read = || std::io::Read::read(&mut &server, &mut buffer);
    let length = resumed(read).context("no INIT arrives")?;
    ensure!(buffer[22..24] == 80_u16.to_be_bytes(), "to another port: {:?}", &buffer[..length]);
    Ok(())
}

#[test]
fn s16_a_port_answers_on_the_chosen_address_only() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    let ports = ["192.0.2.7:8080:80", "[fd99::7]:8080:80", "0.0.0.0:8081:80"];
    converge(&mut gateway, &site.uplinks(&ports)?)?;
    for ipv6 in [false, true] {
        let listener = listen(&site.a, inside(&site.a, ipv6)?, 80)?;
        connect(&site.outside, SocketAddr::new(outer(ipv6, 7), 8080), &listener)?;
        assert!(is_refused(&site.outside, SocketAddr::new(outer(ipv6, 1), 8080)));
        let on_all_v4 = SocketAddr::new(outer(ipv6, 1), 8081);
        if ipv6 {
            assert!(is_refused(&site.outside, on_all_v4));
        } else {
            connect(&site.outside, on_all_v4, &listener)?;
        }
    }
    Ok(())
}

#[test]
fn s16_a_published_port_answers_on_its_own_host_and_on_the_overlay_address() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    for filtered in [false, true] {
        let site = Site::new(filtered)?;
        // The network that the endpoint is on.
        site.a.connect("eth0", &site.b, "eth0")?;
        for address in overlay().iter() {
            let (length, peer) = match address {
                IpAddr::V4(_) => ("24", "10.0.1.3/24"),
                IpAddr::V6(_) => ("64 nodad", "fd00:1::3/64 nodad"),
            };
            site.a.ip(&format!("address add {address}/{length} dev eth0"))?;
            site.b.ip(&format!("address add {peer} dev eth0"))?;
        }
        let mut gateway = site.start()?;
        converge(&mut gateway, &site.uplinks(&["8080:80", "5353:53/udp"])?)?;
        for ipv6 in [false, true] {
            let own = inside(&site.a, ipv6)?;
            let listener = listen(&site.a, own, 80)?;
            let server = site.a.enter(|| UdpSocket::bind((own, 53)))?;
            let (home, bridge) = (outer(ipv6, 1), site.gateway(ipv6)?);
            for (who, from) in [("host", &site.host), ("a", &site.a), ("b", &site.b)] {
                for address in [home, bridge].repeat(3) {
                    let seen = connect(from, SocketAddr::new(address, 8080), &listener);
                    assert_eq!(seen.with_context(|| format!("from {who}"))?, bridge);
                    let seen = ask(from, SocketAddr::new(address, 5353), &server)?;
                    assert_eq!(seen, bridge, "from {who}");
                }
            }
            let address = overlay().iter().find(|a| a.is_ipv6() == ipv6).context("no address")?;
            let listener = listen(&site.a, address, 80)?;
            let seen = connect(&site.b, SocketAddr::new(address, 8080), &listener)?;
            assert_ne!(seen, bridge, "by the network");
        }
        let listener = listen(&site.a, inside(&site.a, false)?, 80)?;
        connect(&site.host, SocketAddr::from(([127, 0, 0, 1], 8080)), &listener)?;
    }
    Ok(())
}

/// From one port, datagrams are one flow: it does not stay with the container that had the port before.
#[test]
fn s12_a_flow_of_datagrams_ends_with_the_port_that_it_came_by() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    for ipv6 in [false, true] {
        let of_a = site.uplinks(&["5353:53/udp"])?;
        let mut of_b = of_a.clone();
        let uplink = |desired: &mut Uplinks, container: &Namespace, id| {
            let found = desired.containers.get_mut(&container.path())?.endpoints.get_mut(&id)?;
            Some(core::mem::take(&mut found.ports))
        };
        let ports = uplink(&mut of_b, &site.a, A).context("a")?;
        let b = of_b.containers.get_mut(&site.b.path()).and_then(|u| u.endpoints.get_mut(&B));
        b.context("b")?.ports = ports;
        converge(&mut gateway, &of_a)?;
        let mut servers = Vec::new();
        for container in [&site.a, &site.b] {
            let own = inside(container, ipv6)?;
            let server = container.enter(|| UdpSocket::bind((own, 53)))?;
            server.set_read_timeout(Some(core::time::Duration::from_millis(50)))?;
            servers.push(server);
        }
        let client = site.outside.enter(|| UdpSocket::bind((outer(ipv6, 9), 0)))?;
        let sent = |server: &UdpSocket| {
            client.send_to(b"to whoever has it", (outer(ipv6, 1), 5353))?;
            Ok(server.recv(&mut [0; 32])?)
        };
        eventually(|| sent(&servers[0]))?;
        // What was sent more than once.
        while servers[0].recv(&mut [0; 32]).is_ok() {}
        converge(&mut gateway, &of_b)?;
        eventually(|| sent(&servers[1]))?;
        ensure!(servers[0].recv(&mut [0; 32]).is_err(), "the first one still hears it");
    }
    Ok(())
}

/// Refused at once, by its number, and the other way round nobody else gets a published port.
#[test]
fn s16_a_port_in_use_is_refused_and_a_published_one_is_in_use() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    let theirs = listen(&site.host, outer(false, 1), 8080)?;
    let desired = site.uplinks(&["8080:80", "8081:80"])?;
    let refused = gateway.reconcile(&desired).refused;
    let [(endpoints, error @ Error::PortTaken(_))] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(endpoints, &[A].into());
    assert!(error.to_string().contains("8080/tcp"), "{error}");
    // What somebody listens on is theirs; the other port is published.
    connect(&site.outside, theirs.local_addr()?, &theirs)?;
    let listener = listen(&site.a, inside(&site.a, false)?, 80)?;
    connect(&site.outside, SocketAddr::new(outer(false, 1), 8081), &listener)?;
    assert!(site.host.enter(|| TcpListener::bind("0.0.0.0:8081")).is_err());
    // An address that is not this host's.
    let elsewhere = gateway.reconcile(&site.uplinks(&["192.0.2.77:8082:80"])?).refused;
    assert!(matches!(&elsewhere[..], [(_, Error::PortTaken(_))]), "{elsewhere:?}");
    drop(theirs);
    converge(&mut gateway, &desired)?;
    converge(&mut gateway, &Uplinks::default())?;
    eventually(|| Ok(site.host.enter(|| TcpListener::bind("0.0.0.0:8081"))?))?;
    Ok(())
}

/// An address of a version of IP that containers do not have, and the host's own namespace.
#[test]
fn s16_what_cannot_be_published_is_refused() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start_as(overlay_dataplane::kernel::GatewayConfig::default())?;
    let refused = gateway.reconcile(&site.uplinks(&["[fd99::7]:8080:80"])?).refused;
    let [(_, error)] = &refused[..] else { panic!("{refused:?}") };
    assert!(error.to_string().contains("gateway-subnet"), "{error}");
    let mut desired = site.uplinks(&["8080:80"])?;
    let uplink = desired.containers.remove(&site.a.path()).context("a")?;
    desired.containers.insert(site.host.path(), uplink);
    let refused = gateway.reconcile(&desired).refused;
    let [(_, error)] = &refused[..] else { panic!("{refused:?}") };
    assert!(error.to_string().contains("8080"), "{error}");
    Ok(())
}
