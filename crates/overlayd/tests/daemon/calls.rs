//! Calls on the sockets of daemons.

#![expect(clippy::disallowed_methods, reason = "the wait for another process has an end")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use overlay_api::client::connect_unix;
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
