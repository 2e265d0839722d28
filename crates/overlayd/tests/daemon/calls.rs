//! Calls on the sockets of daemons.

#![expect(clippy::disallowed_methods, reason = "the wait for another process has an end")]

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use overlay_api::{
    client::connect_unix,
    v1::{self, local_node_client::LocalNodeClient, nodes_client::NodesClient},
};
use tonic::transport::Channel;

use crate::{Daemon, PATIENCE};

pub(crate) async fn channel(socket: &Path) -> Option<Channel> {
    connect_unix(socket).await.ok()
}

pub(crate) async fn channel_of(daemon: &Daemon) -> Option<Channel> {
    channel(&daemon.socket()).await
}

/// Asks until there is an answer, for [`PATIENCE`] at most.
pub(crate) async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// This node, once its socket answers.
pub(crate) async fn local(daemon: &Daemon) -> LocalNodeClient<Channel> {
    LocalNodeClient::new(until("its socket answers", || channel_of(daemon)).await)
}

/// Has the first daemon make a cluster, and the others join it as managers.
pub(crate) async fn cluster(managers: &[Daemon]) {
    let mut first = local(&managers[0]).await;
    let tokens = first.init_cluster(v1::InitClusterRequest::default()).await.unwrap().into_inner();
    for daemon in &managers[1..] {
        join(daemon, &tokens.manager_token, &managers[0]).await;
    }
}

/// The cluster's tokens; a manager has them.
pub(crate) async fn tokens(daemon: &Daemon) -> v1::GetJoinTokensResponse {
    let get = async || local(daemon).await.get_join_tokens(v1::GetJoinTokensRequest {}).await.ok();
    until("a manager has tokens", get).await.into_inner()
}

/// Has a daemon join by a token.
pub(crate) async fn join(daemon: &Daemon, token: &str, manager: &Daemon) {
    let (token, remotes) = (token.to_owned(), vec![manager.address.to_string()]);
    local(daemon).await.join_cluster(v1::JoinClusterRequest { token, remotes }).await.unwrap();
}

/// Daemons on loopback addresses that no other test has.
pub(crate) fn daemons(test: u8, count: u8) -> Vec<Daemon> {
    (1..=count).map(|host| Daemon::start(Ipv4Addr::new(127, 51, test, host), "warn")).collect()
}

pub(crate) async fn nodes(daemon: &Daemon) -> NodesClient<Channel> {
    NodesClient::new(until("its socket answers", || channel_of(daemon)).await)
}

/// All nodes, as this one's manager knows them.
pub(crate) async fn list(daemon: &Daemon) -> Option<Vec<v1::NodeStatus>> {
    let answer = nodes(daemon).await.list_nodes(v1::ListNodesRequest::default()).await;
    Some(answer.ok()?.into_inner().nodes)
}

/// The place of the daemon that leads, as the one at `asked` says.
pub(crate) async fn leader(daemons: &[Daemon], asked: usize) -> usize {
    let leads = async || {
        let nodes = list(&daemons[asked]).await?;
        let leader = nodes.into_iter().find(|status| status.leader)?.node?;
        let of = |daemon: &Daemon| leader.control.starts_with(&format!("{}:", daemon.address));
        daemons.iter().position(of)
    };
    until("a manager leads", leads).await
}
