//! Three managers, as whole nodes in this process.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use overlay_api::{
    client::{connect_unix, writes::WriteStream},
    v1,
};
use overlayd::{Config, Node, NodeHandle, config::DataplaneSetting};
use tonic::transport::Channel;

use crate::{PAYLOAD, Speed, speed};

/// How long a node may take until it answers on its socket.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster of three managers.
pub(crate) struct Managers {
    leader: Channel,
}

impl Managers {
    /// Makes the cluster in `folder`.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let nodes = (1..=3).map(|place| start(folder, place)).collect::<Result<Vec<_>>>()?;
        let mut channels = Vec::new();
        for (_, socket) in &nodes {
            channels.push(connect(socket).await?);
        }
        let tokens = nodes[0].0.init(v1::InitClusterRequest::default()).await?;
        for (handle, _) in &nodes[1..] {
            let token = tokens.manager_token.clone();
            let remotes = vec!["127.60.0.1".to_owned()];
            handle.join(v1::JoinClusterRequest { token, remotes }).await?;
        }
        Ok(Self { leader: channels.swap_remove(0) })
    }

    /// Calls that write nothing and wait for nobody: no number of writes can exceed theirs.
    pub(crate) async fn calls(&self, clients: usize) -> Result<Speed> {
        let networks = v1::networks_client::NetworksClient::new(self.leader.clone());
        let pair = move |_| {
            let mut networks = networks.clone();
            async move {
                for _ in 0..2 {
                    let consistency = Some(v1::Consistency { stale: true });
                    let page =
                        v1::ListNetworksRequest { consistency, page_size: 1, ..Default::default() };
                    networks.list_networks(page).await?;
                }
                Ok(())
            }
        };
        speed((clients, &[]), pair).await
    }

    /// Networks are created and removed, each by a call of its own.
    pub(crate) async fn calls_for_networks(&self, clients: usize) -> Result<Speed> {
        let networks = v1::networks_client::NetworksClient::new(self.leader.clone());
        let pair = move |name: String| {
            let mut networks = networks.clone();
            async move {
                networks.create_network(create_network(&name)).await?;
                networks.remove_network(remove_network(name)).await?;
                Ok(())
            }
        };
        speed((clients, &[]), pair).await
    }

    /// Networks are created and removed, over one call for all clients.
    pub(crate) async fn networks(&self, clients: usize) -> Result<Speed> {
        let writes = WriteStream::open(self.leader.clone()).await?;
        let pair = move |name: String| {
            let writes = writes.clone();
            async move {
                writes.create_network(create_network(&name)).await?;
                writes.remove_network(remove_network(name)).await?;
                Ok(())
            }
        };
        speed((clients, &[]), pair).await
    }

    /// Services without an address, which are a name and a value like the keys of etcd, are created and
    /// removed, over one call for all clients.
    pub(crate) async fn services(&self, clients: usize) -> Result<Speed> {
        let writes = WriteStream::open(self.leader.clone()).await?;
        let pair = move |name: String| {
            let writes = writes.clone();
            async move {
                let spec = v1::ServiceSpec {
                    name: name.clone(),
                    labels: [("payload".to_owned(), PAYLOAD.to_owned())].into(),
                    // No virtual address.
                    mode: v1::EndpointMode::Dnsrr.into(),
                    ..Default::default()
                };
                let create = v1::CreateServiceRequest { spec: Some(spec), ..Default::default() };
                writes.create_service(create).await?;
                let remove = v1::RemoveServiceRequest { service: name, ..Default::default() };
                writes.remove_service(remove).await?;
                Ok(())
            }
        };
        speed((clients, &[]), pair).await
    }
}

fn create_network(name: &str) -> v1::CreateNetworkRequest {
    let labels = [("payload".to_owned(), PAYLOAD.to_owned())].into();
    let spec = v1::NetworkSpec { name: name.to_owned(), labels, ..Default::default() };
    v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() }
}

fn remove_network(network: String) -> v1::RemoveNetworkRequest {
    v1::RemoveNetworkRequest { network, ..Default::default() }
}

fn start(folder: &Path, place: u8) -> Result<(NodeHandle, PathBuf)> {
    let socket = folder.join(format!("socket{place}"));
    let node = Node::builder(Config {
        data_dir: folder.join(format!("data{place}")),
        socket: socket.clone(),
        name: Some(format!("node{place}")),
        advertise_addr: Some(IpAddr::from([127, 60, 0, place])),
        dataplane: DataplaneSetting::User,
        ..Config::default()
    })
    .build()?;
    let handle = node.handle();
    tokio::spawn(async move { node.run(std::future::pending()).await });
    Ok((handle, socket))
}

async fn connect(socket: &Path) -> Result<Channel> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect_unix(socket).await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
