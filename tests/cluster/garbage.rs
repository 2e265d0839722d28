//! Input that makes no sense, on every listener of a whole node: what is dropped shows in the
//! counter of its port.

use core::net::SocketAddr;

use overlay_api::v1::{self, nodes_client::NodesClient};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
};

use crate::{
    lab::{Lab, LabNode, until},
    metrics::{scrape, value},
};

/// Rounds of garbage at each port.
const ROUNDS: usize = 5;
/// Datagrams of a round: few enough for a socket's buffer, should the node not come to read them.
const DATAGRAMS: usize = 50;
/// Connections of a round.
const CONNECTIONS: usize = 4;

enum Kind {
    Datagrams,
    Connections,
}

/// A port, and the counters of one of which each piece of garbage has to show.
struct Target {
    port: u16,
    kind: Kind,
    counter: &'static str,
    label: &'static str,
    reasons: &'static [&'static str],
}

const TARGETS: [Target; 5] = [
    Target {
        port: 4789,
        kind: Kind::Datagrams,
        counter: "overlay_dataplane_dropped_total",
        label: "reason",
        reasons: &["not_vxlan", "unknown_vni"],
    },
    Target {
        port: 4500,
        kind: Kind::Datagrams,
        counter: "overlay_dataplane_dropped_total",
        label: "reason",
        reasons: &["not_esp", "unknown_spi", "esp_invalid"],
    },
    Target {
        port: 7946,
        kind: Kind::Datagrams,
        counter: "overlay_gossip_dropped_total",
        label: "reason",
        reasons: &["truncated", "unknown-version", "unknown-epoch", "oversized"],
    },
    Target {
        port: 7946,
        kind: Kind::Connections,
        counter: "overlay_gossip_dropped_total",
        label: "reason",
        reasons: &["oversized", "stream-broken", "too-many-streams"],
    },
    Target {
        port: 2377,
        kind: Kind::Connections,
        counter: "overlay_control_handshakes_total",
        label: "outcome",
        reasons: &["refused", "timed_out"],
    },
];

impl Target {
    /// How much was dropped at the port so far.
    async fn dropped(&self, node: &LabNode) -> i64 {
        let text = scrape(node).await;
        let Self { counter, label, .. } = self;
        let of = |reason: &&str| value(&text, &format!("{counter}{{{label}=\"{reason}\"}}"));
        // What never happened is not in it.
        self.reasons.iter().filter_map(of).sum()
    }

    /// Sends garbage, and says how many pieces.
    async fn pester(&self, node: &LabNode, random: &mut StdRng) -> usize {
        let to = SocketAddr::new(node.address, self.port);
        match self.kind {
            Kind::Datagrams => {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                for _ in 0..DATAGRAMS {
                    socket.send_to(&garbage(0..2000, random), to).await.unwrap();
                }
                DATAGRAMS
            }
            Kind::Connections => {
                // They end together: half of what the node sees is half-open for a while.
                let mut open = Vec::new();
                for _ in 0..CONNECTIONS {
                    let mut stream = TcpStream::connect(to).await.unwrap();
                    // The node may have hung up already.
                    let _ = stream.write_all(&garbage(1..5000, random)).await;
                    open.push(stream);
                }
                CONNECTIONS
            }
        }
    }
}

fn garbage(length: core::ops::Range<usize>, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(length)];
    random.fill_bytes(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_garbage_on_every_port_is_dropped_and_counted() {
    let lab = Lab::managers(1).await;
    let node = &lab.nodes[0];
    let mut random = StdRng::seed_from_u64(6);
    for target in TARGETS.iter().flat_map(|target| [target; ROUNDS]) {
        let before = target.dropped(node).await;
        let sent = i64::try_from(target.pester(node, &mut random).await).unwrap();
        until(&format!("garbage on port {} is counted", target.port), || async {
            (target.dropped(node).await - before >= sent).then_some(())
        })
        .await;
    }
    let mut client = NodesClient::new(node.channel().await);
    let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.nodes.len(), 1);
}
