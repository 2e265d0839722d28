//! The kernel dataplane: nodes with it and one with the user dataplane on one network.
//!
//! ```text
//!  a1, a2 ── kernel node 1 ──┐
//!  b1     ── kernel node 2 ──┼── wire (a bridge)
//!  c1     ── user node 3   ──┘
//! ```

use core::net::IpAddr;
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_dataplane::{
    Dataplane, Desired,
    desired::{LocalEndpoint, Network, PortKind, RemoteEndpoint, Settings},
    diff,
    kernel::{
        KernelConfig, KernelDataplane, filter::NftFilter, members::MemberFilter,
        nft::admission::Ports, xfrm::Esp,
    },
    mtu,
    sa::Sa,
    user::{SwitchConfig, UserDataplane},
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{
    Addresses, Encapsulation, EndpointId, Epoch, MacAddr, NetworkId, NetworkSubnet, NodeId, Spi,
    Subnet, Vni,
};

use crate::probe::{ping, transfer};

/// Octets of one transfer by TCP.
const TRANSFER: usize = 50_000_000;
/// Node of the user dataplane.
pub(crate) const USER: u16 = 3;

pub(crate) struct Endpoint {
    pub(crate) node: u16,
    number: u16,
    /// Subnet of its IPv4 address.
    subnet: u8,
    pub(crate) netns: Namespace,
}

impl Endpoint {
    pub(crate) fn new(node: u16, subnet: u8, number: u16) -> Result<Self> {
        Ok(Self { node, number, subnet, netns: Namespace::new()? })
    }

    fn id(&self) -> EndpointId {
        EndpointId::from_u128(self.number.into())
    }

    pub(crate) fn addresses(&self) -> Addresses {
        let v4 = [10, 0, self.subnet, self.number as u8].into();
        Addresses { v4: Some(v4), v6: Some([0xfd00, 0, 0, 1, 0, 0, 0, self.number].into()) }
    }

    pub(crate) fn mac(&self) -> MacAddr {
        MacAddr::from_ipv4([10, 0, self.subnet, self.number as u8].into())
    }
}

/// Hosts on one wire.
pub(crate) struct Underlay {
    pub(crate) hosts: Vec<Namespace>,
    over_ipv6: bool,
    _wire: Namespace,
}

impl Underlay {
    pub(crate) fn new(over_ipv6: bool) -> Result<Self> {
        let wire = Namespace::new()?;
        wire.ip("link add wire type bridge mcast_snooping 0")?;
        wire.ip("link set wire up")?;
        let mut hosts = Vec::new();
        for node in 1..=USER {
            let host = Namespace::new()?;
            host.connect("cable", &wire, &format!("to{node}"))?;
            wire.ip(&format!("link set to{node} master wire"))?;
            let length = if over_ipv6 { "64 nodad" } else { "24" };
            host.ip(&format!("address add {}/{length} dev cable", address(over_ipv6, node)))?;
            hosts.push(host);
        }
        Ok(Self { hosts, over_ipv6, _wire: wire })
    }

    pub(crate) fn address(&self, node: u16) -> IpAddr {
        address(self.over_ipv6, node)
    }

    pub(crate) fn start(&self, node: u16) -> Result<KernelDataplane> {
        self.start_with(node, None)
    }

    fn start_with(&self, node: u16, esp: Option<Esp>) -> Result<KernelDataplane> {
        let directory = format!("/run/node{node}");
        let config = KernelConfig { esp, ..KernelConfig::new(directory, self.address(node)) };
        let host = &self.hosts[usize::from(node) - 1];
        let start = || {
            let ports = Ports { plain: config.port, sealed: esp.map(|esp| esp.vxlan_port) };
            let filter = NftFilter::open(ports)?;
            KernelDataplane::start(config, Box::new(filter))
        };
        Ok(host.enter(start)?)
    }

    pub(crate) fn start_user(&self) -> Result<UserDataplane> {
        let host = &self.hosts[usize::from(USER) - 1];
        let config = SwitchConfig::new(self.address(USER), 1);
        Ok(host.enter(|| UserDataplane::start(config))?)
    }

    /// Starts all nodes, with these endpoints.
    pub(crate) fn start_all(
        &self,
        endpoints: &[Endpoint],
    ) -> Result<([KernelDataplane; 2], UserDataplane)> {
        let kernel = |node| -> Result<_> {
            let mut dataplane = self.start(node)?;
            converge(&mut dataplane, &self.desired(node, endpoints)?)?;
            Ok(dataplane)
        };
        let kernel = [kernel(1)?, kernel(2)?];
        let mut user = self.start_user()?;
        converge(&mut user, &self.desired(USER, endpoints)?)?;
        Ok((kernel, user))
    }

    /// One network as a node sees it.
    fn network(&self, node: u16, vni: u32, endpoints: &[Endpoint]) -> Result<Network> {
        let subnet = |text: &str, gateway: IpAddr| -> Result<_> {
            Ok(NetworkSubnet { subnet: Subnet::parse("subnet", text)?, gateway })
        };
        let mut network = Network::new(Settings {
            vni: Vni::for_overlay(vni)?,
            encrypted: false,
            multicast: false,
            mtu: mtu::overlay(1500, self.over_ipv6, None),
            subnets: vec![
                subnet("10.0.1.0/24", [10, 0, 1, 1].into())?,
                subnet("fd00:0:0:1::/64", [0xfd00, 0, 0, 1, 0, 0, 0, 1].into())?,
                subnet("10.0.2.0/24", [10, 0, 2, 1].into())?,
            ],
        });
        for endpoint in endpoints {
            let (mac, addresses) = (endpoint.mac(), endpoint.addresses());
            let (name, netns) = ("eth0".to_owned(), endpoint.netns.path());
            if endpoint.node != node {
                let remote = RemoteEndpoint { mac, addresses, node: self.address(endpoint.node) };
                network.members.insert(remote.node);
                network.remotes.insert(endpoint.id(), remote);
                continue;
            }
            let port = if node == USER {
                PortKind::Tap { name, netns: Some(netns) }
            } else {
                PortKind::Veth { name, netns }
            };
            network.locals.insert(endpoint.id(), LocalEndpoint::new(mac, addresses, port));
        }
        Ok(network)
    }

    /// An encrypted network, and the associations with all other nodes.
    fn sealed(&self, node: u16, endpoints: &[Endpoint], esp: Encapsulation) -> Result<Desired> {
        let mut desired = self.desired(node, endpoints)?;
        for network in desired.networks.values_mut() {
            network.settings.encrypted = true;
            network.settings.mtu = mtu::overlay(1500, self.over_ipv6, Some(esp));
        }
        for peer in (1..=USER).filter(|peer| *peer != node) {
            let outbound = self.association(node, peer, peer)?;
            desired.sas.outbound.insert(outbound.id.peer, outbound);
            let inbound = self.association(peer, node, peer)?;
            desired.sas.inbound.insert(inbound.id, inbound);
        }
        Ok(desired)
    }

    /// What one node sends to another with, as the node knows it whose peer is `peer`.
    fn association(&self, from: u16, to: u16, peer: u16) -> Result<Sa> {
        let number = 0x1000 + from * 16 + to;
        let spi = Spi::new(number.into()).context("reserved")?;
        let key = AeadKey::from_bytes([number as u8; 32]);
        let id = SaId { peer: NodeId::from_u128(peer.into()), epoch: Epoch::new(1), spi };
        let keys = Arc::new(SaKeys { spi, key, salt: Salt([7; 4]) });
        Ok(Sa { id, address: self.address(peer), keys })
    }

    pub(crate) fn desired(&self, node: u16, endpoints: &[Endpoint]) -> Result<Desired> {
        let mut desired = Desired::default();
        desired.networks.insert(NetworkId::from_u128(1), self.network(node, 70_000, endpoints)?);
        Ok(desired)
    }
}

/// The namespace of the network on a kernel node.
pub(crate) fn inside(node: u16) -> Result<Namespace> {
    let file = fs::read_dir(format!("/run/node{node}"))?.next().context("no network")??;
    Namespace::open(&file.path())
}

fn address(over_ipv6: bool, node: u16) -> IpAddr {
    if over_ipv6 {
        IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, node])
    } else {
        IpAddr::from([192, 0, 2, node as u8])
    }
}

pub(crate) fn converge(dataplane: &mut impl Dataplane, desired: &Desired) -> Result<()> {
    let ops = diff(desired, &dataplane.observe()?);
    dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
    ensure!(diff(desired, &dataplane.observe()?).is_empty(), "something is left to do");
    Ok(())
}

/// Everybody reaches everybody, by both families, over subnets too.
fn mixed(over_ipv6: bool) -> Result<()> {
    let underlay = Underlay::new(over_ipv6)?;
    let endpoints = [
        Endpoint::new(1, 1, 11)?,
        Endpoint::new(1, 2, 12)?,
        Endpoint::new(2, 1, 21)?,
        Endpoint::new(2, 2, 22)?,
        Endpoint::new(USER, 1, 31)?,
    ];
    let _dataplanes = underlay.start_all(&endpoints)?;
    for from in &endpoints {
        for to in endpoints.iter().filter(|to| to.number != from.number) {
            for address in to.addresses().iter() {
                ping(&from.netns, address).with_context(|| format!("from {}", from.number))?;
            }
        }
        let gateway = IpAddr::from([10, 0, from.subnet, 1]);
        ping(&from.netns, gateway).with_context(|| format!("from {}", from.number))?;
    }
    for (from, to) in [(0, 2), (2, 0), (0, 4), (4, 0), (1, 2)] {
        let (from, to) = (&endpoints[from], &endpoints[to]);
        for address in to.addresses().iter() {
            transfer(&from.netns, &to.netns, address, TRANSFER)
                .with_context(|| format!("from {} to {address}", from.number))?;
        }
    }
    Ok(())
}

#[test]
fn d01_d03_n12_n17_kernel_and_user_nodes_share_a_network_over_ipv4() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(|| mixed(false)) }
}

#[test]
fn d01_d03_n12_n17_kernel_and_user_nodes_share_a_network_over_ipv6() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(|| mixed(true)) }
}

/// Kernel and user nodes on an encrypted network, up to its MTU, and nothing in clear on the wire.
fn sealed(over_ipv6: bool, encapsulation: Encapsulation) -> Result<()> {
    let underlay = Underlay::new(over_ipv6)?;
    let endpoints =
        [Endpoint::new(1, 1, 11)?, Endpoint::new(2, 1, 21)?, Endpoint::new(USER, 1, 31)?];
    let esp = Esp { vxlan_port: 4788, encapsulation };
    let mtu = mtu::overlay(1500, over_ipv6, Some(encapsulation));
    // What would leave in clear, from before the first device on.
    for host in &underlay.hosts[..2] {
        host.run(&["nft", "add table inet watch"])?;
        host.run(&[
            "nft",
            "add chain inet watch post { type filter hook postrouting priority 500; }",
        ])?;
        let clear = "add rule inet watch post udp dport { 4788, 4789 } rt ipsec missing counter";
        host.run(&["nft", clear])?;
    }
    let mut kernel = Vec::new();
    for node in [1, 2] {
        let mut dataplane = underlay.start_with(node, Some(esp))?;
        converge(&mut dataplane, &underlay.sealed(node, &endpoints, encapsulation)?)?;
        kernel.push(dataplane);
    }
    let host = &underlay.hosts[usize::from(USER) - 1];
    let config = SwitchConfig::new(underlay.address(USER), 1);
    let config = SwitchConfig { esp: Some(encapsulation), ..config };
    let mut user = host.enter(|| UserDataplane::start(config))?;
    converge(&mut user, &underlay.sealed(USER, &endpoints, encapsulation)?)?;
    for from in &endpoints {
        for to in endpoints.iter().filter(|to| to.number != from.number) {
            for address in to.addresses().iter() {
                let pair = || format!("from {} to {address}", from.number);
                ping(&from.netns, address).with_context(pair)?;
                largest(&from.netns, address, mtu).with_context(pair)?;
                transfer(&from.netns, &to.netns, address, 1_000_000).with_context(pair)?;
            }
        }
    }
    for (host, dataplane) in underlay.hosts.iter().zip(&mut kernel) {
        let counted = host.run(&["nft", "list table inet watch"])?;
        ensure!(counted.contains("counter packets 0 bytes 0"), "in clear: {counted}");
        converge(dataplane, &Desired::default())?;
        ensure!(host.ip("xfrm state")?.is_empty() && host.ip("xfrm policy")?.is_empty());
    }
    Ok(())
}

/// A packet as large as the MTU gets through whole, and one octet more is not sent.
fn largest(from: &Namespace, address: IpAddr, mtu: u16) -> Result<()> {
    let headers = if address.is_ipv4() { 28 } else { 48 };
    let ping = |length: u16| {
        let (length, address) = (length.to_string(), address.to_string());
        from.run(&["ping", "-M", "do", "-c", "1", "-W", "10", "-s", &length, &address])
    };
    ping(mtu - headers).context("a packet of the MTU")?;
    ensure!(ping(mtu - headers + 1).is_err(), "a packet above the MTU is sent");
    Ok(())
}

#[test]
fn e01_e06_kernel_and_user_nodes_share_an_encrypted_network_over_ipv4_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    lab::isolated(|| sealed(false, Encapsulation::default()))
}

#[test]
fn e01_e06_kernel_and_user_nodes_share_an_encrypted_network_over_ipv6_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    lab::isolated(|| sealed(true, Encapsulation::default()))
}

#[test]
fn e05_e06_kernel_and_user_nodes_understand_each_other_by_ip_protocol_50_with_esp() -> Result<()> {
    if lab::skip() || lab::skip_without_esp() {
        return Ok(());
    }
    for over_ipv6 in [false, true] {
        lab::isolated(|| sealed(over_ipv6, Encapsulation::None))?;
    }
    Ok(())
}

/// Says hello and waits for the echo until told to stop. Returns how often.
fn talk(mut stream: TcpStream, stop: &std::sync::mpsc::Receiver<()>) -> Result<usize> {
    let mut count = 0;
    while let Err(std::sync::mpsc::TryRecvError::Empty) = stop.try_recv() {
        let said = [count as u8; 1000];
        stream.write_all(&said)?;
        let mut heard = [0; 1000];
        stream.read_exact(&mut heard)?;
        ensure!(said == heard, "the echo is another");
        count += 1;
    }
    Ok(count)
}

fn adopt() -> Result<()> {
    let underlay = Underlay::new(false)?;
    let endpoints = [Endpoint::new(1, 1, 11)?, Endpoint::new(2, 1, 21)?];
    for node in [1, 2] {
        converge(&mut underlay.start(node)?, &underlay.desired(node, &endpoints)?)?;
    }
    let (from, to) = (&endpoints[0].netns, &endpoints[1].netns);
    let address = SocketAddr::new([10, 0, 1, 21].into(), 0);
    let listener = to.enter(|| TcpListener::bind(address))?;
    let target = listener.local_addr()?;
    let (stop, stopped) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 1000];
            loop {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    return Ok(());
                }
                stream.write_all(&buffer[..read])?;
            }
        });
        let stream = from.enter(|| TcpStream::connect(target))?;
        let talk = scope.spawn(move || talk(stream, &stopped));
        for _ in 0..20 {
            for node in [1, 2] {
                converge(&mut underlay.start(node)?, &underlay.desired(node, &endpoints)?)?;
            }
        }
        let statistics = from.run(&["ss", "--tcp", "--info", "--numeric", "--no-header"])?;
        stop.send(())?;
        let count = talk.join().expect("the talk panicked")?;
        echo.join().expect("the echo panicked")?;
        ensure!(count > 100, "only {count} exchanges");
        ensure!(statistics.contains("10.0.1.21"), "no connection: {statistics}");
        ensure!(!statistics.contains("retrans:"), "a packet was lost: {statistics}");
        Ok(())
    })
}

#[test]
fn d05_restarts_cost_an_established_connection_no_packet() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(adopt) }
}

/// Two networks with the same subnet, on the same nodes, with endpoints that would answer.
fn isolation() -> Result<()> {
    let underlay = Underlay::new(false)?;
    let (red, blue) = (
        [Endpoint::new(1, 1, 11)?, Endpoint::new(1, 1, 12)?, Endpoint::new(2, 1, 21)?],
        [Endpoint::new(1, 1, 11)?, Endpoint::new(1, 1, 13)?, Endpoint::new(2, 1, 22)?],
    );
    for node in [1, 2] {
        let mut desired = underlay.desired(node, &red)?;
        let mut other = underlay.network(node, 70_001, &blue)?;
        let number = |id: &EndpointId| EndpointId::from_u128(id.to_u128() + 100);
        other.locals = other.locals.iter().map(|(id, l)| (number(id), l.clone())).collect();
        desired.networks.insert(NetworkId::from_u128(2), other);
        converge(&mut underlay.start(node)?, &desired)?;
    }
    let once =
        |from: &Endpoint, to: &str| from.netns.run(&["ping", "-c", "1", "-W", "1", to]).is_ok();
    ping(&red[0].netns, [10, 0, 1, 21].into())?;
    ping(&blue[0].netns, [10, 0, 1, 22].into())?;
    for (from, to) in [(&red, "10.0.1.13"), (&red, "10.0.1.22"), (&blue, "10.0.1.12")] {
        ensure!(!once(&from[0], to), "{to} is on the other network");
    }
    // Another Ethernet address than the endpoint's own gets nothing out, not even on the node.
    let forger = &red[0].netns;
    forger.ip("link set eth0 address 02:42:0a:00:01:0c")?;
    for to in ["10.0.1.12", "10.0.1.21"] {
        ensure!(!once(&red[0], to), "a forged source reaches {to}");
    }
    forger.ip("link set eth0 address 02:42:0a:00:01:0b")?;
    ping(forger, [10, 0, 1, 21].into())
}

#[test]
fn n08_networks_with_one_subnet_do_not_meet_and_forged_stations_are_mute() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(isolation) }
}

/// A host that is no member knows VNI, station and addresses, and sends as if it were one.
fn stranger() -> Result<()> {
    let underlay = Underlay::new(false)?;
    let endpoints = [Endpoint::new(1, 1, 11)?, Endpoint::new(2, 1, 21)?];
    let desired = underlay.desired(1, &endpoints)?;
    converge(&mut underlay.start(1)?, &desired)?;
    let stranger = &underlay.hosts[usize::from(USER) - 1];
    let node = underlay.address(1);
    stranger.ip(&format!("link add vx type vxlan id 70000 dstport 4789 remote {node}"))?;
    stranger.ip(&format!("link set vx address {} up", endpoints[1].mac()))?;
    stranger.ip("address add 10.0.1.21/24 dev vx")?;
    stranger.ip(&format!("neighbor add 10.0.1.11 lladdr {} dev vx", endpoints[0].mac()))?;
    let heard = || -> Result<bool> {
        let ear = endpoints[0].netns.enter(|| std::net::UdpSocket::bind("10.0.1.11:9999"))?;
        ear.set_read_timeout(Some(core::time::Duration::from_millis(300)))?;
        let mouth = stranger.enter(|| std::net::UdpSocket::bind("10.0.1.21:0"))?;
        mouth.send_to(b"hello", "10.0.1.11:9999")?;
        Ok(ear.recv(&mut [0; 16]).is_ok())
    };
    ensure!(!heard()?, "a stranger is heard");
    // The filter keeps it out, and nothing else: without it, the frame arrives.
    let host = &underlay.hosts[0];
    host.enter(|| -> Result<()> { Ok(NftFilter::open(4789)?.clear()?) })?;
    ensure!(heard()?, "the frame is not what would be let in");
    converge(&mut underlay.start(1)?, &desired)?;
    ensure!(!heard()?, "a stranger is heard after the filter is back");
    Ok(())
}

#[test]
fn n08_only_members_frames_enter_a_network() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(stranger) }
}

/// Frames to groups reach every endpoint of a network that carries them, and none otherwise.
fn multicast() -> Result<()> {
    let underlay = Underlay::new(false)?;
    let endpoints = [Endpoint::new(1, 1, 11)?, Endpoint::new(1, 1, 12)?, Endpoint::new(2, 1, 21)?];
    let group: IpAddr = [239, 1, 2, 3].into();
    for carried in [true, false] {
        for node in [1, 2] {
            let mut desired = underlay.desired(node, &endpoints)?;
            desired.networks.values_mut().for_each(|n| n.settings.multicast = carried);
            converge(&mut underlay.start(node)?, &desired)?;
        }
        let heard = hears(&endpoints, group)?;
        ensure!(heard == [carried; 2], "carried {carried}, heard {heard:?}");
    }
    Ok(())
}

/// Whether the others hear what the first says to a group.
fn hears(endpoints: &[Endpoint], group: IpAddr) -> Result<[bool; 2]> {
    let IpAddr::V4(group) = group else { anyhow::bail!("an IPv4 group") };
    let listen = |endpoint: &Endpoint| {
        let own = endpoint.addresses().v4.context("no address")?;
        endpoint.netns.enter(|| {
            let socket = std::net::UdpSocket::bind((group, 9_999))?;
            socket.join_multicast_v4(&group, &own)?;
            socket.set_read_timeout(Some(core::time::Duration::from_millis(200)))?;
            anyhow::Ok(socket)
        })
    };
    let ears = [listen(&endpoints[1])?, listen(&endpoints[2])?];
    let own = endpoints[0].addresses().v4.context("no address")?;
    let mouth = endpoints[0].netns.enter(|| std::net::UdpSocket::bind((own, 0)))?;
    let route = format!("route replace {group}/32 dev eth0");
    endpoints[0].netns.ip(&route)?;
    mouth.send_to(b"hello", (group, 9_999))?;
    Ok(ears.map(|ear| ear.recv(&mut [0; 16]).is_ok()))
}

#[test]
fn n16_groups_reach_member_nodes_of_networks_that_carry_them_only() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(multicast) }
}
