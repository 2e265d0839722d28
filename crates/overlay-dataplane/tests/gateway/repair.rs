//! What is damaged, restarted and removed.

use core::net::SocketAddr;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::desired::Uplinks;
use overlay_testkit::{
    lab,
    traffic::{connect, listen},
};

use crate::site::{A, BRIDGE, Site, converge, inside, outer, set};

#[test]
fn d05_a_restart_changes_nothing_and_connections_go_on() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let desired = site.uplinks(&["8080:80"])?;
    let mut gateway = site.start()?;
    converge(&mut gateway, &desired)?;
    let before = site.listing()?;
    let listener = listen(&site.a, inside(&site.a, false)?, 80)?;
    let target = SocketAddr::new(outer(false, 1), 8080);
    let mut client = site.outside.enter(|| TcpStream::connect(target))?;
    let (mut server, _) = listener.accept()?;
    let mut exchange = |text: &[u8]| -> Result<()> {
        let mut buffer = vec![0; text.len()];
        client.write_all(text)?;
        server.read_exact(&mut buffer)?;
        server.write_all(&buffer)?;
        client.read_exact(&mut buffer)?;
        ensure!(buffer == text);
        Ok(())
    };
    exchange(b"before")?;
    drop(gateway);
    exchange(b"without a daemon")?;
    let mut gateway = site.start()?;
    let changes = converge(&mut gateway, &desired)?;
    assert!(changes.is_empty(), "{changes:?}");
    exchange(b"after")?;
    // Somebody's flush of all rules is repaired, and the connection goes on.
    site.host.run(&["nft", "flush", "ruleset"])?;
    converge(&mut gateway, &desired)?;
    exchange(b"after a flush")?;
    drop((client, server, listener));
    // Of the connections, some lines of sockets are left.
    let quiet = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains(": "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(quiet(&site.listing()?), quiet(&before));
    Ok(())
}

/// Whatever somebody does to devices, rules and settings, the next comparison puts it back.
#[test]
fn d06_what_was_changed_by_hand_is_put_back() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let desired = site.uplinks(&["8080:80"])?;
    let mut gateway = site.start()?;
    converge(&mut gateway, &desired)?;
    let port = site.host.ip("-br link show type veth")?;
    let port = port.lines().find(|line| line.starts_with("gw")).expect("a port");
    let port = port.split('@').next().unwrap_or_default();
    let on_host = [
        "nft flush ruleset".to_owned(),
        "nft delete table inet overlay_gateway".to_owned(),
        "nft flush chain inet overlay_gateway forward".to_owned(),
        "nft flush map inet overlay_gateway on_all4".to_owned(),
        format!("ip link delete {BRIDGE}"),
        format!("ip link set {BRIDGE} down"),
        format!("ip link set {BRIDGE} address 02:00:00:00:00:77"),
        format!("ip link set {BRIDGE} group default"),
        format!("ip link set {BRIDGE} alias nobody"),
        format!("ip address flush dev {BRIDGE}"),
        format!("ip address add 172.30.0.1/24 dev {BRIDGE}"),
        format!("sysctl -w net.ipv4.conf.{BRIDGE}.route_localnet=0"),
        "sysctl -w net.ipv4.ip_forward=0".to_owned(),
        "sysctl -w net.ipv6.conf.all.forwarding=0".to_owned(),
        format!("ip link delete {port}"),
        format!("ip link set {port} down"),
        format!("ip link set {port} nomaster"),
        format!("ip link set {port} mtu 1400"),
        format!("ip link set {port} group default"),
        format!("ip link set {port} alias nobody"),
        format!("ip link set {port} type bridge_slave isolated off"),
        format!("ip link set {port} type bridge_slave hairpin on"),
    ];
    for command in &on_host {
        site.host.run(&command.split(' ').collect::<Vec<_>>())?;
        works_again(&site, &mut gateway, &desired, command)?;
    }
    for command in [
        "ip link delete gw0",
        "ip link set gw0 down",
        "ip link set gw0 mtu 1400",
        "ip address flush dev gw0",
        "ip route delete default",
        "nft flush ruleset",
    ] {
        site.a.run(&command.split(' ').collect::<Vec<_>>())?;
        works_again(&site, &mut gateway, &desired, command)?;
    }
    Ok(())
}

fn works_again(
    site: &Site,
    gateway: &mut overlay_dataplane::kernel::KernelGateway,
    desired: &Uplinks,
    command: &str,
) -> Result<()> {
    let changes = converge(gateway, desired)?;
    ensure!(!changes.is_empty(), "{command}: it is not seen");
    for ipv6 in [false, true] {
        let listener = listen(&site.a, inside(&site.a, ipv6)?, 80)?;
        let target = SocketAddr::new(outer(ipv6, 1), 8080);
        connect(&site.outside, target, &listener).context(command.to_owned())?;
        let out = listen(&site.outside, outer(ipv6, 9), 70)?;
        connect(&site.b, out.local_addr()?, &out).context(command.to_owned())?;
    }
    Ok(())
}

#[test]
fn d07_r09_removal_leaves_nothing() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(true)?;
    site.host.run(&["iptables-nft", "-P", "FORWARD", "DROP"])?;
    // What stays: the host forwards.
    set(&site.host, "ipv4/ip_forward", 1)?;
    set(&site.host, "ipv6/conf/all/forwarding", 1)?;
    let before = site.listing()?;
    let desired = site.uplinks(&["8080:80", "192.0.2.7:8081:80", "5353:53/udp"])?;
    let mut gateway = site.start()?;
    converge(&mut gateway, &desired)?;
    assert_ne!(site.listing()?, before);
    converge(&mut gateway, &Uplinks::default())?;
    assert_eq!(site.listing()?, before);
    // Nor does what is removed by a process that did not make it.
    converge(&mut gateway, &desired)?;
    drop(gateway);
    converge(&mut site.start()?, &Uplinks::default())?;
    assert_eq!(site.listing()?, before);
    // One endpoint's ports go, and its container's way out stays.
    let mut gateway = site.start()?;
    converge(&mut gateway, &site.uplinks(&[])?)?;
    let without = site.listing()?;
    converge(&mut gateway, &desired)?;
    let mut silent = desired.clone();
    let uplink = silent.containers.get_mut(&site.a.path()).expect("a");
    uplink.endpoints.entry(A).or_default().ports.clear();
    converge(&mut gateway, &silent)?;
    assert_eq!(site.listing()?, without);
    Ok(())
}

/// A change of one container does not look at the others, whose uplinks are what they were.
#[test]
fn d06_a_change_reads_what_it_is_about_and_a_comparison_everything() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let site = Site::new(false)?;
    let mut gateway = site.start()?;
    let both = site.uplinks(&[])?;
    converge(&mut gateway, &both)?;
    let routes = |container: &lab::Namespace| container.ip("route show default");
    for container in [&site.a, &site.b] {
        container.ip("route delete default")?;
    }
    // A device that goes is seen; its namespace may be another one.
    site.b.ip("link delete gw0")?;
    let published = site.uplinks(&["8080:80"])?;
    let outcome = gateway.follow(&published);
    ensure!(outcome.refused.is_empty(), "{:?}", outcome.refused);
    ensure!(routes(&site.a)?.is_empty() && routes(&site.b)?.contains("dev gw0"));
    converge(&mut gateway, &published)?;
    ensure!(routes(&site.a)?.contains("dev gw0"));
    Ok(())
}
