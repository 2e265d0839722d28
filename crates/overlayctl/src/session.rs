//! The node that is asked.

use std::path::PathBuf;

use overlay_api::{
    client::{connect_unix, lists},
    v1::{
        self, ca_client::CaClient, endpoints_client::EndpointsClient, keys_client::KeysClient,
        local_node_client::LocalNodeClient, networks_client::NetworksClient,
        nodes_client::NodesClient, services_client::ServicesClient,
    },
};
use tonic::{Status, transport::Channel};

use crate::{failure::Failure, output::Format};

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
            $client::new(self.channel.clone())
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
        ca: CaClient;
    }

    /// All nodes that fit.
    pub(crate) async fn list_nodes(
        &self,
        filter: v1::NodeFilter,
    ) -> Result<Vec<v1::NodeStatus>, Status> {
        let request = v1::ListNodesRequest { filter: Some(filter), ..Default::default() };
        lists::nodes(self.channel.clone(), request).await
    }

    /// All networks that fit.
    pub(crate) async fn list_networks(
        &self,
        filter: v1::NetworkFilter,
    ) -> Result<Vec<v1::Network>, Status> {
        let request = v1::ListNetworksRequest { filter: Some(filter), ..Default::default() };
        lists::networks(self.channel.clone(), request).await
    }

    /// All services that fit.
    pub(crate) async fn list_services(
        &self,
        filter: v1::ServiceFilter,
    ) -> Result<Vec<v1::Service>, Status> {
        let request = v1::ListServicesRequest { filter: Some(filter), ..Default::default() };
        lists::services(self.channel.clone(), request).await
    }

    /// All endpoints that fit.
    pub(crate) async fn list_endpoints(
        &self,
        filter: v1::EndpointFilter,
    ) -> Result<Vec<v1::Endpoint>, Status> {
        let request = v1::ListEndpointsRequest { filter: Some(filter), ..Default::default() };
        lists::endpoints(self.channel.clone(), request).await
    }
}
