//! Services in VIP mode on the kernel dataplane: what they cost a client, next to the backend's own
//! address, and what it costs to change them. A client, two backends and a host, in namespaces that go
//! with the bench.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use core::{net::IpAddr, time::Duration};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use overlay_dataplane::{
    Dataplane, Desired, Op,
    desired::{Backend, LocalEndpoint, Network, PortKind, Service, Settings},
    diff,
    kernel::{KernelConfig, KernelDataplane, filter::NftFilter},
};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{
    Addresses, EndpointId, MacAddr, NetworkId, NetworkSubnet, ServiceId, Subnet, Vni,
};
use socket2::{Domain, Socket, Type};

const NETWORK: NetworkId = NetworkId::from_u128(1);
/// Measurements of each kind, in turns, of which the best counts.
const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 2_000;
/// Connections that the client's namespace knows while services change.
const CONNECTIONS_KNOWN: u32 = 10_000;
const FIRST_PACKETS: u32 = 2_000;
const TRANSFER: u32 = 1 << 30;
/// Ports that connections are made to, that a stream is read from, and that datagrams are answered at.
const ACCEPT: u16 = 80;
const STREAM: u16 = 81;
const ECHO: u16 = 82;

fn address(number: u32) -> Addresses {
    Addresses { v4: Some((0x0a00_0000 + number).into()), v6: None }
}

/// Services' addresses are the upper half of the subnet.
fn vip(number: u32) -> Addresses {
    address(0x80_0000 + number)
}

fn endpoint(number: u32) -> EndpointId {
    EndpointId::from_u128(u128::from(number.wrapping_mul(0x9e37_79b1)) << 64 | 1)
}

fn at(addresses: Addresses, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(addresses.iter().next().context("an address")?, port))
}

fn service(number: u32, backends: impl Iterator<Item = u32>) -> Service {
    let backend = |n: u32| (endpoint(n), Backend { addresses: address(n), draining: false });
    Service { vips: vip(number), backends: backends.map(backend).collect() }
}

struct Bench {
    host: Namespace,
    client: Namespace,
    server: Namespace,
    desired: Desired,
    dataplane: KernelDataplane,
}

impl Bench {
    fn new() -> Result<Self> {
        let (host, client, server) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        let mut network = Network::new(Settings {
            vni: Vni::for_overlay(5000)?,
            encrypted: false,
            multicast: false,
            mtu: 1450,
            subnets: vec![NetworkSubnet {
                subnet: Subnet::parse("subnet", "10.0.0.0/8")?,
                gateway: [10, 255, 0, 1].into(),
            }],
        });
        for (number, netns) in [(2, &client), (3, &server)] {
            let local = LocalEndpoint::new(
                MacAddr::from_ipv4((0x0a00_0000 + number).into()),
                address(number),
                PortKind::Veth { name: "eth0".into(), netns: netns.path() },
            );
            network.locals.insert(endpoint(number), local);
        }
        let desired = Desired { networks: [(NETWORK, network)].into(), ..Desired::default() };
        let dataplane = start(&host)?;
        Ok(Self { host, client, server, desired, dataplane })
    }

    fn services(&mut self) -> Result<&mut std::collections::BTreeMap<ServiceId, Service>> {
        let network = self.desired.networks.get_mut(&NETWORK).context("no network")?;
        Ok(&mut network.services)
    }

    /// Seconds that a comparison and what follows from it take, and how many operations that was.
    fn converge(&mut self) -> Result<(f64, usize)> {
        let begin = Instant::now();
        let ops = diff(&self.desired, &self.dataplane.observe()?);
        let count = ops.len();
        self.apply(ops)?;
        Ok((begin.elapsed().as_secs_f64(), count))
    }

    fn apply(&mut self, ops: Vec<Op>) -> Result<()> {
        self.dataplane.apply(ops).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Has so many services, of three backends each. The first one leads to the server.
    fn grow(&mut self, count: u32) -> Result<()> {
        let services = self.services()?;
        for number in services.len() as u32..count {
            let first = if number == 0 { 3 } else { 1000 + number % 5000 * 3 };
            let backends = if number == 0 { first..first + 1 } else { first..first + 3 };
            services.insert(ServiceId::from_u128(number.into()), service(number, backends));
        }
        let (seconds, _) = self.converge()?;
        println!("vip: {count} services programmed for 2 endpoints\t{seconds:.3}\ts\t");
        self.converge()?;
        let (seconds, left) = self.converge()?;
        ensure!(left == 0, "{left} operations are left");
        println!("vip: full comparison with {count} services\t{:.2}\tms\t", seconds * 1e3);
        Ok(())
    }

    /// Has the client's namespace know a number of connections, and no others.
    fn fill(&self, count: u32) -> Result<()> {
        self.client.run(&["conntrack", "-F"])?;
        let to = at(address(3), ECHO)?;
        self.client.enter(|| -> Result<()> {
            for _ in 0..count {
                UdpSocket::bind("0.0.0.0:0")?.send_to(&[0], to)?;
            }
            Ok(())
        })
    }

    /// Milliseconds for one change, on average, for one endpoint, while the client's namespace knows so many
    /// connections.
    fn change(&mut self, count: u32, connections: u32) -> Result<()> {
        let target = if count == 10_000 { "<= 20" } else { "" };
        let busy = if connections > 0 { ", of a busy client" } else { "" };
        self.fill(connections)?;
        let mut spent = [0.0; 3];
        for round in 0..20_u32 {
            let id = ServiceId::from_u128(1_000_000);
            let number = count + 1;
            let some = |n: u32| Op::PutService(NETWORK, id, service(number, 5000..5000 + n));
            let changes = [some(3), some(4 + round % 2), Op::RemoveService(NETWORK, id)];
            for (spent, op) in spent.iter_mut().zip(changes) {
                let begin = Instant::now();
                self.apply(vec![op])?;
                // Two endpoints.
                *spent += begin.elapsed().as_secs_f64() * 1e3 / 40.0;
            }
        }
        let [put, grown, removed] = spent;
        println!("vip: one more service among {count}{busy}\t{put:.2}\tms\t{target}");
        println!("vip: one more backend, among {count} services{busy}\t{grown:.2}\tms\t{target}");
        println!("vip: one service less among {count}{busy}\t{removed:.2}\tms\t{target}");
        self.fill(0)
    }

    /// One backend of 1 000 more and less.
    fn change_backends(&mut self) -> Result<()> {
        let id = ServiceId::from_u128(1_000_000);
        let put = |n: u32| Op::PutService(NETWORK, id, service(60_000, 20_000..n));
        self.apply(vec![put(21_000)])?;
        let begin = Instant::now();
        for round in 0..20 {
            self.apply(vec![put(21_000 + (round + 1) % 2)])?;
        }
        let each = begin.elapsed().as_secs_f64() * 1e3 / 40.0;
        println!("vip: one backend among 1 000, at 10 000 services\t{each:.2}\tms\t<= 20");
        self.apply(vec![Op::RemoveService(NETWORK, id)])
    }

    /// Connections per second, made and ended one after the other.
    fn connects(&self, to: Addresses) -> Result<f64> {
        let to = at(to, ACCEPT)?;
        self.client.enter(|| {
            let begin = Instant::now();
            for _ in 0..CONNECTIONS {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.connect(&to.into())?;
                // Ended by a reset: no port is kept waiting.
                socket.set_linger(Some(Duration::ZERO))?;
            }
            Ok(f64::from(CONNECTIONS) / begin.elapsed().as_secs_f64())
        })
    }

    /// Bits per second of one stream.
    fn throughput(&self, to: Addresses) -> Result<f64> {
        let to = at(to, STREAM)?;
        self.client.enter(|| {
            let mut stream = TcpStream::connect(to)?;
            let (begin, mut left) = (Instant::now(), TRANSFER);
            let mut buffer = vec![0; 1 << 17];
            while left > 0 {
                let length = stream.read(&mut buffer)?;
                ensure!(length > 0, "{left} octets are missing");
                left = left.saturating_sub(length as u32);
            }
            Ok(f64::from(TRANSFER) * 8.0 / begin.elapsed().as_secs_f64())
        })
    }

    /// Microseconds from the first packet of a flow to its answer, on average.
    fn first_packet(&self, to: Addresses) -> Result<f64> {
        let to = at(to, ECHO)?;
        self.client.enter(|| {
            let mut spent = Duration::ZERO;
            for _ in 0..FIRST_PACKETS {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                let begin = Instant::now();
                socket.send(&[0])?;
                socket.recv(&mut [0])?;
                spent += begin.elapsed();
            }
            Ok(spent.as_secs_f64() * 1e6 / f64::from(FIRST_PACKETS))
        })
    }

    /// The best of some rounds, direct and by virtual address in turns.
    fn compare(
        &self,
        measure: impl Fn(&Self, Addresses) -> Result<f64>,
        better: fn(f64, f64) -> f64,
    ) -> Result<[f64; 2]> {
        let mut best = [None::<f64>; 2];
        for _ in 0..ROUNDS {
            for (best, to) in best.iter_mut().zip([address(3), vip(0)]) {
                let measured = measure(self, to)?;
                *best = Some(best.map_or(measured, |best| better(best, measured)));
            }
        }
        Ok(best.map(Option::unwrap_or_default))
    }

    /// Returns the latency of a first packet to the virtual address, over that to the backend.
    fn traffic(&self, count: u32) -> Result<f64> {
        let [direct, virtual_] = self.compare(Self::connects, f64::max)?;
        let ratio = virtual_ / direct;
        println!("vip: connections at {count} services\t{virtual_:.0}\t1/s\t");
        println!("vip: connections at {count} services, over direct ones\t{ratio:.3}\tratio\t");
        let [direct, virtual_] = self.compare(Self::throughput, f64::max)?;
        let ratio = virtual_ / direct;
        println!("vip: throughput at {count} services\t{:.2}\tGbit/s\t", virtual_ / 1e9);
        println!("vip: throughput at {count} services, over direct\t{ratio:.3}\tratio\t>= 0.95");
        let [direct, virtual_] = self.compare(Self::first_packet, f64::min)?;
        let ratio = virtual_ / direct;
        println!("vip: first packet and answer at {count} services\t{virtual_:.1}\tus\t");
        println!("vip: first packet at {count} services, over direct\t{ratio:.3}\tratio\t");
        Ok(virtual_)
    }
}

fn start(host: &Namespace) -> Result<KernelDataplane> {
    let config = KernelConfig::new("/run/vip", IpAddr::from([192, 0, 2, 1]));
    Ok(host.enter(|| KernelDataplane::start(config, Box::new(NftFilter::open(4789)?)))?)
}

/// Accepts and forgets, writes to whom connects, and answers datagrams, as long as the bench runs.
fn serve(server: &Namespace) -> Result<()> {
    let (accept, stream, echo) = server.enter(|| -> Result<_> {
        let listen = |port| TcpListener::bind(("0.0.0.0", port));
        Ok((listen(ACCEPT)?, listen(STREAM)?, UdpSocket::bind(("10.0.0.3", ECHO))?))
    })?;
    thread::spawn(move || accept.incoming().for_each(drop));
    thread::spawn(move || {
        let chunk = vec![0; 1 << 17];
        for mut client in stream.incoming().flatten() {
            while client.write(&chunk).is_ok() {}
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            // Who asked may be gone.
            let _ = echo.send_to(&buffer[..length], from);
        }
    });
    Ok(())
}

fn main() -> Result<()> {
    if lab::skip() {
        return Ok(());
    }
    lab::isolated(|| {
        let mut bench = Bench::new()?;
        bench.converge()?;
        serve(&bench.server)?;
        let mut first = None;
        for count in [1, 1_000, 10_000] {
            bench.grow(count)?;
            bench.change(count, 0)?;
            bench.change(count, CONNECTIONS_KNOWN)?;
            let latency = bench.traffic(count)?;
            let ratio = latency / *first.get_or_insert(latency);
            println!("vip: first packet at {count} services, over one\t{ratio:.3}\tratio\t<= 1.1");
        }
        bench.change_backends()?;
        bench.converge()?;
        bench.dataplane = start(&bench.host)?;
        let (seconds, _) = bench.converge()?;
        println!("vip: a restart takes over 10 000 services\t{seconds:.3}\ts\t<= 1");
        bench.desired = Desired::default();
        let (seconds, _) = bench.converge()?;
        println!("vip: all of them removed\t{seconds:.3}\ts\t");
        Ok(())
    })
}
