//! The kernel dataplane at scale: one network with 10 000 remote endpoints, and 1 000 networks with
//! three endpoints each, all in namespaces that go with the bench.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use core::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Dataplane, Desired, Op,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    kernel::{KernelConfig, KernelDataplane, filter::NftFilter},
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{Addresses, EndpointId, MacAddr, NetworkId, NetworkSubnet, Subnet, Vni};

const REMOTES: u32 = 10_000;
const NETWORKS: u32 = 1000;
const ENDPOINTS: u32 = 3;
/// Networks that a container is on.
const SHARED: u32 = 10;

fn addresses(number: u32) -> Addresses {
    let v6 = u128::from(number) | 0xfd << 120;
    Addresses { v4: Some((0x0a00_0000 + number).into()), v6: Some(v6.into()) }
}

fn network(vni: u32) -> Result<Network> {
    let subnet = |text: &str, gateway: &str| -> Result<NetworkSubnet> {
        Ok(NetworkSubnet { subnet: Subnet::parse("subnet", text)?, gateway: gateway.parse()? })
    };
    Ok(Network::new(Settings {
        vni: Vni::for_overlay(vni)?,
        encrypted: false,
        multicast: false,
        mtu: 1450,
        subnets: vec![subnet("10.0.0.0/8", "10.255.0.1")?, subnet("fd00::/8", "fd00::ffff:1")?],
    }))
}

fn remote(number: u32) -> RemoteEndpoint {
    RemoteEndpoint {
        mac: MacAddr::from_ipv4((0x0a00_0000 + number).into()),
        addresses: addresses(number),
        node: IpAddr::from([192, 0, 2, (number % 200 + 2) as u8]),
    }
}

/// Seconds that one comparison and what follows from it take, and how many operations that was.
fn converge(dataplane: &mut KernelDataplane, desired: &Desired) -> Result<(f64, usize)> {
    let begin = Instant::now();
    let ops = diff(desired, &dataplane.observe()?);
    let count = ops.len();
    dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok((begin.elapsed().as_secs_f64(), count))
}

fn many_remotes(host: &Namespace) -> Result<()> {
    let start = || {
        let config = KernelConfig::new("/run/many", IpAddr::from([192, 0, 2, 1]));
        host.enter(|| KernelDataplane::start(config, Box::new(NftFilter::open(4789)?)))
    };
    let mut dataplane = start()?;
    let (mut desired, id) = (Desired::default(), NetworkId::from_u128(1));
    let mut entry = network(5000)?;
    let scattered = |number: u32| u128::from(number.wrapping_mul(0x9e37_79b1)) << 64 | 1;
    for number in 1..=REMOTES {
        entry.remotes.insert(EndpointId::from_u128(scattered(number)), remote(number));
    }
    desired.networks.insert(id, entry);
    let (seconds, _) = converge(&mut dataplane, &desired)?;
    println!("kernel: 10 000 remote endpoints of two families programmed\t{seconds:.3}\ts\t<= 2");
    let begin = Instant::now();
    for number in 1..=100 {
        let moved = RemoteEndpoint { node: [192, 0, 2, 250].into(), ..remote(number) };
        let op = Op::PutRemote(id, EndpointId::from_u128(scattered(number)), moved);
        dataplane.apply(vec![op]).into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let each = begin.elapsed().as_secs_f64() * 1e3 / 100.0;
    println!("kernel: one further change\t{each:.3}\tms\t<= 5");
    converge(&mut dataplane, &desired)?;
    let (seconds, count) = converge(&mut dataplane, &desired)?;
    ensure!(count == 0, "{count} operations are left");
    println!("kernel: full comparison\t{seconds:.3}\ts\t<= 1");
    let (seconds, _) = converge(&mut start()?, &desired)?;
    println!("kernel: a restart takes them over\t{seconds:.3}\ts\t<= 1");
    let (seconds, _) = converge(&mut dataplane, &Desired::default())?;
    println!("kernel: the network removed\t{seconds:.3}\ts\t");
    Ok(())
}

fn many_networks(host: &Namespace) -> Result<()> {
    let config = KernelConfig::new("/run/networks", IpAddr::from([192, 0, 2, 1]));
    let mut dataplane =
        host.enter(|| KernelDataplane::start(config, Box::new(NftFilter::open(4789)?)))?;
    let mut desired = Desired::default();
    let containers = (0..NETWORKS.div_ceil(SHARED) * ENDPOINTS).map(|_| Namespace::new());
    let containers = containers.collect::<Result<Vec<_>>>()?;
    for number in 0..NETWORKS {
        let mut entry = network(6000 + number)?;
        for endpoint in 1..=ENDPOINTS {
            let local = LocalEndpoint::new(
                MacAddr::from_ipv4((0x0a00_0000 + endpoint).into()),
                Addresses { v4: addresses(endpoint).v4, v6: None },
                PortKind::Veth {
                    name: format!("eth{number}"),
                    netns: containers[(number / SHARED * ENDPOINTS + endpoint - 1) as usize].path(),
                },
            );
            let id = EndpointId::from_u128((number * ENDPOINTS + endpoint).into());
            entry.locals.insert(id, local);
        }
        desired.networks.insert(NetworkId::from_u128(number.into()), entry);
    }
    let ops = diff(&desired, &dataplane.observe()?);
    let (mut networks, mut ports) = (0.0, 0.0);
    for op in ops {
        let begin = Instant::now();
        let spent = match &op {
            Op::PutNetwork(..) => &mut networks,
            _ => &mut ports,
        };
        dataplane.apply(vec![op]).into_iter().collect::<Result<Vec<_>, _>>()?;
        *spent += begin.elapsed().as_secs_f64() * 1e3;
    }
    let network = networks / f64::from(NETWORKS);
    println!("kernel: a network made\t{network:.2}\tms\t");
    let port = ports / f64::from(NETWORKS * ENDPOINTS);
    println!("kernel: an endpoint plugged in\t{port:.2}\tms\t");
    println!("kernel: memory of the process with 1 000 networks\t{}\tMB\t", memory()?);
    // The first reads all anew; what it finds is what the next ones start from.
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = cpu()?;
        let (seconds, count) = converge(&mut dataplane, &desired)?;
        ensure!(count == 0, "{count} operations are left");
        times.push((seconds, cpu()? - begin));
    }
    let (first, _) = times[0];
    println!(
        "kernel: first comparison of 1 000 networks with 3 endpoints each\t{first:.3}\ts\t<= 1"
    );
    let (seconds, cpu) = times[times.len() - 1];
    println!(
        "kernel: full comparison of 1 000 networks with 3 endpoints each\t{seconds:.3}\ts\t<= 1"
    );
    println!("kernel: CPU time of it\t{cpu:.3}\ts\t");
    let (seconds, _) = converge(&mut dataplane, &Desired::default())?;
    println!("kernel: all of them removed\t{seconds:.3}\ts\t");
    Ok(())
}

/// Resident memory of this process, in MB.
fn memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words: Vec<_> = line.context("no VmRSS")?.split_whitespace().collect();
    Ok(words[0].parse::<u64>()? / 1024)
}

/// CPU seconds of this process.
fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which ends the only parenthesis.
    let (_, rest) = stat.rsplit_once(") ").context("no name")?;
    let words: Vec<_> = rest.split_whitespace().collect();
    Ok((words[11].parse::<f64>()? + words[12].parse::<f64>()?) / 100.0)
}

fn main() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    lab::isolated(|| {
        let host = Namespace::new()?;
        if std::env::args().any(|argument| argument == "networks") {
            return many_networks(&host);
        }
        many_remotes(&host)?;
        many_networks(&host)
    })
}
