//! Address management alone, as an embedder would use it: `cargo run --example ipam`.
//!
//! No cluster, no sockets: values that answer which subnet and which address are next.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::IpAddr;

use overlay_ipam::{Family, NetworkIpam, Occupied, Owner, Pools, Request};
use overlay_types::SubnetSpec;

fn main() -> anyhow::Result<()> {
    // The pools: 10.0.0.0/8 in /24, and a unique local /48 (draw these five bytes at random).
    let ula = Pools::unique_local([0x5e, 0x1f, 0x00, 0xca, 0xfe]);
    let pools = Pools::new(Pools::default().iter().chain([ula]))?;

    // What new networks must keep clear of.
    let occupied = [
        Occupied { subnet: "10.0.0.0/24".parse()?, owner: Owner::Network("ingress") },
        Occupied { subnet: "10.0.1.0/24".parse()?, owner: Owner::HostRoute("eth0 on host-a") },
    ];

    // A dual-stack network takes a subnet of each family from the pools.
    let wanted = [Request::Any(Family::V4), Request::Any(Family::V6)];
    let subnets = pools.claim(&wanted, occupied)?;
    println!("subnets      {} and {}", subnets[0], subnets[1]);

    // Endpoints come from the upper half of the IPv4 subnet; a printer has an address in it.
    let mut specs: Vec<_> = subnets.into_iter().map(SubnetSpec::new).collect();
    specs[0].ip_range = Some("10.0.2.128/25".parse()?);
    specs[0].aux_addresses.insert("printer".parse()?, "10.0.2.129".parse()?);
    let mut network = NetworkIpam::new(specs)?;
    for subnet in network.subnets() {
        println!("gateway      {} of {}", subnet.gateway, subnet.subnet);
    }

    // One call, all or nothing: an endpoint with an address of each family.
    let endpoint = network.allocate_all(&[Family::V4.into(), Family::V6.into()])?;
    println!("endpoint     {} and {}", endpoint[0], endpoint[1]);

    // By name, also outside the ip-range.
    let chosen: IpAddr = "10.0.2.7".parse()?;
    println!("requested    {}", network.allocate(chosen)?);

    // Refusals say what is in the way and what is free.
    if let Err(error) = network.allocate(chosen) {
        println!("refused      {error}");
    }
    if let Err(error) = pools.claim(&[Request::Exactly("10.0.0.0/16".parse()?)], occupied) {
        println!("refused      {error}");
    }

    // A released address waits; the next one is another.
    network.release(endpoint[0])?;
    println!("after release of {}: {}", endpoint[0], network.allocate(Family::V4)?);

    // The state travels: what continues from the copy gives the same answers.
    let mut copy: NetworkIpam = serde_json::from_str(&serde_json::to_string(&network)?)?;
    anyhow::ensure!(copy.allocate(Family::V6)? == network.allocate(Family::V6)?);

    // Grown by a subnet; the first one is untouched.
    network.add_subnet(SubnetSpec::new("10.0.3.0/24".parse()?))?;
    for usage in network.usage() {
        let (used, reserved, free) = (usage.used, usage.reserved, usage.free);
        println!("{}: {used} used, {reserved} reserved, {free} free", usage.subnet);
    }
    Ok(())
}
