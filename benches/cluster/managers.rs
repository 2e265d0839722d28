//! Three managers, as whole nodes in this process.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use overlay_api::{client::connect_unix, v1};
use overlayd::{Config, Node, NodeHandle, config::DataplaneSetting};
use tonic::transport::Channel;

use crate::{PAYLOAD, rate};

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
    pub(crate) async fn calls(&self, clients: usize) -> Result<f64> {
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
        rate(clients, pair).await
    }

    /// Networks are created and removed.
    pub(crate) async fn writes(&self, clients: usize) -> Result<f64> {
        let networks = v1::networks_client::NetworksClient::new(self.leader.clone());
        let pair = move |name: String| {
            let mut networks = networks.clone();
            async move {
                let spec = v1::NetworkSpec {
                    name: name.clone(),
                    labels: [("payload".to_owned(), PAYLOAD.to_owned())].into(),
                    ..Default::default()
                };
                let create = v1::CreateNetworkRequest { spec: Some(spec), ..Default::default() };
                networks.create_network(create).await?;
                let remove = v1::RemoveNetworkRequest { network: name, ..Default::default() };
                networks.remove_network(remove).await?;
                Ok(())
            }
        };
        rate(clients, pair).await
    }
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
