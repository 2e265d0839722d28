//! Input that makes no sense, on every listener of a whole node.

use core::net::SocketAddr;

use overlay_api::v1::{self, nodes_client::NodesClient};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
};

use crate::lab::{Lab, until};

/// Datagrams to each UDP port: lengths of all sizes, and few enough for a socket's buffer.
const DATAGRAMS: usize = 300;
/// Connections to each TCP port, which stay open until the end.
const CONNECTIONS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn r06_garbage_on_every_port_is_dropped_and_counted() {
    let lab = Lab::managers(1).await;
    let node = &lab.nodes[0];
    let mut random = StdRng::seed_from_u64(6);
    for port in [4789, 4500, 7946] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = SocketAddr::new(node.address, port);
        for _ in 0..DATAGRAMS {
            let mut datagram = vec![0; random.random_range(0..2000)];
            random.fill_bytes(&mut datagram);
            socket.send_to(&datagram, to).await.unwrap();
        }
    }
    let mut half_open = Vec::new();
    for port in [2377, 7946] {
        for _ in 0..CONNECTIONS {
            let to = SocketAddr::new(node.address, port);
            let mut stream = TcpStream::connect(to).await.unwrap();
            let mut bytes = vec![0; random.random_range(1..5000)];
            random.fill_bytes(&mut bytes);
            // The node may have hung up already.
            let _ = stream.write_all(&bytes).await;
            half_open.push(stream);
        }
    }
    let mut client = NodesClient::new(node.channel().await);
    let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.nodes.len(), 1);
    until("what was dropped is counted", || async {
        let channel = node.channel().await;
        let mut local = v1::local_node_client::LocalNodeClient::new(channel);
        let status = local.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
        let dropped = |prefix: &str| {
            let counters = status.counters.iter();
            counters.filter(|(name, _)| name.starts_with(prefix)).map(|(_, n)| *n).sum::<u64>()
        };
        let enough = dropped("dataplane.dropped.") >= 2 && dropped("gossip.dropped.") >= 1;
        enough.then_some(())
    })
    .await;
}
