//! Two VXLAN switches in this process, each on a loopback address with the real UDP port; a frame
//! goes in at a memory port of one and comes out at a memory port of the other.
//!
//! `cargo run --example dataplane`, no root needed.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    user::{SwitchConfig, UserDataplane, engine::Event, ports::MemoryPort},
};
use overlay_types::{Addresses, EndpointId, MacAddr, NetworkId, Vni};

fn node(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, number])
}

/// Address of the one endpoint on a node.
fn endpoint(number: u8) -> (EndpointId, MacAddr, Addresses) {
    let v4 = [10, 0, 9, number].into();
    let addresses = Addresses { v4: Some(v4), v6: None };
    (EndpointId::from_u128(number.into()), MacAddr::from_ipv4(v4), addresses)
}

/// What the node shall carry: network 4096 with its own endpoint and the other node's.
fn desired(own: u8, other: u8) -> Result<Desired> {
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(4096)?,
        encrypted: false,
        multicast: false,
        mtu: 1450,
        subnets: Vec::new(),
    });
    let (id, mac, addresses) = endpoint(own);
    let port = PortKind::Memory;
    network.locals.insert(id, LocalEndpoint::new(mac, addresses, port));
    let (id, mac, addresses) = endpoint(other);
    network.remotes.insert(id, RemoteEndpoint { mac, addresses, node: node(other) });
    network.members.insert(node(other));
    let networks = [(NetworkId::from_u128(1), network)].into();
    Ok(Desired { networks, ..Desired::default() })
}

fn start(own: u8, other: u8) -> Result<(UserDataplane, MemoryPort)> {
    let seed = 1; // random where endpoints are not trusted
    let mut dataplane = UserDataplane::start(SwitchConfig::new(node(own), seed))?;
    let ops = diff(&desired(own, other)?, &dataplane.observe()?);
    for (op, result) in ops.clone().into_iter().zip(dataplane.apply(ops)) {
        result.with_context(|| format!("{op:?}"))?;
    }
    dataplane.observe()?; // waits until all of it is in effect
    let port = dataplane.take_memory_port(endpoint(own).0).context("no memory port")?;
    Ok((dataplane, port))
}

fn main() -> Result<()> {
    let (one, port_one) = start(1, 2)?;
    let (_two, mut port_two) = start(2, 1)?;
    // Ethernet, and an IPv4 header in front of no payload: the switch looks no further.
    let mut frame = [endpoint(2).1.0, endpoint(1).1.0].concat();
    frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0]);
    frame.extend_from_slice(&[10, 0, 9, 1, 10, 0, 9, 2]);
    port_one.send(frame.clone())?;
    let received = port_two.blocking_recv().context("the switch stopped")?;
    ensure!(received == frame, "another frame came out");
    let sent = one.switch().counters().happened(Event::DatagramsOut);
    println!("{} octets crossed from {} to {} in {sent} datagram", frame.len(), node(1), node(2));
    Ok(())
}
