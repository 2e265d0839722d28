//! Whole TCP/IP stacks of others behind two switches: ping and TCP, both families, sealed or not.

use std::collections::VecDeque;

use smoltcp::{
    iface::{Config as StackConfig, Interface, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant as StackInstant,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

use super::*;

/// A network card that is two queues.
#[derive(Default)]
struct Card {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Frame(Vec<u8>);
struct Slot<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Slot<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Frame, Slot<'_>)> {
        self.received.pop_front().map(|frame| (Frame(frame), Slot(&mut self.sent)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Slot<'_>> {
        Some(Slot(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1414;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

struct Host {
    number: u8,
    card: Card,
    stack: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

impl Host {
    fn new(number: u8) -> Self {
        let mut card = Card::default();
        let config = StackConfig::new(EthernetAddress(mac(number).0).into());
        let mut stack = Interface::new(config, &mut card, StackInstant::ZERO);
        stack.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(v4(number)), 24)).unwrap();
            addresses.push(IpCidr::new(IpAddress::Ipv6(v6(number)), 64)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 32 << 10]);
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { number, card, stack, sockets, tcp }
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }
}

/// Hosts and the nodes that they are on, with time that jumps.
struct World {
    hosts: Vec<(usize, Host)>,
    nodes: Vec<Node>,
    now: StackInstant,
}

impl World {
    fn step(&mut self) {
        self.now += smoltcp::time::Duration::from_millis(1);
        for at in 0..self.hosts.len() {
            let (node, host) = &mut self.hosts[at];
            host.stack.poll(self.now, &mut host.card, &mut host.sockets);
            let (node, number) = (*node, host.number);
            while let Some(frame) = self.hosts[at].1.card.sent.pop_front() {
                let sent = self.nodes[node].frame(number, &frame);
                self.hand_over(&sent);
                for (to, channel, datagram) in datagrams(&sent) {
                    let from = self.nodes[node].number;
                    let there = self.nodes.iter_mut().find(|n| node_address(n.number) == to);
                    let received = there.unwrap().datagram(from, channel, &datagram);
                    self.hand_over(&received);
                }
            }
        }
    }

    fn hand_over(&mut self, batch: &Batch) {
        for (port, frame) in frames(batch) {
            let host = self.hosts.iter_mut().find(|(_, host)| u32::from(host.number) == port);
            host.unwrap().1.card.received.push_back(frame);
        }
    }

    /// Sends `length` octets from the first host to `target`, where the second answers with the
    /// same; both are checked.
    fn transfer(&mut self, target: IpAddress, length: usize) {
        let data: Vec<u8> = (0..length).map(|i| (i ^ i >> 8) as u8).collect();
        let (mut out, mut back) = (0, Vec::new());
        self.hosts[1].1.tcp().listen(80).unwrap();
        let client = &mut self.hosts[0].1;
        let context = client.stack.context();
        client
            .sockets
            .get_mut::<tcp::Socket<'_>>(client.tcp)
            .connect(context, (target, 80), 40_000)
            .unwrap();
        for _ in 0..200_000 {
            self.step();
            let socket = self.hosts[0].1.tcp();
            if socket.can_send() && out < length {
                out += socket.send_slice(&data[out..]).unwrap();
            }
            if socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), back.extend_from_slice(bytes))).unwrap();
            }
            let echo = self.hosts[1].1.tcp();
            if echo.can_recv() && echo.can_send() {
                let room = echo.send_capacity() - echo.send_queue();
                let mut chunk = vec![0; room];
                let read = echo.recv_slice(&mut chunk).unwrap();
                assert_eq!(echo.send_slice(&chunk[..read]).unwrap(), read);
            }
            if back.len() == length {
                break;
            }
        }
        assert_eq!(back.len(), length, "all of it came back");
        assert!(back == data);
    }
}

fn world(plan: &Plan) -> World {
    let nodes = vec![Node::new(1, &[plan]), Node::new(2, &[plan])];
    let hosts = vec![(0, Host::new(11)), (1, Host::new(21))];
    World { hosts, nodes, now: StackInstant::ZERO }
}

#[test]
fn n12_tcp_crosses_two_switches_in_both_families() {
    for target in [IpAddress::Ipv4(v4(21)), IpAddress::Ipv6(v6(21))] {
        let mut world = world(&Plan::new(PLAIN, &[(1, 11), (2, 21)]));
        world.transfer(target, 200_000);
        for node in &world.nodes {
            let unexpected: Vec<_> = node
                .drops()
                .into_iter()
                .filter(|(reason, _)| {
                    !matches!(reason, DropReason::NeighborDiscovery | DropReason::Group)
                })
                .collect();
            assert_eq!(unexpected, []);
        }
    }
}

#[test]
fn s01_tcp_to_a_virtual_address_reaches_the_backend() {
    for target in [IpAddress::Ipv4(v4(100)), IpAddress::Ipv6(v6(100))] {
        let mut world = world(&Plan::new(PLAIN, &[(1, 11), (2, 21)]).serve(100, &[21]));
        world.transfer(target, 50_000);
        assert_eq!(world.nodes[0].engine.flows(), 1);
        assert_eq!(world.nodes[1].engine.flows(), 0);
    }
}
