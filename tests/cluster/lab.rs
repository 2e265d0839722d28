//! Nodes for tests: each in a folder and on a loopback address of its own.

use core::{net::IpAddr, time::Duration};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU8, Ordering},
};

use overlay_api::{
    client::connect_unix,
    v1::{self, local_node_client::LocalNodeClient},
};
use overlayd::{Config, Node, NodeHandle, config::DataplaneSetting};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tonic::transport::Channel;

/// Longest wait for anything that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where nodes answer Prometheus.
pub(crate) const METRICS_PORT: u16 = 9464;

/// The third octet of a test's loopback addresses, so that tests run side by side.
static NEXT_TEST: AtomicU8 = AtomicU8::new(1);

/// A cluster of nodes; they stop when it is dropped.
pub(crate) struct Lab {
    pub(crate) nodes: Vec<LabNode>,
    test: u8,
}

pub(crate) struct LabNode {
    pub(crate) handle: NodeHandle,
    pub(crate) address: IpAddr,
    config: Config,
    _folder: TempDir,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), test: NEXT_TEST.fetch_add(1, Ordering::Relaxed) }
    }

    /// Starts a node that is in no cluster. Returns its place.
    pub(crate) async fn start(&mut self) -> usize {
        self.start_with(|_| {}).await
    }

    /// As [`start`](Self::start), with settings of its own.
    pub(crate) async fn start_with(&mut self, set: impl FnOnce(&mut Config)) -> usize {
        let place = self.nodes.len();
        let address = IpAddr::from([127, 50, self.test, place as u8 + 1]);
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: folder.path().join("data"),
            socket: folder.path().join("socket"),
            name: Some(format!("node{}", place + 1)),
            advertise_addr: Some(address),
            metrics_addr: Some((address, METRICS_PORT).into()),
            dataplane: DataplaneSetting::User,
            ..Config::default()
        };
        set(&mut config);
        let (handle, running) = launch(config.clone());
        let node = LabNode { handle, address, config, _folder: folder, running: Some(running) };
        node.channel().await;
        self.nodes.push(node);
        place
    }

    /// A cluster of this many managers.
    pub(crate) async fn managers(count: usize) -> Self {
        let mut lab = Self::new();
        let first = lab.start().await;
        let request = v1::InitClusterRequest::default();
        let tokens = lab.nodes[first].handle.init(request).await.unwrap();
        for _ in 1..count {
            let place = lab.start().await;
            lab.join(place, &tokens.manager_token).await.unwrap();
        }
        lab
    }

    /// An address of this test's that no node has had.
    pub(crate) fn spare_address(&self, number: u8) -> IpAddr {
        IpAddr::from([127, 50, self.test, 100 + number])
    }

    pub(crate) async fn join(
        &self,
        place: usize,
        token: &str,
    ) -> Result<v1::JoinClusterResponse, overlayd::NodeError> {
        let remotes = self.nodes[..place].iter().map(|node| node.address.to_string()).collect();
        let request = v1::JoinClusterRequest { token: token.to_owned(), remotes };
        self.nodes[place].handle.join(request).await
    }
}

impl LabNode {
    /// A channel to the node's unix socket.
    pub(crate) async fn channel(&self) -> Channel {
        until("the node's socket answers", || async {
            connect_unix(&self.config.socket).await.ok()
        })
        .await
    }

    /// What the node counts.
    pub(crate) async fn counters(&self) -> HashMap<String, u64> {
        let mut local = LocalNodeClient::new(self.channel().await);
        let status = local.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
        status.counters.into_iter().collect()
    }

    /// Stops the node in order.
    pub(crate) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            stop.send(()).unwrap();
            task.await.unwrap();
        }
    }

    /// A file of the node's data directory.
    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.config.data_dir.join(name)).unwrap()
    }

    /// Whether the node's data directory has this file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.config.data_dir.join(name).exists()
    }

    /// Flips a bit in the last byte of a file in the node's data directory.
    pub(crate) fn damage(&self, file: &str) {
        let path = self.config.data_dir.join(file);
        let mut content = std::fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        std::fs::write(path, content).unwrap();
    }

    /// Has the node start at another address the next time.
    pub(crate) fn move_to(&mut self, address: IpAddr) {
        self.address = address;
        self.config.advertise_addr = Some(address);
        self.config.metrics_addr = Some((address, METRICS_PORT).into());
    }

    /// Every file of the node's data directory.
    pub(crate) fn files(&self) -> Vec<Vec<u8>> {
        let files = std::fs::read_dir(&self.config.data_dir).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Starts the node again, on the same folder, and waits until it answers.
    pub(crate) async fn launch(&mut self) {
        self.stop().await;
        let (handle, running) = launch(self.config.clone());
        (self.handle, self.running) = (handle, Some(running));
        self.channel().await;
    }

    /// Starts a node at this address with an empty folder, after the host was lost.
    pub(crate) async fn replace(&mut self) {
        self.stop().await;
        std::fs::remove_dir_all(&self.config.data_dir).unwrap();
        self.launch().await;
    }

    /// Starts the node again, on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.launch().await;
        until("the node is back in its cluster", || async { self.handle.node().ok() }).await;
    }
}

fn launch(config: Config) -> (NodeHandle, (oneshot::Sender<()>, JoinHandle<()>)) {
    let node = Node::builder(config).build().unwrap();
    let handle = node.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let shutdown = async move { drop(stopped.await) };
        node.run(shutdown).await.unwrap();
    });
    (handle, (stop, task))
}

/// Asks until there is an answer, for [`PATIENCE`] at most.
pub(crate) async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
    }
}
