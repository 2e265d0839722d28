//! Frames between endpoints of nodes, by hand.

use core::net::IpAddr;
use std::sync::Mutex;

use etherparse::PacketBuilder;
use overlay_api::v1;
use overlay_dataplane::user::ports::MemoryPort;
use overlay_types::{EndpointId, MacAddr, NodeId};

use crate::lab::{Lab, until};

/// An endpoint on each network for each node.
pub(super) struct Wires {
    nodes: Vec<Vec<Wire>>,
    ids: Vec<NodeId>,
    sent: u64,
}

struct Wire {
    id: EndpointId,
    network: String,
    mac: [u8; 6],
    address: [u8; 4],
    port: MemoryPort,
}

impl Wires {
    pub(super) async fn attach(lab: &Lab, networks: &[&str]) -> Self {
        let mut nodes = Vec::new();
        for node in &lab.nodes {
            let mut wires = Vec::new();
            for network in networks {
                let spec =
                    v1::EndpointSpec { network: (*network).to_owned(), ..Default::default() };
                let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
                let endpoint = node.handle.attach(request).await.unwrap().endpoint.unwrap();
                let id: EndpointId = endpoint.id.parse().unwrap();
                let IpAddr::V4(address) = endpoint.addresses[0].parse().unwrap() else { panic!() };
                let mac: MacAddr = endpoint.mac.parse().unwrap();
                wires.push(Wire {
                    id,
                    network: (*network).to_owned(),
                    mac: mac.0,
                    address: address.octets(),
                    port: node.handle.take_memory_port(id).unwrap().unwrap(),
                });
            }
            nodes.push(wires);
        }
        let ids = lab.nodes.iter().map(|node| node.handle.node().unwrap()).collect();
        Self { nodes, ids, sent: 0 }
    }

    /// Who the node in this place is.
    pub(super) fn node(&self, place: usize) -> NodeId {
        self.ids[place]
    }

    /// Plugs the endpoints of a node in again that was restarted.
    pub(super) async fn replug(&mut self, lab: &Lab, place: usize) {
        for wire in &mut self.nodes[place] {
            wire.port = lab.nodes[place].handle.replug(wire.id).await.unwrap();
        }
    }

    /// Sends frames from each node to each other one, on each network, until one has arrived.
    pub(super) async fn carry_all(&mut self) {
        let places: Vec<usize> = (0..self.nodes.len()).collect();
        self.carry(&places).await;
    }

    /// The same, among these nodes.
    pub(super) async fn carry(&mut self, places: &[usize]) {
        for from in places {
            for to in places.iter().filter(|to| *to != from) {
                for network in 0..self.nodes[*from].len() {
                    self.carry_one(*from, *to, network).await;
                }
            }
        }
    }

    async fn carry_one(&mut self, from: usize, to: usize, network: usize) {
        self.sent += 1;
        let mark = self.sent.to_be_bytes();
        let (source, target) = (&self.nodes[from][network], &self.nodes[to][network]);
        let builder = PacketBuilder::ethernet2(source.mac, target.mac)
            .ipv4(source.address, target.address, 64)
            .udp(1000, 2000);
        let mut frame = Vec::new();
        builder.write(&mut frame, &mark).unwrap();
        let what = format!("a frame from node {from} to {to} on {}", source.network);
        let [sender, receiver] = self.nodes.get_disjoint_mut([from, to]).unwrap();
        let sender = &sender[network].port;
        let receiver = Mutex::new(&mut receiver[network].port);
        until(&what, || async {
            sender.send(frame.clone()).unwrap();
            let mut receiver = receiver.lock().unwrap();
            while let Some(frame) = receiver.try_recv().unwrap() {
                if frame.ends_with(&mark) {
                    return Some(());
                }
            }
            None
        })
        .await;
    }
}
