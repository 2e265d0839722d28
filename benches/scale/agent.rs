//! Light agents: they join and watch as nodes do, and keep nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use overlay_api::v1::{self, watcher_client::WatcherClient};
use overlay_cluster::{
    ca::{Dialer, JoinToken, NodeTls, PendingJoin, TrustedRoots, join},
    control::now,
};
use overlay_types::{
    Availability, Capabilities, Change, Cluster, DataplaneKind, FeatureLevel, Meta, Node, NodeId,
    Object, Revision, Role, View,
};
use overlayd::managers::Managers;
use tokio::sync::watch;
use tonic::{Status, Streaming, transport::Channel};

/// As nodes leave a manager that says nothing.
const SILENCE: Duration = Duration::from_millis(1400);
/// As nodes pause after a watch that ended.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A node of the cluster, as far as the managers can tell.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) id: NodeId,
    pub(crate) tls: Arc<NodeTls>,
    pub(crate) from: IpAddr,
    managers: Managers,
}

/// What the agents have heard, all together.
#[derive(Default)]
pub(crate) struct Heard {
    /// Agents whose watch is up.
    pub(crate) watching: AtomicU64,
    /// Times that a watch ended.
    pub(crate) ended: AtomicU64,
}

impl Agent {
    /// Joins from 127.`net`.x.y, which follows from `number`.
    pub(crate) async fn join(
        token: &JoinToken,
        remotes: &[SocketAddr],
        net: u8,
        number: u16,
    ) -> Result<Self> {
        let [high, low] = (number + 256).to_be_bytes();
        let from = IpAddr::from([127, net, high, low]);
        let pending = PendingJoin::new()?;
        let answer = join::ask(token, remotes, from, &pending, &node(from, number)?).await?;
        let cluster = Cluster::try_from(answer.cluster.context("the cluster")?)?;
        let roots = TrustedRoots::from_published(&cluster.roots)?.holding(token.digest())?;
        let credentials = pending.complete(&answer.certificate, roots, now())?;
        let tls = Arc::new(NodeTls::new(&credentials)?);
        let id = tls.identity().node;
        let managers = Managers::new(id, Arc::clone(&tls), (from, 2377).into());
        managers.learn(&known(answer.managers)?);
        Ok(Self { id, tls, from, managers })
    }

    /// Watches until the task is ended, from whichever manager answers.
    pub(crate) async fn follow(self, heard: Arc<Heard>, revision: watch::Sender<Revision>) {
        loop {
            let broken_off = self.follow_one(&heard, &revision).await;
            heard.ended.fetch_add(1, Ordering::Relaxed);
            drop(broken_off);
            self.managers.failed();
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn follow_one(
        &self,
        heard: &Heard,
        seen: &watch::Sender<Revision>,
    ) -> Result<(), Status> {
        let request =
            v1::WatchRequest { node: self.id.to_string(), from_revision: seen.borrow().get() };
        let mut client = WatcherClient::new(self.managers.channel().await?);
        let mut stream = client.watch(request).await?.into_inner();
        let up = Up::new(heard);
        while let Some(message) = stream.message().await? {
            if !message.more {
                seen.send_replace(Revision::new(message.revision));
                up.note();
            }
        }
        Ok(())
    }

    /// A watch over a new connection to `manager`.
    pub(crate) async fn watch(
        &self,
        manager: SocketAddr,
    ) -> Result<(Channel, Streaming<v1::WatchResponse>)> {
        let dialer = Dialer::member(Arc::clone(&self.tls), self.from, manager, None);
        let channel = dialer.leaving_after(SILENCE).channel().await?;
        let mut client = WatcherClient::new(channel.clone());
        let request = v1::WatchRequest { node: self.id.to_string(), from_revision: 0 };
        Ok((channel, client.watch(request).await?.into_inner()))
    }
}

/// Counts an agent while its watch is up: from the first whole batch.
struct Up<'a> {
    heard: &'a Heard,
    counted: std::cell::Cell<bool>,
}

impl<'a> Up<'a> {
    const fn new(heard: &'a Heard) -> Self {
        Self { heard, counted: std::cell::Cell::new(false) }
    }

    fn note(&self) {
        if !self.counted.replace(true) {
            self.heard.watching.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        if self.counted.get() {
            self.heard.watching.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn known(managers: Vec<v1::Node>) -> Result<View> {
    let nodes = managers.into_iter().map(Node::try_from).collect::<Result<Vec<_>, _>>()?;
    let mut view = View::default();
    view.apply(Revision::ZERO, nodes.into_iter().map(|node| Change::Put(Object::Node(node))));
    Ok(view)
}

fn node(address: IpAddr, number: u16) -> Result<Node> {
    Ok(Node {
        id: NodeId::default(),
        root: <_>::default(),
        meta: Meta::default(),
        name: format!("agent{number}").parse().context("a name")?,
        role: Role::Worker,
        role_since: Revision::ZERO,
        host: None,
        control: (address, 2377).into(),
        gossip: (address, 7946).into(),
        data_path: address,
        capabilities: Capabilities {
            dataplane: DataplaneKind::User,
            encryption: true,
            ipv6: true,
            level: FeatureLevel::OURS,
        },
        availability: Availability::Active,
        labels: BTreeMap::new(),
    })
}
