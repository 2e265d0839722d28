//! Containers connected by our dataplanes.

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
    sa::Sa,
    user::{SwitchConfig, UserDataplane},
};
use overlay_testkit::lab::Namespace;
use overlay_types::{
    Addresses, Encapsulation, EndpointId, Epoch, MacAddr, NetworkId, NetworkSubnet, NodeId, Spi,
    Subnet, Vni,
};

use crate::layouts::{Pair, VNI, hosts, node};

/// Containers have one end of a veth pair.
pub(crate) fn kernel(name: &str) -> Result<Pair> {
    let (hosts, containers) = (hosts()?, [Namespace::new()?, Namespace::new()?]);
    for (number, (host, container)) in (1..).zip(hosts.iter().zip(&containers)) {
        let config = KernelConfig::new(format!("/run/speed{number}"), node(number));
        let start = || KernelDataplane::start(config, Box::new(NftFilter::open(4789)?));
        let mut dataplane = host.enter(start)?;
        let port = PortKind::Veth { name: "eth0".into(), netns: container.path() };
        program(&mut dataplane, &desired(number, false, port)?)?;
    }
    Ok(Pair::of_containers(name, containers, hosts))
}

/// Containers have TAP devices.
pub(crate) fn user(name: &str, encrypted: bool) -> Result<Pair> {
    let (hosts, containers) = (hosts()?, [Namespace::new()?, Namespace::new()?]);
    let mut dataplanes = Vec::new();
    for (number, (host, container)) in (1..).zip(hosts.iter().zip(&containers)) {
        let config = SwitchConfig::new(node(number), 1);
        let mut dataplane = host.enter(|| UserDataplane::start(config))?;
        let port = PortKind::Tap { name: "eth0".into(), netns: Some(container.path()) };
        program(&mut dataplane, &desired(number, encrypted, port)?)?;
        dataplanes.push(dataplane);
    }
    Ok(Pair::of_containers(name, containers, (dataplanes, hosts)))
}

fn program(dataplane: &mut impl Dataplane, desired: &Desired) -> Result<()> {
    let ops = diff(desired, &dataplane.observe()?);
    dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

/// One container here, and one on the other node.
fn desired(number: u8, encrypted: bool, port: PortKind) -> Result<Desired> {
    let other = 3 - number;
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(VNI)?,
        encrypted,
        multicast: false,
        mtu: mtu::overlay(1500, false, encrypted.then(Encapsulation::default)),
        subnets: vec![NetworkSubnet {
            subnet: Subnet::parse("subnet", "10.0.1.0/24")?,
            gateway: [10, 0, 1, 254].into(),
        }],
    });
    let station = |number: u8| {
        let v4 = [10, 0, 1, number].into();
        (MacAddr::from_ipv4(v4), Addresses { v4: Some(v4), v6: None })
    };
    let (mac, addresses) = station(number);
    network.locals.insert(EndpointId::from_u128(1), LocalEndpoint::new(mac, addresses, port));
    let (mac, addresses) = station(other);
    let remote = RemoteEndpoint { mac, addresses, node: node(other) };
    network.remotes.insert(EndpointId::from_u128(2), remote);
    network.members.insert(node(other));
    let mut desired = Desired::default();
    desired.networks.insert(NetworkId::from_u128(1), network);
    if encrypted {
        let (outbound, inbound) = (association(other, number)?, association(other, other)?);
        desired.sas.outbound.insert(outbound.id.peer, outbound);
        desired.sas.inbound.insert(inbound.id, inbound);
    }
    Ok(desired)
}

/// With node `peer`, for what node `sender` seals.
fn association(peer: u8, sender: u8) -> Result<Sa> {
    let spi = Spi::new(0x1000 + u32::from(sender)).context("reserved")?;
    let id = SaId { peer: NodeId::from_u128(peer.into()), epoch: Epoch::new(1), spi };
    let keys = SaKeys { spi, key: AeadKey::from_bytes([sender; 32]), salt: Salt([sender; 4]) };
    Ok(Sa { id, address: node(peer), keys: Arc::new(keys) })
}
