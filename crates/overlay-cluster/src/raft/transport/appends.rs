//! Appends to one manager, over one call: each is a message, and is answered before the next one goes.
//!
//! ```text
//!   first ──► a call of its own ──► second ──► Appends ──► message, answer, message, answer …
//!                  ▲                   │          └ broken: this one by a call of its own
//!                  └─ its release has no such call
//! ```
//!
//! What a call costs both ends is more than what most appends cost.

use core::mem;

use overlay_api::internal::v1::{self as wire, raft_client::RaftClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::links::Channel;

/// How appends go to one manager.
#[derive(Debug, Default)]
pub(super) struct Appends(Way);

#[derive(Debug, Default)]
enum Way {
    /// There may be only one, to ask whether this node leads still.
    #[default]
    First,
    /// None is open.
    Closed,
    Open(Box<Line>),
    /// A call for each.
    Calls,
}

#[derive(Debug)]
struct Line {
    requests: mpsc::Sender<wire::AppendRequest>,
    answers: Streaming<wire::AppendResponse>,
}

impl Appends {
    /// Sends one and waits for its answer. Who gives up closes the line, whose next answer would be that of
    /// this one.
    pub(super) async fn send(
        &mut self,
        mut client: RaftClient<Channel>,
        message: wire::AppendRequest,
    ) -> Result<wire::AppendResponse, Status> {
        let line = match mem::replace(&mut self.0, Way::Closed) {
            Way::Open(line) => Some(line),
            Way::Closed => self.open(&mut client).await?,
            Way::Calls => {
                self.0 = Way::Calls;
                None
            }
            Way::First => None,
        };
        if let Some(mut line) = line
            && let Some(answer) = line.exchange(message.clone()).await
        {
            self.0 = Way::Open(line);
            return Ok(answer);
        }
        Ok(client.append(message).await?.into_inner())
    }

    /// Opens a line, if the manager's release knows what that is.
    async fn open(
        &mut self,
        client: &mut RaftClient<Channel>,
    ) -> Result<Option<Box<Line>>, Status> {
        let (requests, stream) = mpsc::channel(1);
        match client.appends(ReceiverStream::new(stream)).await {
            Ok(answers) => Ok(Some(Box::new(Line { requests, answers: answers.into_inner() }))),
            Err(status) if status.code() == Code::Unimplemented => {
                self.0 = Way::Calls;
                Ok(None)
            }
            Err(status) => Err(status),
        }
    }
}

impl Line {
    /// `None` if it is broken.
    async fn exchange(&mut self, message: wire::AppendRequest) -> Option<wire::AppendResponse> {
        self.requests.send(message).await.ok()?;
        self.answers.message().await.ok()?
    }
}
