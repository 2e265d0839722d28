//! Published ports: from outside, from the host, and from endpoints of the host.

use core::net::{IpAddr, SocketAddr};
use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use overlay_dataplane::kernel::nft::endpoint;
use overlay_testkit::{
    lab::{self, Namespace},
    traffic::{ask, connect, is_refused, listen, resumed, sctp_init},
};
use overlay_types::Protocol;
use socket2::{Domain, Socket, Type};

use crate::{
    gateway::{Site, inside, outer, set},
    host::Host,
};

const SCTP: i32 = 132;
const DEADLINE: core::time::Duration = core::time::Duration::from_secs(20);

#[test]
fn s15_s16_tcp_reaches_the_endpoint_with_the_clients_address() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    site.publish(Protocol::Tcp, None, 8080, 80);
    // A range is one port each.
    for port in 9000..9010 {
        site.publish(Protocol::Tcp, None, port, port - 1000);
    }
    site.put()?;
    for ipv6 in [false, true] {
        let listener = listen(&site.a, inside(ipv6, 2), 80)?;
        for address in [outer(ipv6, 1), outer(ipv6, 7)] {
            let seen = connect(&site.outside, SocketAddr::new(address, 8080), &listener)?;
            assert_eq!(seen, outer(ipv6, 9));
        }
        for port in 9000..9010 {
            let listener = listen(&site.a, inside(ipv6, 2), port - 1000)?;
            connect(&site.outside, SocketAddr::new(outer(ipv6, 1), port), &listener)?;
        }
        assert!(is_refused(&site.outside, SocketAddr::new(outer(ipv6, 1), 9010)));
    }
    // Published no more, it answers no more.
    site.gateway.ports.clear();
    site.put()?;
    let _listener = listen(&site.a, inside(false, 2), 80)?;
    assert!(is_refused(&site.outside, SocketAddr::new(outer(false, 1), 8080)));
    Ok(())
}

#[test]
fn s16_udp_and_sctp_are_published_too() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    site.publish(Protocol::Udp, None, 5353, 53);
    site.publish(Protocol::Sctp, None, 3868, 80);
    site.put()?;
    for ipv6 in [false, true] {
        let server = site.a.enter(|| UdpSocket::bind((inside(ipv6, 2), 53)))?;
        let seen = ask(&site.outside, SocketAddr::new(outer(ipv6, 1), 5353), &server)?;
        assert_eq!(seen, outer(ipv6, 9));
    }
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
    let mut packet = buffer[20..length].to_vec();
    ensure!(packet[2..4] == 80_u16.to_be_bytes(), "to another port: {packet:?}");
    let checksum: [u8; 4] = packet[8..12].try_into()?;
    packet[8..12].fill(0);
    ensure!(u32::from_le_bytes(checksum) == crc32c::crc32c(&packet), "with a wrong checksum");
    Ok(())
}

#[test]
fn s16_a_port_answers_on_the_chosen_address_only() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    for ipv6 in [false, true] {
        site.publish(Protocol::Tcp, Some(outer(ipv6, 7)), 8080, 80);
    }
    // All of one version of IP.
    site.publish(Protocol::Tcp, Some(IpAddr::from([0; 4])), 8081, 80);
    site.put()?;
    let listeners = [listen(&site.a, inside(false, 2), 80)?, listen(&site.a, inside(true, 2), 80)?];
    for (ipv6, listener) in [false, true].into_iter().zip(&listeners) {
        connect(&site.outside, SocketAddr::new(outer(ipv6, 7), 8080), listener)?;
        assert!(is_refused(&site.outside, SocketAddr::new(outer(ipv6, 1), 8080)));
    }
    connect(&site.outside, SocketAddr::new(outer(false, 1), 8081), &listeners[0])?;
    assert!(is_refused(&site.outside, SocketAddr::new(outer(true, 1), 8081)));
    Ok(())
}

#[test]
fn n18_s16_a_published_port_answers_on_its_own_host() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    answers_at_home(false)?;
    answers_at_home(true)
}

fn answers_at_home(filtered: bool) -> Result<()> {
    let mut site = Site::new(filtered)?;
    site.publish(Protocol::Tcp, None, 8080, 80);
    site.publish(Protocol::Udp, None, 5353, 53);
    site.put()?;
    for ipv6 in [false, true] {
        let listener = listen(&site.a, inside(ipv6, 2), 80)?;
        let server = site.a.enter(|| UdpSocket::bind((inside(ipv6, 2), 53)))?;
        // Answers have to come back through the host: its bridge asks.
        for (who, from) in [("host", &site.host.namespace), ("a", &site.a), ("b", &site.b)] {
            // More than once: the kernel must not tell endpoints of a shorter way past the host.
            for address in [outer(ipv6, 1), inside(ipv6, 1)].repeat(3) {
                let seen = connect(from, SocketAddr::new(address, 8080), &listener);
                let seen = seen.with_context(|| format!("from {who}"))?;
                assert_eq!(seen, inside(ipv6, 1));
                let seen = ask(from, SocketAddr::new(address, 5353), &server)?;
                assert_eq!(seen, inside(ipv6, 1));
            }
        }
    }
    let listener = listen(&site.a, inside(false, 2), 80)?;
    let seen = connect(&site.host.namespace, SocketAddr::from(([127, 0, 0, 1], 8080)), &listener)?;
    assert_eq!(seen, inside(false, 1));
    Ok(())
}

/// What the bridge's `route_localnet` would open.
#[test]
fn n18_endpoints_do_not_reach_the_hosts_loopback() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let mut site = Site::new(false)?;
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let listener = listen(&site.host.namespace, loopback, 9999)?;
    let target = SocketAddr::new(loopback, 9999);
    set(&site.a, "ipv4/conf/eth0/route_localnet", 1)?;
    site.a.ip("address del 127.0.0.1/8 dev lo")?;
    site.a.ip(&format!("route add {loopback} via {}", inside(false, 1)))?;
    connect(&site.a, target, &listener)?;
    site.put()?;
    assert!(is_refused(&site.a, target));
    assert!(site.host.counted("to the host's loopback")? > 0);
    Ok(())
}

/// On the endpoint's own overlay address too, in its namespace.
#[test]
fn s16_a_port_answers_on_the_overlay_address_too() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let (mut own, peer) = (Host::new()?, Namespace::new()?);
    own.namespace.connect("eth0", &peer, "eth0")?;
    for ipv6 in [false, true] {
        let length = if ipv6 { "64 nodad" } else { "24" };
        own.namespace.ip(&format!("address add {}/{length} dev eth0", outer(ipv6, 1)))?;
        own.namespace.ip(&format!("address add {}/{length} dev eth0", outer(ipv6, 2)))?;
        peer.ip(&format!("address add {}/{length} dev eth0", outer(ipv6, 9)))?;
    }
    let ports = [(Protocol::Tcp, 8080, 80), (Protocol::Tcp, 80, 81), (Protocol::Udp, 5353, 53)];
    let addresses = [outer(false, 1), outer(true, 1)].into_iter().collect();
    let published = ports.map(|(protocol, port, target)| (addresses, protocol, port, target));
    let table = endpoint::table(published);
    own.put(&endpoint::table_id(), table.as_ref())?;
    for ipv6 in [false, true] {
        let address = outer(ipv6, 1);
        let listener = listen(&own.namespace, address, 80)?;
        let target = SocketAddr::new(address, 8080);
        assert_eq!(connect(&peer, target, &listener)?, outer(ipv6, 9));
        assert_eq!(connect(&own.namespace, target, &listener)?, address);
        let server = own.namespace.enter(|| UdpSocket::bind((address, 53)))?;
        let seen = ask(&peer, SocketAddr::new(address, 5353), &server)?;
        assert_eq!(seen, outer(ipv6, 9));
        // On another address, like that on the gateway bridge, nothing is translated twice.
        let gateway = listen(&own.namespace, outer(ipv6, 2), 80)?;
        connect(&peer, gateway.local_addr()?, &gateway)?;
    }
    Ok(())
}
