//! Calls on the sockets of daemons.

#![expect(clippy::disallowed_methods, reason = "the wait for another process has an end")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use overlay_api::{
    client::connect_unix,
    v1::{self, local_node_client::LocalNodeClient},
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

/// Has a daemon join by a token.
pub(crate) async fn join(daemon: &Daemon, token: &str, manager: &Daemon) {
    let (token, remotes) = (token.to_owned(), vec![manager.address.to_string()]);
    local(daemon).await.join_cluster(v1::JoinClusterRequest { token, remotes }).await.unwrap();
}
