//! The nodes, the guests on them, and the calls that several steps make.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result};
use overlay_api::v1::{
    self, networks_client::NetworksClient, nodes_client::NodesClient,
    services_client::ServicesClient,
};
use overlay_dataplane::mtu;
use overlay_types::{EndpointId, NetworkId};

use crate::{
    guest::{Guest, GuestConfig},
    lab::{LabNode, UNDERLAY_MTU},
    wire::Wire,
};

/// Guests take all of the default pool for their own link, as badly configured ones would: so
/// they really ask for addresses of other networks.
const GUEST_PREFIX_LEN: u8 = 8;

/// A plain network and an encrypted one.
pub(crate) const PLAIN: &str = "plain";
pub(crate) const SEALED: &str = "sealed";

/// What the steps work on.
pub(crate) struct Demo {
    pub(crate) nodes: Vec<LabNode>,
    pub(crate) wire: Wire,
    /// One guest per node on [`PLAIN`] and on [`SEALED`], in the order of the nodes.
    pub(crate) plain: Vec<Arc<Guest>>,
    pub(crate) sealed: Vec<Arc<Guest>>,
    /// The tasks of the service, in the order of the nodes.
    pub(crate) tasks: Vec<Arc<Guest>>,
}

impl Demo {
    pub(crate) fn new(nodes: Vec<LabNode>) -> Self {
        let wire = Wire::default();
        Self { nodes, wire, plain: Vec::new(), sealed: Vec::new(), tasks: Vec::new() }
    }

    /// All nodes, as the node in this place lists them.
    pub(crate) async fn listed(&self, place: usize) -> Result<Vec<v1::NodeStatus>> {
        let mut client = NodesClient::new(self.nodes[place].channel().await?);
        let answer = client.list_nodes(v1::ListNodesRequest::default()).await?;
        Ok(answer.into_inner().nodes)
    }

    /// Place of the node that leads, as the node in place `asked` says.
    pub(crate) async fn leader(&self, asked: usize) -> Result<usize> {
        let listed = self.listed(asked).await?;
        let leader = listed.iter().find(|status| status.leader).context("no node leads")?;
        let name = leader.node.as_ref().map_or("", |node| node.name.as_str());
        let place = self.nodes.iter().position(|node| node.name == name);
        place.with_context(|| format!("an unknown node {name} leads"))
    }

    /// Creates an attachable network through the node in this place.
    pub(crate) async fn create_network(
        &self,
        place: usize,
        name: &str,
        encrypted: bool,
    ) -> Result<v1::Network> {
        let mut client = NetworksClient::new(self.nodes[place].channel().await?);
        let name = name.to_owned();
        let spec = v1::NetworkSpec { name, encrypted, attachable: true, ..Default::default() };
        let request = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
        let answer = client.create_network(request).await?.into_inner();
        answer.network.context("the answer has no network")
    }

    pub(crate) async fn network_id(&self, place: usize, name: &str) -> Result<NetworkId> {
        let mut client = NetworksClient::new(self.nodes[place].channel().await?);
        let request = v1::GetNetworkRequest { network: name.to_owned(), consistency: None };
        let network = client.get_network(request).await?.into_inner().network;
        Ok(network.context("the answer has no network")?.id.parse()?)
    }

    pub(crate) async fn service(&self, place: usize, name: &str) -> Result<v1::Service> {
        let mut client = ServicesClient::new(self.nodes[place].channel().await?);
        let request = v1::GetServiceRequest { service: name.to_owned(), consistency: None };
        let service = client.get_service(request).await?.into_inner().service;
        service.context("the answer has no service")
    }

    /// Attaches a guest to a network, on the node in this place; as a task of a service if one is
    /// named.
    pub(crate) async fn attach(
        &self,
        place: usize,
        network: &str,
        name: &str,
        service: &str,
    ) -> Result<Arc<Guest>> {
        let spec = v1::EndpointSpec {
            network: network.to_owned(),
            name: name.to_owned(),
            service: service.to_owned(),
            ..Default::default()
        };
        let request = v1::AttachEndpointRequest { spec: Some(spec), ..Default::default() };
        let handle = &self.nodes[place].handle;
        let answer = handle.attach(request).await.with_context(|| format!("attach {name}"))?;
        let endpoint = answer.endpoint.context("the answer has no endpoint")?;
        let spec = answer.network.and_then(|network| network.spec).unwrap_or_default();
        let config = GuestConfig {
            endpoint: endpoint.id.parse()?,
            name: name.to_owned(),
            mac: endpoint.mac.parse()?,
            address: endpoint.addresses.first().context("no address")?.parse::<Ipv4Addr>()?,
            prefix_len: GUEST_PREFIX_LEN,
            mtu: mtu::overlay(UNDERLAY_MTU, false, spec.encrypted),
        };
        let port = handle.take_memory_port(config.endpoint)?.context("no memory port")?;
        Ok(Arc::new(Guest::start(config, port)))
    }
}
