//! A kernel VXLAN device, set up by hand with `ip`, and a user switch understand each other.

use core::net::IpAddr;

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff, mtu,
    user::{SwitchConfig, UserDataplane, engine::DropReason},
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{Addresses, EndpointId, MacAddr, NetworkId, NetworkSubnet, Subnet, Vni};

use crate::probe::{ping, transfer};

/// Octets of one transfer by TCP: some seconds of super-frames in each direction.
const TRANSFER: usize = 100_000_000;
const VNI: u32 = 70_000;

struct Setup {
    kernel: Namespace,
    endpoint: Namespace,
    dataplane: UserDataplane,
    /// Holds the switch's sockets and its end of the cable.
    _underlay: Namespace,
}

fn host(number: u16) -> (MacAddr, Addresses) {
    let v4 = [10, 0, 1, number as u8].into();
    let v6 = [0xfd00, 0, 0, 1, 0, 0, 0, number].into();
    (MacAddr::from_ipv4(v4), Addresses { v4: Some(v4), v6: Some(v6) })
}

/// Underlay addresses of the switch and the kernel.
fn underlay(over_ipv6: bool) -> (IpAddr, IpAddr) {
    if over_ipv6 {
        (IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, 1]), IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, 2]))
    } else {
        (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]))
    }
}

fn desired(over_ipv6: bool, endpoint: &Namespace) -> Result<Desired> {
    let subnet = |text: &str, gateway: IpAddr| -> Result<_> {
        Ok(NetworkSubnet { subnet: Subnet::parse("subnet", text)?, gateway })
    };
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(VNI)?,
        encrypted: false,
        multicast: false,
        mtu: mtu::overlay(1500, over_ipv6, None),
        subnets: vec![
            subnet("10.0.1.0/24", [10, 0, 1, 1].into())?,
            subnet("fd00:0:0:1::/64", [0xfd00, 0, 0, 1, 0, 0, 0, 1].into())?,
        ],
    });
    let (_, kernel) = underlay(over_ipv6);
    network.members.insert(kernel);
    let (mac, addresses) = host(11);
    let port = PortKind::Tap { name: "eth0".into(), netns: Some(endpoint.path()) };
    network.locals.insert(EndpointId::from_u128(11), LocalEndpoint::new(mac, addresses, port));
    let (mac, addresses) = host(21);
    let remote = RemoteEndpoint { mac, addresses, node: kernel };
    network.remotes.insert(EndpointId::from_u128(21), remote);
    let mut desired = Desired::default();
    desired.networks.insert(NetworkId::from_u128(1), network);
    Ok(desired)
}

fn setup(over_ipv6: bool) -> Result<Setup> {
    let (kernel, endpoint, switch) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
    switch.connect("cable", &kernel, "cable")?;
    let (ours, theirs) = underlay(over_ipv6);
    let length = if over_ipv6 { "64 nodad" } else { "24" };
    switch.ip(&format!("address add {ours}/{length} dev cable"))?;
    kernel.ip(&format!("address add {theirs}/{length} dev cable"))?;

    let ((mac, addresses), (peer_mac, peer)) = (host(21), host(11));
    let mtu = mtu::overlay(1500, over_ipv6, None);
    kernel.ip(&format!(
        "link add vx type vxlan id {VNI} dstport 4789 local {theirs} remote {ours} nolearning"
    ))?;
    kernel.ip(&format!("link set vx address {mac} mtu {mtu} up"))?;
    for address in addresses.iter() {
        let length = if address.is_ipv4() { "24" } else { "64 nodad" };
        kernel.ip(&format!("address add {address}/{length} dev vx"))?;
    }
    for address in peer.iter() {
        kernel.ip(&format!("neighbor add {address} lladdr {peer_mac} nud permanent dev vx"))?;
    }

    let mut dataplane = switch.enter(|| UserDataplane::start(SwitchConfig::new(ours, 1)))?;
    let ops = diff(&desired(over_ipv6, &endpoint)?, &dataplane.observe()?);
    dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Setup { kernel, endpoint, dataplane, _underlay: switch })
}

fn check(over_ipv6: bool) -> Result<()> {
    let setup = setup(over_ipv6)?;
    let (_, ours) = host(11);
    let (_, theirs) = host(21);
    for (mine, other) in ours.iter().zip(theirs.iter()) {
        ping(&setup.endpoint, other).context("from the user switch to the kernel")?;
        ping(&setup.kernel, mine).context("from the kernel to the user switch")?;
        transfer(&setup.endpoint, &setup.kernel, other, TRANSFER)
            .with_context(|| format!("from the user switch to {other}"))?;
        transfer(&setup.kernel, &setup.endpoint, mine, TRANSFER)
            .with_context(|| format!("from the kernel to {mine}"))?;
    }
    // What stacks say unasked, some of it before the switch has tables, is dropped by name;
    // nothing else is.
    let said = [
        DropReason::NeighborDiscovery,
        DropReason::Group,
        DropReason::SpoofedIp,
        DropReason::UnknownVni,
        DropReason::UnknownPort,
    ];
    let counters = setup.dataplane.switch().counters();
    let others: Vec<_> =
        counters.drops().filter(|(reason, count)| *count > 0 && !said.contains(reason)).collect();
    ensure!(others.is_empty(), "unexpected drops: {others:?}");
    Ok(())
}

#[test]
fn d03_kernel_and_user_exchange_traffic_over_ipv4() -> Result<()> {
    if lab::skip() { Ok(()) } else { check(false) }
}

#[test]
fn d03_n12_kernel_and_user_exchange_traffic_over_ipv6() -> Result<()> {
    if lab::skip() { Ok(()) } else { check(true) }
}
