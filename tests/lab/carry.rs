//! Traffic of both families, over both.

use core::net::IpAddr;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use overlay_testkit::until::until;
use rstest::rstest;

use crate::{
    plane::{KERNELS, MIXED, Plane, USERS},
    probe::{ping, transfer},
    setup::{Cluster, Container, PATIENCE},
};

/// Octets of one transfer by TCP.
const TRANSFER: usize = 4_000_000;
/// Headers of an echo request or of a datagram.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// Largest datagrams: with a header they fill an IP packet.
const LARGEST: usize = 65_507 - 20;

/// Networks of one family and of both, each with containers on all nodes.
fn carry(planes: &[Plane], over_ipv6: bool) -> Result<()> {
    let init = "--default-addr-pool 10.0.0.0/8,fd66::/48";
    Cluster { over_ipv6, init, ..Cluster::of(planes) }.run(|lab| {
        lab.ctl(1, "network create --attachable four")?;
        lab.ctl(2, "network create --attachable --ipv6 both")?;
        lab.ctl(3, "network create --attachable --ipv6 --ipv4=false six")?;
        // Their namespaces have to be there for as long as they are attached.
        let mut all = Vec::new();
        for (network, families) in [("four", 1), ("both", 2), ("six", 1)] {
            let containers = [1, 2, 3, 1].map(|node| lab.container(node, network)).into_iter();
            let containers = containers.collect::<Result<Vec<_>>>()?;
            for container in &containers {
                ensure!(container.addresses.len() == families, "{:?}", container.addresses);
            }
            meet(&containers, over_ipv6).with_context(|| format!("on network {network}"))?;
            all.push(containers);
        }
        Ok(())
    })
}

fn meet(containers: &[Container], over_ipv6: bool) -> Result<()> {
    for from in containers {
        for to in containers.iter().filter(|to| to.endpoint != from.endpoint) {
            for address in &to.addresses {
                ping(&from.netns, *address)?;
            }
        }
    }
    // From node to node, both ways, and on one node.
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 3)] {
        let (from, to) = (&containers[from], &containers[to]);
        for address in &to.addresses {
            transfer(&from.netns, &to.netns, *address, TRANSFER)
                .with_context(|| format!("to {address}"))?;
            datagrams(from, to, *address, over_ipv6)
                .with_context(|| format!("datagrams to {address}"))?;
        }
    }
    Ok(())
}

/// Datagrams that just fit a packet, that do not, and as large as they can be.
fn datagrams(from: &Container, to: &Container, address: IpAddr, over_ipv6: bool) -> Result<()> {
    let mtu: usize = if over_ipv6 { 1430 } else { 1450 };
    let shown = from.netns.ip("link show dev eth0")?;
    ensure!(shown.contains(&format!("mtu {mtu} ")), "n09: {shown}");
    let fits = mtu - if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let whole = |size: usize| {
        let size = size.to_string();
        let address = address.to_string();
        from.netns.run(&["ping", "-c", "1", "-W", "2", "-M", "do", "-s", &size, &address])
    };
    until("a full packet crosses", PATIENCE, || whole(fits))?;
    ensure!(whole(fits + 1).is_err(), "n09: {} octets fit", fits + 1);

    let receiver = to.netns.enter(|| UdpSocket::bind(SocketAddr::new(address, 0)))?;
    receiver.set_read_timeout(Some(core::time::Duration::from_millis(500)))?;
    let target = receiver.local_addr()?;
    let sender = from.netns.enter(|| -> Result<_> {
        let any: IpAddr =
            if address.is_ipv4() { [0; 4].into() } else { core::net::Ipv6Addr::UNSPECIFIED.into() };
        Ok(UdpSocket::bind(SocketAddr::new(any, 0))?)
    })?;
    for size in [fits, fits + 1, 8_000, LARGEST] {
        let sent: Vec<u8> = (0..size).map(|place| (place * 7 + place / 251) as u8).collect();
        let mut buffer = vec![0; LARGEST + 1];
        until("a datagram arrives", PATIENCE, || {
            sender.send_to(&sent, target)?;
            let length = receiver.recv(&mut buffer)?;
            ensure!(buffer[..length] == sent, "another datagram arrives");
            Ok(())
        })
        .with_context(|| format!("{size} octets"))?;
    }
    Ok(())
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
#[case::mixed(MIXED)]
fn d01_d02_d03_n09_n12_both_families_over_ipv4(#[case] planes: [Plane; 3]) -> Result<()> {
    carry(&planes, false)
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
#[case::mixed(MIXED)]
fn d01_d02_d03_n09_n12_both_families_over_ipv6(#[case] planes: [Plane; 3]) -> Result<()> {
    carry(&planes, true)
}
