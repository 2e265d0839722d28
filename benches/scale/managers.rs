//! Managers: whole nodes in this process.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result};
use overlay_api::{client::connect_unix, v1};
use overlayd::{Config, Node, NodeHandle, config::DataplaneSetting};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;

use crate::until;

/// A cluster's managers. Its other addresses are 127.`net`.0.0/16.
pub(crate) struct Managers {
    pub(crate) all: Vec<Manager>,
    pub(crate) worker_token: String,
    manager_token: String,
    net: u8,
}

/// One of them.
pub(crate) struct Manager {
    pub(crate) handle: NodeHandle,
    config: Config,
    running: Option<Running>,
}

impl Managers {
    /// A cluster of `count` managers in `folder`.
    pub(crate) async fn start(folder: &Path, net: u8, count: u8) -> Result<Self> {
        let first = Manager::start(folder, net, 1)?;
        first.handle.ready().await;
        let tokens = first.handle.init(v1::InitClusterRequest::default()).await?;
        let (worker_token, manager_token) = (tokens.worker_token, tokens.manager_token);
        let mut managers = Self { all: vec![first], worker_token, manager_token, net };
        for _ in 1..count {
            managers.add(folder).await?;
        }
        Ok(managers)
    }

    /// One more manager.
    pub(crate) async fn add(&mut self, folder: &Path) -> Result<()> {
        let place = u8::try_from(self.all.len() + 1)?;
        let manager = Manager::start(folder, self.net, place)?;
        manager.handle.ready().await;
        let remotes = self.remotes().iter().map(ToString::to_string).collect();
        let token = self.manager_token.clone();
        manager.handle.join(v1::JoinClusterRequest { token, remotes }).await?;
        self.all.push(manager);
        Ok(())
    }

    /// Where they answer.
    pub(crate) fn remotes(&self) -> Vec<SocketAddr> {
        self.all.iter().filter_map(|m| Some((m.config.advertise_addr?, 2377).into())).collect()
    }

    /// The place of the leader.
    pub(crate) async fn leader(&self) -> Result<usize> {
        until("a manager leads", || {
            let leads = |m: &Manager| m.handle.figures().ok().flatten().is_some_and(|f| f.leads);
            self.all.iter().position(leads)
        })
        .await
    }

    /// The raft term.
    pub(crate) fn term(&self) -> u64 {
        let term = |m: &Manager| Some(m.handle.figures().ok()??.term);
        self.all.iter().filter_map(term).max().unwrap_or(0)
    }

    /// Stops all of them.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for manager in &mut self.all {
            manager.stop().await?;
        }
        Ok(())
    }
}

/// A node that is in no cluster yet.
pub(crate) fn worker(folder: &Path, address: IpAddr) -> Result<Manager> {
    Manager::launch(Config {
        data_dir: folder.join("worker"),
        socket: folder.join("worker-socket"),
        name: Some("worker".to_owned()),
        advertise_addr: Some(address),
        dataplane: DataplaneSetting::User,
        ..Config::default()
    })
}

impl Manager {
    fn start(folder: &Path, net: u8, place: u8) -> Result<Self> {
        Self::launch(Config {
            data_dir: folder.join(format!("data{place}")),
            socket: folder.join(format!("socket{place}")),
            name: Some(format!("manager{place}")),
            advertise_addr: Some(IpAddr::from([127, net, 0, place])),
            dataplane: DataplaneSetting::User,
            ..Config::default()
        })
    }

    fn launch(config: Config) -> Result<Self> {
        let (handle, running) = launch(&config)?;
        Ok(Self { handle, config, running: Some(running) })
    }

    /// A channel to its unix socket.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        Ok(connect_unix(&self.config.socket).await?)
    }

    /// Bytes of its state on the disk.
    pub(crate) fn state_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.config.data_dir.join("state"))?.len())
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        let (stop, task) = self.running.take().context("it runs")?;
        // It may have ended by itself; then its error is worth more.
        let _ = stop.send(());
        Ok(task.await??)
    }

    /// Starts it again on its folder.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        let (handle, running) = launch(&self.config)?;
        (self.handle, self.running) = (handle, Some(running));
        self.handle.ready().await;
        Ok(())
    }
}

type Running = (oneshot::Sender<()>, JoinHandle<Result<(), overlayd::NodeError>>);

fn launch(config: &Config) -> Result<(NodeHandle, Running)> {
    let node = Node::builder(config.clone()).build()?;
    let handle = node.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(node.run(async move {
        // A sender that is gone stops it, too.
        let _ = stopped.await;
    }));
    Ok((handle, (stop, task)))
}
