//! Containers on one network, some of which answer with their number.

use core::{net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    thread::{self, JoinHandle},
};

use mio::{Events, Interest, Poll, Token, Waker, net};
use overlay_testkit::lab::{self, Namespace};
use overlay_types::{
    Addresses, EndpointId, MacAddr, NetworkId, NetworkSubnet, ServiceId, Subnet, Vni,
};

use super::{Lab, converge};
use crate::{
    Dataplane, Desired, Op,
    desired::{Backend, LocalEndpoint, Network, PortKind, Service, Settings},
    kernel::{
        KernelDataplane,
        nft::{Nft, Table, vip},
    },
};

/// Port that servers listen on, and the next ones.
pub(super) const PORT: u16 = 80;
pub(super) const PORTS: u16 = 16;
pub(super) const NETWORK: NetworkId = NetworkId::from_u128(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Runs a test with so many containers.
pub(super) fn with_fleet(count: usize, test: impl FnOnce(Fleet) + Send) {
    if !lab::skip() {
        lab::isolated(|| test(Fleet::new(count)));
    }
}

/// Containers, numbered from 0, and what their network shall be.
pub(super) struct Fleet {
    pub(super) lab: Lab,
    pub(super) containers: Vec<Namespace>,
    pub(super) desired: Desired,
    pub(super) dataplane: KernelDataplane,
}

/// Addresses of a container.
pub(super) fn of_container(number: usize) -> Addresses {
    let host = number as u16 + 2;
    let v6 = [0xfd00, 1, 0, 0, 0, 0, 0, host];
    Addresses { v4: Some([10, 0, 1, host as u8].into()), v6: Some(v6.into()) }
}

/// Virtual addresses of a service.
pub(super) fn of_service(number: u16) -> Addresses {
    let [high, low] = number.to_be_bytes();
    let v6 = [0xfd00, 1, 0, 0, 0, 0, 1, number];
    Addresses { v4: Some([10, 0, 128 + high, low].into()), v6: Some(v6.into()) }
}

pub(super) fn ip(addresses: Addresses, ipv6: bool) -> IpAddr {
    addresses.iter().find(|address| address.is_ipv6() == ipv6).unwrap()
}

pub(super) fn endpoint(number: usize) -> EndpointId {
    EndpointId::from_u128(number as u128 + 100)
}

pub(super) fn network_settings(vni: u32) -> Settings {
    let subnet = |text: &str, gateway: &str| NetworkSubnet {
        subnet: Subnet::parse("subnet", text).unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    Settings {
        vni: Vni::new(vni).unwrap(),
        encrypted: false,
        multicast: false,
        mtu: 1400,
        subnets: vec![subnet("10.0.0.0/16", "10.0.0.1"), subnet("fd00:1::/64", "fd00:1::1")],
    }
}

impl Fleet {
    pub(super) fn new(count: usize) -> Self {
        let (lab, network) = (Lab::new(), Network::new(network_settings(4097)));
        let desired = Desired { networks: [(NETWORK, network)].into(), ..Desired::default() };
        let dataplane = lab.start();
        let mut fleet = Self { lab, containers: Vec::new(), desired, dataplane };
        (0..count).for_each(|_| fleet.add());
        fleet.converge();
        fleet
    }

    /// Adds a container, which is there from the next comparison on.
    pub(super) fn add(&mut self) {
        let (number, container) = (self.containers.len(), Namespace::new().unwrap());
        let local = LocalEndpoint::new(
            MacAddr([2, 0x42, 10, 0, 1, number as u8 + 2]),
            of_container(number),
            PortKind::Veth { name: "eth0".into(), netns: container.path() },
        );
        self.network().locals.insert(endpoint(number), local);
        self.containers.push(container);
    }

    pub(super) fn network(&mut self) -> &mut Network {
        self.desired.networks.get_mut(&NETWORK).unwrap()
    }

    /// Has a service with these containers, some of which are draining, as backends.
    pub(super) fn serve(&mut self, number: u16, backends: &[usize], draining: &[usize]) {
        let all = [(false, backends), (true, draining)];
        let all =
            all.into_iter().flat_map(|(draining, list)| list.iter().map(move |n| (*n, draining)));
        let backend = |(number, draining)| {
            (endpoint(number), Backend { addresses: of_container(number), draining })
        };
        let backends = all.map(backend).collect();
        let service = Service { vips: of_service(number), backends };
        self.network().services.insert(ServiceId::from_u128(number.into()), service);
        self.converge();
    }

    pub(super) fn remove(&mut self, number: u16) {
        self.network().services.remove(&ServiceId::from_u128(number.into()));
        self.converge();
    }

    pub(super) fn converge(&mut self) {
        converge(&mut self.dataplane, &self.desired);
    }

    pub(super) fn apply(&mut self, op: Op) {
        self.dataplane.apply(vec![op]).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }

    /// Starts a server in a container.
    pub(super) fn server(&self, number: usize) -> Server {
        Server::start(&self.containers[number], number as u8, of_container(number))
    }

    /// A flow of UDP from a container to an address.
    pub(super) fn udp(&self, from: usize, to: SocketAddr) -> UdpSocket {
        self.udp_from(from, 0, to)
    }

    /// The same from a port. Connection tracking remembers flows of sockets that are closed.
    pub(super) fn udp_from(&self, from: usize, port: u16, to: SocketAddr) -> UdpSocket {
        let any: IpAddr = if to.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
        let socket = self.containers[from].enter(|| UdpSocket::bind((any, port))).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        socket
    }

    /// A connection of TCP from a container to an address.
    pub(super) fn tcp(&self, from: usize, to: SocketAddr) -> io::Result<TcpStream> {
        let stream =
            self.containers[from].enter(|| TcpStream::connect_timeout(&to, ANSWER_WITHIN))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(stream)
    }

    /// The table of a container, as the kernel has it.
    pub(super) fn table(&self, number: usize) -> Option<Table> {
        let id = vip::table_id(endpoint(number));
        self.containers[number].enter(|| Nft::open().unwrap().observe(&id).unwrap())
    }

    /// All rules of a container, as text.
    /// Ports on the network's bridge.
    pub(super) fn ports(&self) -> usize {
        self.lab.run(0, "ip -br link show").matches("\nep").count()
    }

    pub(super) fn ruleset(&self, number: usize) -> String {
        self.containers[number].run(&["nft", "list ruleset"]).unwrap()
    }
}

/// Who answers.
pub(super) fn ask(mut flow: impl Flow) -> io::Result<u8> {
    flow.exchange()
}

/// Something that a question can be asked over.
pub(super) trait Flow {
    fn exchange(&mut self) -> io::Result<u8>;
}

impl Flow for &UdpSocket {
    fn exchange(&mut self) -> io::Result<u8> {
        let mut answer = [0; 1];
        self.send(&[0])?;
        self.recv(&mut answer)?;
        Ok(answer[0])
    }
}

impl Flow for &TcpStream {
    fn exchange(&mut self) -> io::Result<u8> {
        let mut answer = [0; 1];
        self.write_all(&[0])?;
        self.read_exact(&mut answer)?;
        Ok(answer[0])
    }
}

/// Answers each octet or datagram with its number, by TCP and UDP, until it is dropped.
pub(super) struct Server {
    stop: Waker,
    thread: Option<JoinHandle<()>>,
}

const STOP: Token = Token(usize::MAX);

impl Server {
    fn start(container: &Namespace, number: u8, addresses: Addresses) -> Self {
        let poll = Poll::new().unwrap();
        let stop = Waker::new(poll.registry(), STOP).unwrap();
        let mut loops = Loop { poll, number, next: 0, sockets: HashMap::new() };
        container.enter(|| loops.listen(addresses));
        let thread = thread::spawn(move || while loops.turn() {});
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.wake().unwrap();
        self.thread.take().map(JoinHandle::join);
    }
}

enum Socket {
    Udp(net::UdpSocket),
    Listener(net::TcpListener),
    Stream(net::TcpStream),
}

struct Loop {
    poll: Poll,
    number: u8,
    next: usize,
    sockets: HashMap<Token, Socket>,
}

impl Loop {
    fn listen(&mut self, addresses: Addresses) {
        for address in addresses.iter() {
            for port in PORT..PORT + PORTS {
                let at = SocketAddr::new(address, port);
                self.add(Socket::Udp(net::UdpSocket::bind(at).unwrap()));
                self.add(Socket::Listener(net::TcpListener::bind(at).unwrap()));
            }
        }
    }

    fn add(&mut self, mut socket: Socket) {
        let token = Token(self.next);
        self.next += 1;
        let registry = self.poll.registry();
        match &mut socket {
            Socket::Udp(socket) => registry.register(socket, token, Interest::READABLE),
            Socket::Listener(socket) => registry.register(socket, token, Interest::READABLE),
            Socket::Stream(socket) => registry.register(socket, token, Interest::READABLE),
        }
        .unwrap();
        self.sockets.insert(token, socket);
    }

    /// Whether to go on.
    fn turn(&mut self) -> bool {
        let mut events = Events::with_capacity(256);
        while let Err(error) = self.poll.poll(&mut events, None) {
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
        let tokens: Vec<_> = events.iter().map(mio::event::Event::token).collect();
        for token in &tokens {
            while self.serve(*token) {}
        }
        !tokens.contains(&STOP)
    }

    /// Whether there was something.
    fn serve(&mut self, token: Token) -> bool {
        let mut buffer = [0; 2048];
        let accepted = match self.sockets.get_mut(&token) {
            None => return false,
            Some(Socket::Udp(socket)) => {
                let Ok((_, from)) = socket.recv_from(&mut buffer) else { return false };
                let _ = socket.send_to(&[self.number], from);
                return true;
            }
            Some(Socket::Stream(stream)) => match stream.read(&mut buffer) {
                Ok(1..) => {
                    let _ = stream.write(&[self.number]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                _ => {
                    self.sockets.remove(&token);
                    return false;
                }
            },
            Some(Socket::Listener(listener)) => listener.accept(),
        };
        let Ok((stream, _)) = accepted else { return false };
        self.add(Socket::Stream(stream));
        true
    }
}

/// How often each answer came.
pub(super) fn count(answers: impl Iterator<Item = u8>) -> BTreeMap<u8, usize> {
    let mut counted = BTreeMap::new();
    answers.for_each(|answer| *counted.entry(answer).or_default() += 1);
    counted
}
