//! Questions to a node's name server, asked over UDP as a guest's resolver would.

use core::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use overlay_service::dns::Server;
use overlay_types::NetworkId;
use tokio::{net::UdpSocket, time::timeout};

use crate::lab::LabNode;

const PATIENCE: Duration = Duration::from_secs(2);
/// Largest answer without EDNS (RFC 1035 §4.2.1).
const MAX_ANSWER: usize = 512;

/// A name server of a node, on a loopback port.
pub(crate) struct Names {
    address: SocketAddr,
    _server: Server,
}

impl Names {
    /// Starts one for guests on `network`.
    pub(crate) async fn start(node: &LabNode, network: NetworkId) -> Result<Self> {
        let socket = UdpSocket::bind((node.address, 0)).await?;
        let address = socket.local_addr()?;
        let mut server = node.handle.names([network], None)?;
        server.serve_udp(socket);
        Ok(Self { address, _server: server })
    }

    /// The records of a name, as text, sorted; none when the name does not exist.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<String>> {
        let mut question = Message::query();
        question.queries = vec![Query::query(Name::from_ascii(name)?, kind)];
        let socket = UdpSocket::bind((self.address.ip(), 0)).await?;
        socket.connect(self.address).await?;
        socket.send(&question.to_vec()?).await?;
        let mut buffer = [0; MAX_ANSWER];
        let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
        let length = received.with_context(|| format!("{name} {kind}: no answer"))??;
        let answer = Message::from_vec(&buffer[..length])?;
        ensure!(answer.metadata.id == question.metadata.id, "an answer to another question");
        let mut records: Vec<_> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        records.sort();
        Ok(records)
    }
}
