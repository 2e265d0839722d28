//! A watch of a local caller: one stream for it, over one connection to a manager after the other.
//!
//! ```text
//!   caller ◄── messages ── relay ◄── watch from revision R ── manager
//!                            │  certificate renewed: after a whole batch
//!                            └──◄── watch from the revision that it has ── manager
//! ```
//!
//! Managers end a watch with the certificate that it began with, or with that one's root; so it moves
//! to a new connection before, and the caller does not notice.

use core::time::Duration;

use overlay_api::v1::{self, watcher_client::WatcherClient};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::managers::Managers;

/// What a caller gets.
pub(crate) type Messages = ReceiverStream<Result<v1::WatchResponse, Status>>;

/// Messages under way to the caller. The manager keeps what more there is.
const UNDER_WAY: usize = 4;
/// How often a manager is looked for when a watch moves, and the wait in between: five seconds, as
/// long as other calls look for one that leads.
const ATTEMPTS: u32 = 20;
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Begins a watch. It ends when the manager ends it, or when the caller is gone.
pub(crate) async fn watch(
    managers: Managers,
    request: v1::WatchRequest,
) -> Result<Messages, Status> {
    let renewed = managers.renewed();
    let upstream = open(&managers, &request).await?;
    let (messages, stream) = mpsc::channel(UNDER_WAY);
    let relay = Relay { managers, request, renewed, upstream, whole: true };
    tokio::spawn(relay.run(messages));
    Ok(ReceiverStream::new(stream))
}

async fn open(
    managers: &Managers,
    request: &v1::WatchRequest,
) -> Result<Streaming<v1::WatchResponse>, Status> {
    let mut client = WatcherClient::new(managers.channel().await?);
    let stream = client.watch(request.clone()).await.inspect_err(|status| {
        if status.code() == Code::Unavailable {
            managers.failed();
        }
    })?;
    Ok(stream.into_inner())
}

struct Relay {
    managers: Managers,
    /// What would go on from where the caller is.
    request: v1::WatchRequest,
    renewed: watch::Receiver<()>,
    upstream: Streaming<v1::WatchResponse>,
    /// The caller has all messages of a batch.
    whole: bool,
}

impl Relay {
    async fn run(mut self, messages: mpsc::Sender<Result<v1::WatchResponse, Status>>) {
        loop {
            let message = tokio::select! {
                () = messages.closed() => return,
                _ = self.renewed.changed(), if self.whole => match self.reopen().await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
                message = self.upstream.message() => match message {
                    Ok(None) => return,
                    Ok(Some(message)) => Ok(message),
                    Err(status) => Err(status),
                },
            };
            if let Ok(message) = &message {
                self.whole = !message.more;
                if self.whole {
                    self.request.from_revision = message.revision;
                }
            }
            let ended = message.is_err();
            if messages.send(message).await.is_err() || ended {
                return;
            }
        }
    }

    async fn reopen(&mut self) -> Result<(), Status> {
        let mut attempts = 1;
        loop {
            match open(&self.managers, &self.request).await {
                Ok(upstream) => {
                    self.upstream = upstream;
                    return Ok(());
                }
                // It lags, or has just ended.
                Err(status) if status.code() == Code::Unavailable && attempts < ATTEMPTS => {
                    attempts += 1;
                    pause(RETRY_PAUSE).await;
                }
                Err(status) => return Err(status),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that paces retries")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
