//! Three complete nodes in this process, each on a loopback address of its own with the real
//! ports, driven as an operator would: through their unix sockets.

use core::{net::IpAddr, time::Duration};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use overlay_api::{
    client::connect_unix,
    v1::{self, local_node_client::LocalNodeClient},
};
use overlayd::{Config, Node, NodeError, NodeHandle, config::DataplaneSetting};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tonic::transport::Channel;

/// Longest wait for anything that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// What an Ethernet underlay has; loopback itself would allow 64 KB.
pub(crate) const UNDERLAY_MTU: u16 = 1500;

/// Loopback delays nothing; by default a minute passes before old keys are erased.
const ROTATION_DRAIN: Duration = Duration::from_secs(4);

/// One node, its configuration, and the task that runs it.
#[derive(Debug)]
pub(crate) struct LabNode {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) handle: NodeHandle,
    config: Config,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), NodeError>>,
}

impl LabNode {
    /// Starts node `number`, which is in no cluster yet, with its files in `folder`.
    pub(crate) async fn start(folder: &Path, number: u8) -> Result<Self> {
        let name = format!("node{number}");
        let address = IpAddr::from([127, 0, 0, number]);
        let config = Config {
            data_dir: folder.join(&name),
            socket: folder.join(format!("{name}.sock")),
            name: Some(name.clone()),
            advertise_addr: Some(address),
            underlay_mtu: Some(UNDERLAY_MTU),
            rotation_drain: ROTATION_DRAIN,
            dataplane: DataplaneSetting::User,
            ..Config::default()
        };
        let (handle, running) = launch(config.clone())?;
        let mut node = Self { name, address, handle, config, running: Some(running) };
        node.answers().await?;
        Ok(node)
    }

    pub(crate) const fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn socket(&self) -> &PathBuf {
        &self.config.socket
    }

    /// A channel to the node's unix socket.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        Ok(connect_unix(&self.config.socket).await?)
    }

    /// What the node says of itself.
    pub(crate) async fn status(&self) -> Result<v1::GetStatusResponse> {
        let mut client = LocalNodeClient::new(self.channel().await?);
        Ok(client.get_status(v1::GetStatusRequest::default()).await?.into_inner())
    }

    /// The node dies as if its host lost power: nothing is said to anybody.
    pub(crate) async fn die(&mut self) -> Result<()> {
        self.handle.halt().await;
        self.stop().await
    }

    /// The node starts again, with what it has on disk.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        let (handle, running) = launch(self.config.clone())?;
        (self.handle, self.running) = (handle, Some(running));
        self.answers().await
    }

    /// Ends the task that runs the node.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(Running { stop, task }) = self.running.take() else { return Ok(()) };
        // A task that ended by itself says why when it is joined.
        let _ = stop.send(());
        task.await?.with_context(|| format!("{} stops", self.name))
    }

    /// Waits until the unix socket answers, or the node says why it never will.
    async fn answers(&mut self) -> Result<()> {
        let ended = || self.running.as_ref().is_none_or(|running| running.task.is_finished());
        let answers = until("the node's unix socket answers", || async {
            ended() || self.status().await.is_ok()
        });
        answers.await?;
        if ended() {
            self.stop().await?;
        }
        Ok(())
    }
}

fn launch(config: Config) -> Result<(NodeHandle, Running)> {
    let node = Node::builder(config).build()?;
    let handle = node.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(node.run(async move { drop(stopped.await) }));
    Ok((handle, Running { stop, task }))
}

/// Looks until something holds. Says how long that took.
pub(crate) async fn until<F>(what: &str, mut holds: impl FnMut() -> F) -> Result<Duration>
where
    F: Future<Output = bool>,
{
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK);
    while began.elapsed() < PATIENCE {
        looks.tick().await;
        if holds().await {
            return Ok(began.elapsed());
        }
    }
    Err(anyhow!("not within {PATIENCE:?}: {what}"))
}
