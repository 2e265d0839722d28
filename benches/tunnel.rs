//! Two namespaces over veth, one TCP flow by iperf3: plain veth, the kernel's VXLAN set up by hand in
//! the plainest way, the kernel dataplane, and the user dataplane, plain and encrypted, with the CPU time that a gigabyte costs on both hosts together.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use core::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    kernel::{KernelConfig, KernelDataplane, filter::NftFilter},
    mtu,
    sa::{Sa, SaSet},
    user::{SwitchConfig, UserDataplane},
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{
    Addresses, Encapsulation, EndpointId, Epoch, MacAddr, NetworkId, NetworkSubnet, NodeId, Spi,
    Subnet, Vni,
};

/// Seconds that each measurement runs.
const SECONDS: &str = "4";

fn node(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn cable() -> Result<[Namespace; 2]> {
    let hosts = [Namespace::new()?, Namespace::new()?];
    hosts[0].connect("cable", &hosts[1], "cable")?;
    for (number, host) in (1..).zip(&hosts) {
        host.ip(&format!("address add {}/24 dev cable", node(number)))?;
    }
    Ok(hosts)
}

/// Gbit/s from one namespace to an address in the other, and CPU seconds of the machine per GB.
fn measure(from: &Namespace, to: &Namespace, address: &str) -> Result<(f64, f64)> {
    let server = to.spawn(&["iperf3", "-s", "-1"])?;
    let mut last = None;
    // The server needs a moment; iperf3 has no option to wait for it.
    for _ in 0..50 {
        let before = busy()?;
        match from.run(&["iperf3", "-c", address, "-t", SECONDS, "-f", "k"]) {
            Ok(output) => {
                let cpu = busy()? - before;
                drop(server);
                let line = output.lines().find(|l| l.contains("receiver")).context("no result")?;
                let words: Vec<&str> = line.split_whitespace().collect();
                let at = words.iter().position(|w| w.starts_with("Kbits")).context("no rate")?;
                let rate = words[at - 1].parse::<f64>()? / 1e6;
                let seconds: f64 = SECONDS.parse()?;
                return Ok((rate, cpu / (rate * seconds / 8.0)));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("never tried")?)
}

/// CPU seconds that the machine has been busy.
fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("empty /proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq; 100 ticks in a second.
    Ok([0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum::<f64>() / 100.0)
}

fn kernel() -> Result<(f64, f64)> {
    let hosts = cable()?;
    for (number, host) in [(1, &hosts[0]), (2, &hosts[1])] {
        let (own, other) = (node(number), node(3 - number));
        host.ip(&format!(
            "link add vx type vxlan id 5000 dstport 4789 local {own} remote {other}"
        ))?;
        host.ip(&format!("address add 10.0.1.{number}/24 dev vx"))?;
        host.ip("link set vx up")?;
    }
    measure(&hosts[0], &hosts[1], "10.0.1.2")
}

fn desired(number: u8, encrypted: bool, endpoint: &Namespace) -> Result<Desired> {
    let other = 3 - number;
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(5000)?,
        encrypted,
        multicast: false,
        mtu: mtu::overlay(1500, false, encrypted.then(Encapsulation::default)),
        subnets: vec![NetworkSubnet {
            subnet: Subnet::parse("subnet", "10.0.1.0/24")?,
            gateway: IpAddr::from([10, 0, 1, 254]),
        }],
    });
    let host = |number: u8| {
        let v4 = [10, 0, 1, number].into();
        (MacAddr::from_ipv4(v4), Addresses { v4: Some(v4), v6: None })
    };
    let (mac, addresses) = host(number);
    let port = PortKind::Tap { name: "eth0".into(), netns: Some(endpoint.path()) };
    network.locals.insert(EndpointId::from_u128(1), LocalEndpoint::new(mac, addresses, port));
    let (mac, addresses) = host(other);
    network
        .remotes
        .insert(EndpointId::from_u128(2), RemoteEndpoint { mac, addresses, node: node(other) });
    network.members.insert(node(other));
    let sa = |from: u8| {
        let spi = Spi::new(0x1000 + u32::from(from)).context("reserved")?;
        let id = SaId { peer: NodeId::from_u128(other.into()), epoch: Epoch::new(1), spi };
        let keys = SaKeys { spi, key: AeadKey::from_bytes([from; 32]), salt: Salt([from; 4]) };
        anyhow::Ok(Sa { id, address: node(other), keys: Arc::new(keys) })
    };
    let mut desired = Desired::default();
    desired.networks.insert(NetworkId::from_u128(1), network);
    let (outbound, inbound) = (sa(number)?, sa(other)?);
    desired.sas.outbound.insert(outbound.id.peer, outbound);
    desired.sas.inbound.insert(inbound.id, inbound);
    Ok(desired)
}

fn user(encrypted: bool) -> Result<(f64, f64)> {
    let hosts = cable()?;
    let endpoints = [Namespace::new()?, Namespace::new()?];
    let mut dataplanes = Vec::new();
    for (number, (host, endpoint)) in (1..).zip(hosts.iter().zip(&endpoints)) {
        let config = SwitchConfig::new(node(number), 1);
        let mut dataplane = host.enter(|| UserDataplane::start(config))?;
        let ops = diff(&desired(number, encrypted, endpoint)?, &dataplane.observe()?);
        dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
        dataplanes.push(dataplane);
    }
    measure(&endpoints[0], &endpoints[1], "10.0.1.2")
}

/// The kernel dataplane. The endpoint's port is a veth where the user dataplane has a TAP device.
fn kernel_dataplane() -> Result<(f64, f64)> {
    let hosts = cable()?;
    let endpoints = [Namespace::new()?, Namespace::new()?];
    for (number, (host, endpoint)) in (1..).zip(hosts.iter().zip(&endpoints)) {
        let config = KernelConfig::new(format!("/run/node{number}"), node(number));
        let start = || KernelDataplane::start(config, Box::new(NftFilter::open(4789)?));
        let mut dataplane = host.enter(start)?;
        let mut desired = desired(number, false, endpoint)?;
        desired.sas = SaSet::default();
        for local in desired.networks.values_mut().flat_map(|n| n.locals.values_mut()) {
            local.port = PortKind::Veth { name: "eth0".into(), netns: endpoint.path() };
        }
        let ops = diff(&desired, &dataplane.observe()?);
        dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    measure(&endpoints[0], &endpoints[1], "10.0.1.2")
}

fn main() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    let hosts = cable()?;
    let veth = measure(&hosts[0], &hosts[1], "192.0.2.2")?;
    let kernel = kernel()?;
    let ours = lab::isolated(kernel_dataplane)?;
    let plain = user(false)?;
    let sealed = user(true)?;
    let rows = [
        ("veth", veth),
        ("kernel vxlan", kernel),
        ("kernel dataplane", ours),
        ("user plain", plain),
        ("user encrypted", sealed),
    ];
    for (name, (rate, cpu)) in rows {
        println!("tunnel: {name}\t{rate:.2}\tGbit/s\t");
        println!("tunnel: {name}, CPU\t{cpu:.2}\ts/GB\t");
    }
    println!("tunnel: kernel dataplane / kernel vxlan\t{:.2}\t\t>= 1.0", ours.0 / kernel.0);
    println!("tunnel: user plain / kernel vxlan\t{:.2}\t\t>= 0.5", plain.0 / kernel.0);
    println!("tunnel: user encrypted / kernel vxlan\t{:.2}\t\t>= 0.3", sealed.0 / kernel.0);
    Ok(())
}
