//! Two or three switches without sockets, and frames that others' code makes and reads.
#![expect(clippy::disallowed_methods, reason = "tests begin at some instant and count from it")]

mod isolation;
mod neighbors;
mod offload;
mod sealed;
mod service;
mod stack;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

use etherparse::PacketBuilder;
use overlay_types::{Addresses, EndpointId, MacAddr, NetworkSubnet, ServiceId, Subnet, Vni};

use super::*;
use crate::desired::{
    Backend, LocalEndpoint, Network, PortKind, RemoteEndpoint, Role, Service, Settings,
};

const PLAIN: u32 = 5000;
const OTHER: u32 = 5001;
const SEALED: u32 = 5002;

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, host)
}

fn v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host.into())
}

fn mac(host: u8) -> MacAddr {
    MacAddr::from_ipv4(v4(host))
}

fn addresses(host: u8) -> Addresses {
    Addresses { v4: Some(v4(host)), v6: Some(v6(host)) }
}

fn node_address(node: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, node])
}

/// Where an endpoint lives: node and host number. Its port has the host's number.
type Place = (u8, u8);

/// What one network is made of; every node derives its own part.
#[derive(Clone)]
struct Plan {
    settings: Settings,
    places: Vec<Place>,
    services: Vec<(ServiceId, Service)>,
    gates: BTreeSet<u8>,
}

impl Plan {
    fn new(number: u32, places: &[Place]) -> Self {
        let subnet = |text: &str, gateway: IpAddr| NetworkSubnet {
            subnet: Subnet::parse("subnet", text).unwrap(),
            gateway,
        };
        Self {
            settings: Settings {
                vni: vni(number),
                encrypted: number == SEALED,
                multicast: false,
                mtu: 1400,
                subnets: vec![
                    subnet("10.0.1.0/24", v4(1).into()),
                    subnet("fd00:1::/64", v6(1).into()),
                ],
            },
            places: places.to_vec(),
            services: Vec::new(),
            gates: BTreeSet::new(),
        }
    }

    /// Makes a host a gate of the routing mesh.
    fn gate(mut self, host: u8) -> Self {
        self.gates.insert(host);
        self
    }

    /// Adds a service with the virtual host number `vip`.
    fn serve(mut self, vip: u8, backends: &[u8]) -> Self {
        let backends = backends.iter().map(|host| {
            let backend = Backend { addresses: addresses(*host), draining: false };
            (EndpointId::from_u128((*host).into()), backend)
        });
        let service = Service { vips: addresses(vip), backends: backends.collect() };
        self.services.push((ServiceId::from_u128(vip.into()), service));
        self
    }

    fn on(&self, node: u8) -> Network {
        let mut network = Network::new(self.settings.clone());
        for (home, host) in self.places.iter().copied() {
            let (id, mac, addresses) =
                (EndpointId::from_u128(host.into()), mac(host), addresses(host));
            if home == node {
                let mut local = LocalEndpoint::new(mac, addresses, PortKind::Memory);
                if self.gates.contains(&host) {
                    local.role = Role::Gate;
                }
                network.locals.insert(id, local);
            } else {
                let node = node_address(home);
                network.members.insert(node);
                network.remotes.insert(id, RemoteEndpoint { mac, addresses, node });
            }
        }
        network.services = self.services.iter().cloned().collect();
        network
    }
}

struct Node {
    number: u8,
    engine: Engine,
    now: Instant,
    /// Ports that carry super-frames.
    offload: BTreeSet<u32>,
}

impl Node {
    fn new(number: u8, plans: &[&Plan]) -> Self {
        let engine = Engine::new(Config::new(node_address(number), 7));
        let mut node = Self { number, engine, now: Instant::now(), offload: BTreeSet::new() };
        node.plan(plans);
        node
    }

    fn plan(&mut self, plans: &[&Plan]) {
        let tables = plans.iter().map(|plan| {
            Arc::new(NetworkTable::build(&plan.on(self.number), |endpoint| {
                let port = endpoint.to_u128() as u32;
                Some(PortBinding { port: PortId(port), offload: self.offload.contains(&port) })
            }))
        });
        let tables = Tables::new(tables.collect::<Vec<_>>());
        self.engine.swap(Arc::new(tables));
    }

    fn frame(&mut self, host: u8, frame: &[u8]) -> Batch {
        self.super_frame(host, frame, Offload::None)
    }

    fn super_frame(&mut self, host: u8, frame: &[u8], offload: Offload) -> Batch {
        let mut out = Batch::default();
        let port = PortId(host.into());
        self.engine.handle_frame(port, &mut frame.to_vec(), offload, self.now, &mut out);
        out
    }

    fn datagram(&mut self, from: u8, channel: Channel, datagram: &[u8]) -> Batch {
        let mut out = Batch::default();
        self.receive(from, channel, datagram, &mut out);
        out
    }

    fn receive(&mut self, from: u8, channel: Channel, datagram: &[u8], out: &mut Batch) {
        let (from, datagram) = (node_address(from), &mut datagram.to_vec());
        match channel {
            Channel::Plain { .. } => self.engine.handle_vxlan(from, datagram, self.now, out),
            Channel::Esp => self.engine.handle_esp(from, datagram, self.now, out),
        }
    }

    /// All drops, for a test that expects none or exactly one.
    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.engine.counters().drops().filter(|(_, count)| *count > 0).collect()
    }
}

fn frames(batch: &Batch) -> Vec<(u32, Vec<u8>)> {
    batch.frames().map(|(port, frame, _)| (port.0, frame.to_vec())).collect()
}

fn datagrams(batch: &Batch) -> Vec<(IpAddr, Channel, Vec<u8>)> {
    batch.datagrams().map(|(to, channel, bytes)| (to, channel, bytes.to_vec())).collect()
}

/// Sends a frame from `host` at `a`; what `b` gives to its ports of it.
fn cross(a: &mut Node, b: &mut Node, host: u8, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let sent = a.frame(host, frame);
    let mut received = Batch::default();
    for (to, channel, datagram) in datagrams(&sent) {
        assert_eq!(to, node_address(b.number));
        b.receive(a.number, channel, &datagram, &mut received);
    }
    frames(&received)
}

fn udp(from: u8, to: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

fn udp6(from: u8, to: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv6(v6(from).octets(), v6(to).octets(), 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// The frame with another destination MAC: the router's, as an endpoint sends to a VIP.
fn to_router(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&ROUTER_MAC.0);
    frame
}

/// Two nodes with hosts 11 and 12 on one and 21 on the other, on the plain network.
fn pair() -> (Node, Node) {
    let plan = Plan::new(PLAIN, &[(1, 11), (1, 12), (2, 21)]);
    (Node::new(1, &[&plan]), Node::new(2, &[&plan]))
}

/// Asserts that every checksum in the frame is right, by etherparse.
fn assert_checksums(frame: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header");
            (IpAddr::from(header.source), IpAddr::from(header.destination))
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        NetSlice::Arp(_) => return,
    };
    let (found, expected) = match (packet.transport.as_ref().unwrap(), source, destination) {
        (TransportSlice::Udp(udp), IpAddr::V4(s), IpAddr::V4(d)) => {
            let sum = udp.to_header().calc_checksum_ipv4_raw(s.octets(), d.octets(), udp.payload());
            (udp.checksum(), sum.unwrap())
        }
        (TransportSlice::Udp(udp), IpAddr::V6(s), IpAddr::V6(d)) => {
            let sum = udp.to_header().calc_checksum_ipv6_raw(s.octets(), d.octets(), udp.payload());
            (udp.checksum(), sum.unwrap())
        }
        (TransportSlice::Tcp(tcp), IpAddr::V4(s), IpAddr::V4(d)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv4(s.octets(), d.octets()).unwrap())
        }
        (TransportSlice::Tcp(tcp), IpAddr::V6(s), IpAddr::V6(d)) => {
            (tcp.checksum(), tcp.calc_checksum_ipv6(s.octets(), d.octets()).unwrap())
        }
        (TransportSlice::Icmpv4(icmp), ..) => {
            let kind = icmp.icmp_type();
            (icmp.checksum(), kind.calc_checksum(icmp.payload()))
        }
        (TransportSlice::Icmpv6(icmp), IpAddr::V6(s), IpAddr::V6(d)) => {
            assert!(icmp.is_checksum_valid(s.octets(), d.octets()), "ICMPv6");
            return;
        }
        other => panic!("unexpected transport {other:?}"),
    };
    assert_eq!(found, expected, "transport checksum");
}
