//! Three hosts and a client on one wire, and tasks on the ingress network.
//!
//! ```text
//!  client 192.0.2.9 ═══ wire ═╦═ host 1: 192.0.2.1 ── gate 10.0.0.101 ─┐
//!                             ╠═ host 2: 192.0.2.2 ── gate 10.0.0.102 ─┼─ ingress ── tasks 10.0.0.11…
//!                             ╚═ host 3: 192.0.2.3 ── gate 10.0.0.103 ─┘
//! ```

use core::{net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Dataplane, Desired, Error,
    desired::{
        Backend, LocalEndpoint, Mesh, MeshPort, MeshService, Network, PortKind, RemoteEndpoint,
        Role, Settings,
    },
    diff,
    kernel::{
        IngressMode, KernelConfig, KernelDataplane, KernelMesh, MeshConfig,
        filter::NftFilter,
        mesh::{Concerned, MeshOutcome},
    },
    user::{SwitchConfig, UserDataplane},
};
use overlay_testkit::{
    lab::{self, Namespace},
    until::until,
};
use overlay_types::{
    Addresses, EndpointId, MacAddr, NetworkId, NetworkSubnet, PortSpec, ServiceId, Subnet, Vni,
};

pub(crate) const HOSTS: u8 = 3;
const NETWORK: NetworkId = NetworkId::from_u128(7);
/// Those of the ingress network, and of another one.
const SUBNETS: [&str; 4] = ["10.0.0.0/24", "fd00:1::/64", "10.0.7.0/24", "fd00:7::/64"];

pub(crate) struct Host {
    pub(crate) netns: Namespace,
    dataplane: Box<dyn Dataplane + Send>,
    pub(crate) mesh: KernelMesh,
}

pub(crate) struct Task {
    pub(crate) host: u8,
    number: u8,
    pub(crate) netns: Namespace,
}

pub(crate) struct Site {
    pub(crate) hosts: Vec<Host>,
    pub(crate) client: Namespace,
    pub(crate) tasks: Vec<Task>,
    wire: Namespace,
    /// The host with the user dataplane, if there is one.
    user: Option<u8>,
    /// Hosts whose gates are known.
    pub(crate) gates: BTreeSet<u8>,
}

/// What a service publishes, and which tasks it has.
#[derive(Clone, Default)]
pub(crate) struct Published {
    pub(crate) ports: Vec<MeshPort>,
    pub(crate) tasks: Vec<usize>,
    pub(crate) draining: Vec<usize>,
    pub(crate) prefer_local: bool,
}

/// Runs a test where it may make namespaces.
pub(crate) fn in_lab(test: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(test) }
}

/// An address on the wire.
pub(crate) fn outer(ipv6: bool, number: u8) -> IpAddr {
    if ipv6 { [0xfd99, 0, 0, 0, 0, 0, 0, number.into()].into() } else { [192, 0, 2, number].into() }
}

/// Addresses on the ingress network.
pub(crate) fn inner(number: u8) -> Addresses {
    let v6 = [0xfd00, 1, 0, 0, 0, 0, 0, number.into()].into();
    Addresses { v4: Some([10, 0, 0, number].into()), v6: Some(v6) }
}

/// An address of a host's gate.
pub(crate) fn gate(ipv6: bool, host: u8) -> IpAddr {
    address(inner(100 + host), ipv6)
}

pub(crate) fn address(addresses: Addresses, ipv6: bool) -> IpAddr {
    addresses.iter().find(|a| a.is_ipv6() == ipv6).expect("both versions")
}

fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_u128(number.into())
}

fn mac(number: u8) -> MacAddr {
    MacAddr::from_ipv4([10, 0, 0, number].into())
}

pub(crate) fn published(ports: &[&str], tasks: &[usize]) -> Result<Published> {
    let specs = ports.iter().map(|text| PortSpec::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let port = |spec: PortSpec| {
        Some(MeshPort {
            protocol: spec.protocol,
            bind: spec.host_ip,
            published: spec.published?.get(),
            target: spec.target.get(),
        })
    };
    let ports = specs.into_iter().flatten().filter_map(port).collect();
    Ok(Published { ports, tasks: tasks.to_vec(), ..Published::default() })
}

/// Services by numbers.
pub(crate) type Services = BTreeMap<u8, Published>;

pub(crate) fn service(ports: &[&str], tasks: &[usize]) -> Result<Services> {
    Ok(Services::from([(1, published(ports, tasks)?)]))
}

impl Site {
    /// Hosts, and a task on each of these.
    pub(crate) fn new(on: &[u8]) -> Result<Self> {
        Self::with(on, IngressMode::Transparent, None)
    }

    /// The same, where one host may have the user dataplane.
    pub(crate) fn with(on: &[u8], mode: IngressMode, user: Option<u8>) -> Result<Self> {
        let (wire, client) = (Namespace::new()?, Namespace::new()?);
        wire.ip("link add wire type bridge mcast_snooping 0")?;
        wire.ip("link set wire up")?;
        let plug = |netns: &Namespace, number: u8| -> Result<()> {
            netns.connect("cable", &wire, &format!("to{number}"))?;
            wire.ip(&format!("link set to{number} master wire"))?;
            for (ipv6, length) in [(false, "24"), (true, "64 nodad")] {
                netns.ip(&format!("address add {}/{length} dev cable", outer(ipv6, number)))?;
            }
            Ok(())
        };
        plug(&client, 9)?;
        let mut hosts = Vec::new();
        for number in 1..=HOSTS {
            let netns = Namespace::new()?;
            plug(&netns, number)?;
            let dataplane = start_dataplane(&netns, number, user == Some(number))?;
            let mesh = start_mesh(&netns, number, mode)?;
            hosts.push(Host { netns, dataplane, mesh });
        }
        let tasks = (11..)
            .zip(on)
            .map(|(number, host)| Ok(Task { host: *host, number, netns: Namespace::new()? }));
        let tasks = tasks.collect::<Result<Vec<_>>>()?;
        Ok(Self { hosts, client, tasks, wire, user, gates: (1..=HOSTS).collect() })
    }

    /// Gives a task a way out of its own, as the gateway does.
    pub(crate) fn add_way_out(&self, task: usize) -> Result<()> {
        let netns = &self.tasks[task].netns;
        netns.ip("link add gw0 type bridge")?;
        netns.ip("link set gw0 up")?;
        netns.ip("address add 172.20.0.2/24 dev gw0")?;
        netns.ip("address add fd20::2/64 nodad dev gw0")?;
        netns.ip("route add default via 172.20.0.1")?;
        netns.ip("route add default via fd20::1")?;
        Ok(())
    }

    /// Waits until no address is checked for a duplicate any more: those of TAP devices are.
    pub(crate) fn settle(&self) -> Result<()> {
        let gates =
            (1..=HOSTS).map(|host| Namespace::open(format!("{}/mesh", directory(host)).as_ref()));
        let gates = gates.collect::<Result<Vec<_>>>()?;
        until("addresses are there", Duration::from_secs(20), || {
            for netns in gates.iter().chain(self.tasks.iter().map(|task| &task.netns)) {
                let checked = netns.ip("-6 address show tentative")?;
                ensure!(checked.is_empty(), "{checked}");
            }
            Ok(())
        })
    }

    /// Has all hosts be so, and checks that nothing is left to do.
    pub(crate) fn converge(&mut self, services: &Services) -> Result<()> {
        for number in 1..=HOSTS {
            self.converge_host(number, services)?;
        }
        Ok(())
    }

    pub(crate) fn converge_host(&mut self, number: u8, services: &Services) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        for _ in 0..3 {
            let outcome = self.reconcile(number, services)?;
            let done = whole(outcome).with_context(|| format!("host {number}"))?;
            if done.is_empty() {
                return Ok(changes);
            }
            changes.extend(done);
        }
        anyhow::bail!("host {number} is never done: {changes:?}")
    }

    /// One comparison of a host.
    pub(crate) fn reconcile(&mut self, number: u8, services: &Services) -> Result<MeshOutcome> {
        let PortKind::Veth { name, netns } = self.host(number).mesh.gate()? else {
            anyhow::bail!("no interface in a namespace")
        };
        let gate = self.port(number, name, netns);
        let (mesh, network) = (self.mesh_of(number, services), self.network_of(number, gate));
        let host = self.host(number);
        let desired = Desired { networks: [(NETWORK, network)].into(), ..Desired::default() };
        apply(&mut *host.dataplane, &desired)?;
        let plugged = plugged(&desired.networks);
        Ok(host.mesh.reconcile(Some(&mesh), &plugged))
    }

    /// Takes the network and the mesh from a host, in the order of the daemon.
    pub(crate) fn remove(&mut self, number: u8) -> Result<()> {
        let host = self.host(number);
        let there = host.dataplane.observe()?;
        let plugged = plugged(&there.networks);
        apply(&mut *host.dataplane, &Desired::default())?;
        whole(host.mesh.reconcile(None, &plugged))?;
        ensure!(whole(host.mesh.reconcile(None, &plugged))?.is_empty(), "there is more to remove");
        ensure!(!host.mesh.has_left()?, "something is left");
        Ok(())
    }

    /// Tasks of a host, as they are plugged in.
    pub(crate) fn plugged(&self, number: u8) -> BTreeMap<EndpointId, PortKind> {
        self.tasks_of(number).into_iter().map(|(id, local)| (id, local.port)).collect()
    }

    /// The daemon of a host ends, and starts anew.
    pub(crate) fn restart(&mut self, number: u8) -> Result<()> {
        let is_user = self.user == Some(number);
        let host = self.host(number);
        host.dataplane = start_dataplane(&host.netns, number, is_user)?;
        host.mesh = start_mesh(&host.netns, number, IngressMode::Transparent)?;
        Ok(())
    }

    pub(crate) fn host(&mut self, number: u8) -> &mut Host {
        &mut self.hosts[usize::from(number) - 1]
    }

    fn port(&self, host: u8, name: String, netns: PathBuf) -> PortKind {
        if self.user == Some(host) {
            PortKind::Tap { name, netns: Some(netns) }
        } else {
            PortKind::Veth { name, netns }
        }
    }

    fn tasks_of(&self, host: u8) -> BTreeMap<EndpointId, LocalEndpoint> {
        let own = self.tasks.iter().filter(|task| task.host == host);
        let local = own.map(|task| {
            let port = self.port(host, "eth0".into(), task.netns.path());
            (endpoint(task.number), LocalEndpoint::new(mac(task.number), inner(task.number), port))
        });
        local.collect()
    }

    fn mesh_of(&self, host: u8, services: &Services) -> Mesh {
        let backends = |published: &Published| {
            let all = published.tasks.iter().map(|task| (task, false));
            let all = all.chain(published.draining.iter().map(|task| (task, true)));
            let backend = |(task, draining): (&usize, bool)| {
                let number = self.tasks[*task].number;
                (endpoint(number), Backend { addresses: inner(number), draining })
            };
            all.map(backend).collect::<BTreeMap<_, _>>()
        };
        let mesh_service = |(number, published): (&u8, &Published)| {
            let service = MeshService {
                ports: published.ports.clone(),
                backends: backends(published),
                prefer_local: published.prefer_local,
            };
            (ServiceId::from_u128((*number).into()), service)
        };
        let services: BTreeMap<_, _> = services.iter().map(mesh_service).collect();
        let mut tasks = self.tasks_of(host);
        tasks.retain(|id, _| services.values().any(|service| service.backends.contains_key(id)));
        let gates = self.gates.iter().map(|host| (endpoint(100 + host), mac(100 + host))).collect();
        let number = 100 + host;
        let subnets = SUBNETS.iter().map(|text| text.parse().expect("a subnet")).collect();
        let port = self.port(host, "ingress0".into(), PathBuf::new());
        Mesh {
            network: NETWORK,
            endpoint: endpoint(number),
            gate: LocalEndpoint::new(mac(number), inner(number), port),
            mtu: 1450,
            gates,
            services,
            macs: self.tasks.iter().map(|task| (endpoint(task.number), mac(task.number))).collect(),
            tasks,
            subnets,
        }
    }

    fn network_of(&self, host: u8, gate: PortKind) -> Network {
        let subnet = |text: &str, gateway: IpAddr| NetworkSubnet {
            subnet: Subnet::parse("subnet", text).expect("a subnet"),
            gateway,
        };
        let mut network = Network::new(Settings {
            vni: Vni::for_overlay(5000).expect("a VNI"),
            encrypted: false,
            multicast: false,
            mtu: 1450,
            subnets: vec![
                subnet("10.0.0.0/24", [10, 0, 0, 1].into()),
                subnet("fd00:1::/64", [0xfd00, 1, 0, 0, 0, 0, 0, 1].into()),
            ],
        });
        network.locals = self.tasks_of(host);
        let gate = LocalEndpoint {
            role: Role::Gate,
            ..LocalEndpoint::new(mac(100 + host), inner(100 + host), gate)
        };
        network.locals.insert(endpoint(100 + host), gate);
        let tasks = self.tasks.iter().map(|task| (task.host, task.number));
        let all = tasks.chain((1..=HOSTS).map(|other| (other, 100 + other)));
        for (other, number) in all.filter(|(other, _)| *other != host) {
            let node = outer(false, other);
            let remote = RemoteEndpoint { mac: mac(number), addresses: inner(number), node };
            network.remotes.insert(endpoint(number), remote);
            network.members.insert(node);
        }
        network
    }

    /// Devices, addresses, routes, rules, tables and sockets of hosts and tasks.
    pub(crate) fn listing(&self) -> Result<String> {
        let mut all = String::new();
        let hosts = self.hosts.iter().map(|host| &host.netns);
        for netns in hosts.chain(self.tasks.iter().map(|task| &task.netns)).chain([&self.wire]) {
            for command in [
                "-d link show",
                "address show",
                "route show table all",
                "-6 route show table all",
                "rule show",
                "-6 rule show",
                "neighbor show nud permanent",
            ] {
                all += &netns.ip(command)?;
            }
            all += &netns.run(&["nft", "-s", "list", "ruleset"])?;
            all += &netns.run(&["cat", "/proc/net/tcp", "/proc/net/udp"])?;
        }
        // Lifetimes of IPv6, timers, and what the kernel notices in its own time.
        let passing = ["valid_lft", "_timer", "fe80", "ff00::", "nexthopless"];
        let lines = all.lines().filter(|line| passing.iter().all(|part| !line.contains(part)));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

fn start_dataplane(
    netns: &Namespace,
    number: u8,
    is_user: bool,
) -> Result<Box<dyn Dataplane + Send>> {
    if is_user {
        let config = SwitchConfig::new(outer(false, number), 1);
        return Ok(Box::new(netns.enter(|| UserDataplane::start(config))?));
    }
    let config = KernelConfig::new(directory(number), outer(false, number));
    let start = || {
        let filter = NftFilter::open(config.port)?;
        KernelDataplane::start(config, Box::new(filter))
    };
    Ok(Box::new(netns.enter(start)?))
}

fn start_mesh(netns: &Namespace, number: u8, mode: IngressMode) -> Result<KernelMesh> {
    let config = MeshConfig { directory: directory(number).into(), mode };
    Ok(netns.enter(|| KernelMesh::start(config))?)
}

fn directory(number: u8) -> String {
    format!("/run/node{number}")
}

fn apply(dataplane: &mut dyn Dataplane, desired: &Desired) -> Result<()> {
    let observed = dataplane.observe()?;
    for done in dataplane.apply(diff(desired, &observed)) {
        done?;
    }
    let again = diff(desired, &dataplane.observe()?);
    ensure!(again.is_empty(), "the network is never done: {again:?}");
    Ok(())
}

fn plugged(networks: &BTreeMap<NetworkId, Network>) -> BTreeMap<EndpointId, PortKind> {
    let locals = networks.values().flat_map(|network| &network.locals);
    locals.map(|(id, local)| (*id, local.port.clone())).collect()
}

pub(crate) fn whole(outcome: MeshOutcome) -> Result<Vec<String>> {
    match outcome.refused.into_iter().next() {
        None => Ok(outcome.changes),
        Some((concerned, error)) => Err(failed(&concerned, error)),
    }
}

fn failed(concerned: &Concerned, error: Error) -> anyhow::Error {
    anyhow::Error::from(error).context(concerned.to_string())
}
