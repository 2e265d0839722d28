//! The nodes, the guests on them, and the calls that several steps make.

use core::{net::Ipv4Addr, time::Duration};
use std::sync::Arc;

use anyhow::{Context, Result};
use overlay_api::v1::{
    self, networks_client::NetworksClient, nodes_client::NodesClient,
    services_client::ServicesClient,
};
use overlay_dataplane::mtu;
use overlay_types::{Encapsulation, NetworkId};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    guest::{Guest, GuestConfig},
    keys::KeyLog,
    lab::{LabNode, UNDERLAY_MTU},
    names::Names,
    wire::Wire,
};

/// Guests take all of the default pool for their own link, as badly configured ones would: so
/// they really ask for addresses of other networks.
const GUEST_PREFIX_LEN: u8 = 8;

/// A plain network and an encrypted one.
pub(crate) const PLAIN: &str = "plain";
pub(crate) const SEALED: &str = "sealed";
/// A service on [`PLAIN`].
pub(crate) const SERVICE: &str = "web";

/// What the steps work on.
pub(crate) struct Demo {
    pub(crate) nodes: Vec<LabNode>,
    pub(crate) wire: Wire,
    pub(crate) keys: KeyLog,
    /// One guest per node on [`PLAIN`] and on [`SEALED`], in the order of the nodes.
    pub(crate) plain: Vec<Arc<Guest>>,
    pub(crate) sealed: Vec<Arc<Guest>>,
    /// One task of [`SERVICE`] per node.
    pub(crate) tasks: Vec<Arc<Guest>>,
    /// One name server per node, for guests on [`PLAIN`].
    pub(crate) names: Vec<Names>,
}

impl Demo {
    pub(crate) fn new(nodes: Vec<LabNode>) -> Self {
        Self {
            nodes,
            wire: Wire::default(),
            keys: KeyLog::default(),
            plain: Vec::new(),
            sealed: Vec::new(),
            tasks: Vec::new(),
            names: Vec::new(),
        }
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

    /// The virtual address of [`SERVICE`].
    pub(crate) async fn virtual_address(&self) -> Result<Ipv4Addr> {
        let service = self.service(0, SERVICE).await?;
        let address = service.vips.first().and_then(|vip| vip.addresses.first());
        Ok(address.context("the service has no virtual address")?.parse()?)
    }

    /// Adds the keys that the nodes have now to those that a capture is decrypted with.
    pub(crate) async fn keep_keys(&mut self) -> Result<()> {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            self.keys.add(node).await?;
        }
        Ok(())
    }

    /// Starts a dead node once more, and its guests. Returns how long the node took.
    pub(crate) async fn revive(&mut self, place: usize) -> Result<Duration> {
        let began = Instant::now();
        self.nodes[place].restart().await?;
        let took = began.elapsed();
        self.wire.tap(&self.nodes[place])?;
        let handle = &self.nodes[place].handle;
        for guests in [&mut self.plain, &mut self.sealed, &mut self.tasks] {
            let config = guests[place].config.clone();
            let port = handle.replug(config.endpoint).await?;
            guests[place] = Arc::new(Guest::start(config, port));
        }
        let network = self.network_id(place, PLAIN).await?;
        self.names[place] = Names::start(&self.nodes[place], network).await?;
        Ok(took)
    }

    /// Stops all nodes in order.
    pub(crate) async fn stop(self) -> Result<()> {
        let mut stopping = JoinSet::new();
        for mut node in self.nodes {
            stopping.spawn(async move { node.stop().await });
        }
        while let Some(stopped) = stopping.join_next().await {
            stopped??;
        }
        Ok(())
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
            mtu: mtu::overlay(UNDERLAY_MTU, false, spec.encrypted.then(Encapsulation::default)),
        };
        let port = handle.take_memory_port(config.endpoint)?.context("no memory port")?;
        Ok(Arc::new(Guest::start(config, port)))
    }
}
