//! The node that is asked.

use std::path::PathBuf;

use overlay_api::{
    client::connect_unix,
    v1::{
        endpoints_client::EndpointsClient, keys_client::KeysClient,
        local_node_client::LocalNodeClient, networks_client::NetworksClient,
        nodes_client::NodesClient, services_client::ServicesClient,
    },
};
use tonic::transport::Channel;

use crate::{failure::Failure, output::Format};

/// Largest answer that is accepted, in bytes: a list of 200 000 endpoints, the most that a cluster
/// is made for, of some 500 bytes each. tonic's own limit of 4 MiB ends at 10 000.
const MAX_ANSWER: usize = 128 << 20;

/// Whom to ask and how to print what it says.
pub(crate) struct Session {
    socket: PathBuf,
    /// How results are printed.
    pub(crate) format: Format,
}

impl Session {
    /// Nothing is opened until [`Session::connect`].
    pub(crate) fn new(socket: PathBuf, format: Format) -> Self {
        Self { socket, format }
    }

    /// Opens the socket.
    pub(crate) async fn connect(&self) -> Result<Node, Failure> {
        Ok(Node { channel: connect_unix(&self.socket).await? })
    }
}

/// A node whose socket is open.
pub(crate) struct Node {
    channel: Channel,
}

macro_rules! clients {
    ($($name:ident: $client:ident;)*) => {$(
        pub(crate) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
        }
    )*};
}

impl Node {
    clients! {
        local: LocalNodeClient;
        nodes: NodesClient;
        networks: NetworksClient;
        services: ServicesClient;
        endpoints: EndpointsClient;
        keys: KeysClient;
    }
}
