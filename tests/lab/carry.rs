//! Traffic of both families, over both.

use core::net::IpAddr;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use overlay_testkit::{hosts::CABLE, lab, until::until};
use rstest::rstest;

use Travel::{Clear, Esp, EspInUdp};

use crate::{
    plane::{KERNEL_PAIR, KERNELS, MIXED, MIXED_PAIR, Plane, USERS},
    probe::{ping, transfer},
    setup::{Cluster, Container, Lab, PATIENCE},
};

/// Octets of one transfer by TCP; on clusters for the virtual machine a tenth.
const TRANSFER: usize = 4_000_000;
/// What networks have their subnets from.
const POOLS: &str = "--default-addr-pool 10.0.0.0/8,fd66::/48";

/// How frames travel between nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Travel {
    Clear,
    /// Sealed, in UDP.
    EspInUdp,
    /// Sealed, as IP protocol 50.
    Esp,
}

/// Headers of an echo request or of a datagram.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// Largest datagrams: with a header they fill an IP packet.
const LARGEST: usize = 65_507 - 20;

/// MTU of an overlay network over an underlay of 1500 octets.
const fn mtu(over_ipv6: bool, travel: Travel) -> usize {
    let over_ipv4 = match travel {
        Clear => 1450,
        // 8 UDP, 8 ESP, 8 IV, 2 trailer, 16 tag.
        EspInUdp => 1408,
        Esp => 1416,
    };
    if over_ipv6 { over_ipv4 - 20 } else { over_ipv4 }
}

/// Networks of one family and of both, each with containers on all nodes.
fn carry(planes: &[Plane], over_ipv6: bool, travel: Travel) -> Result<()> {
    let mut init = POOLS.to_owned();
    if travel == Esp {
        init += " --esp-over-ip";
    }
    Cluster { over_ipv6, init: &init, ..Cluster::of(planes) }.run(|lab| {
        let options = if travel == Clear { "" } else { "--opt encrypted" };
        lab.ctl(1, &format!("network create --attachable {options} four"))?;
        let last = planes.len() as u8;
        lab.ctl(2, &format!("network create --attachable {options} --ipv6 both"))?;
        lab.ctl(last, &format!("network create --attachable {options} --ipv6 --ipv4=false six"))?;
        let networks = [("four", 1), ("both", 2), ("six", 1)];
        meet_on(lab, &networks, mtu(over_ipv6, travel))?;
        for host in lab.hosts.iter().filter(|_| travel == Esp) {
            let sockets = host.netns.run(&["ss", "--udp", "--listening", "--numeric"])?;
            ensure!(!sockets.contains(":4500"), "{} takes ESP in UDP: {sockets}", host.name());
        }
        Ok(())
    })
}

/// Containers of networks, whose numbers of families are given: on each node, and one more on the first.
fn meet_on(lab: &Lab, networks: &[(&str, usize)], mtu: usize) -> Result<()> {
    // Their namespaces have to be there for as long as they are attached.
    let mut all = Vec::new();
    let last = lab.hosts.len() as u8;
    for (network, families) in networks {
        let nodes = (1..=last).chain([1]);
        let containers: Vec<_> =
            nodes.map(|node| lab.container(node, network)).collect::<Result<_>>()?;
        for container in &containers {
            ensure!(container.addresses.len() == *families, "{:?}", container.addresses);
        }
        let octets = if last > 2 { TRANSFER } else { TRANSFER / 10 };
        meet(&containers, mtu, octets).with_context(|| format!("on network {network}"))?;
        all.push(containers);
    }
    Ok(())
}

fn meet(containers: &[Container], mtu: usize, octets: usize) -> Result<()> {
    for from in containers {
        for to in containers.iter().filter(|to| to.endpoint != from.endpoint) {
            for address in &to.addresses {
                ping(&from.netns, *address)?;
            }
        }
    }
    // From each to the next, and on one node, whose containers are the last and the first one.
    for (place, from) in containers.iter().enumerate() {
        let to = &containers[(place + 1) % containers.len()];
        for address in &to.addresses {
            transfer(&from.netns, &to.netns, *address, octets)
                .with_context(|| format!("to {address}"))?;
            datagrams(from, to, *address, mtu)
                .with_context(|| format!("datagrams to {address}"))?;
        }
    }
    Ok(())
}

/// Datagrams that just fit a packet, that do not, and as large as they can be.
fn datagrams(from: &Container, to: &Container, address: IpAddr, mtu: usize) -> Result<()> {
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
    carry(&planes, false, Clear)
}

#[rstest]
#[case::user(USERS)]
#[case::kernel(KERNELS)]
#[case::mixed(MIXED)]
fn d01_d02_d03_n09_n12_both_families_over_ipv6(#[case] planes: [Plane; 3]) -> Result<()> {
    carry(&planes, true, Clear)
}

/// Cards that leave checksums to the kernel: the receiver's sums up each datagram, keeps the sum for what is
/// inside, and UDP in there has to agree with it.
#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn d01_d02_cards_that_leave_checksums_to_the_kernel(
    #[case] planes: [Plane; 2],
    #[values(false, true)] over_ipv6: bool,
) -> Result<()> {
    Cluster { over_ipv6, init: POOLS, ..Cluster::of(&planes) }.run(|lab| {
        for host in &lab.hosts {
            host.netns.run(&["ethtool", "--offload", CABLE, "tx", "off"])?;
        }
        lab.ctl(1, "network create --attachable --ipv6 both")?;
        meet_on(lab, &[("both", 2)], mtu(over_ipv6, Clear))
    })
}

/// Without ESP in the kernel, its nodes seal in user space.
#[rstest]
#[case::user(USERS)]
#[case::mixed(MIXED)]
fn e01_d02_n09_n12_encrypted_networks_over_ipv4(#[case] planes: [Plane; 3]) -> Result<()> {
    carry(&planes, false, EspInUdp)
}

#[rstest]
#[case::user(USERS)]
#[case::mixed(MIXED)]
fn e01_d02_n09_n12_encrypted_networks_over_ipv6(#[case] planes: [Plane; 3]) -> Result<()> {
    carry(&planes, true, EspInUdp)
}

#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn e01_e06_n09_n12_encrypted_networks_over_ipv4_with_esp(#[case] planes: [Plane; 2]) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    carry(&planes, false, EspInUdp)
}

#[rstest]
#[case::kernel(KERNEL_PAIR)]
#[case::mixed(MIXED_PAIR)]
fn e01_e06_n09_n12_encrypted_networks_over_ipv6_with_esp(#[case] planes: [Plane; 2]) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    carry(&planes, true, EspInUdp)
}

/// Without ESP in the kernel, in user space, by sockets for IP itself.
#[rstest]
#[case::over_ipv4(false)]
#[case::over_ipv6(true)]
fn e05_n09_encrypted_networks_by_ip_protocol_50(#[case] over_ipv6: bool) -> Result<()> {
    carry(&MIXED_PAIR, over_ipv6, Esp)
}

#[rstest]
#[case::kernel(KERNEL_PAIR, false)]
#[case::mixed(MIXED_PAIR, true)]
fn e05_e06_n09_encrypted_networks_by_ip_protocol_50_with_esp(
    #[case] planes: [Plane; 2],
    #[case] over_ipv6: bool,
) -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    carry(&planes, over_ipv6, Esp)
}
