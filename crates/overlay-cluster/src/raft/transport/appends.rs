//! Appends to one manager, over one call: each is a message, and is answered before the next one goes.
//!
//! ```text
//!   first ──► a call of its own ──► second ──► Appends ──► message, answer, message, answer …
//!               ▲          ▲           │          └ broken: this one by a call of its own,
//!               │          └───────────│─────────── given up: the next one
//!               └──────────────────────┘ its release has no such call: all
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
    /// By a call of its own: there may be only one, to ask whether this node leads still. And so after one
    /// that was given up.
    #[default]
    Call,
    /// A line is opened with the next one.
    Closed,
    Open(Box<Line>),
    /// By a call for each.
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
        let answered = match mem::take(&mut self.0) {
            Way::Open(mut line) => {
                line.exchange(message.clone()).await.map(|answer| (line, answer))
            }
            Way::Closed => self.open(&mut client, message.clone()).await?,
            Way::Calls => {
                self.0 = Way::Calls;
                None
            }
            Way::Call => None,
        };
        if let Some((line, answer)) = answered {
            self.0 = Way::Open(line);
            return Ok(answer);
        }
        let answer = client.append(message).await?.into_inner();
        if matches!(self.0, Way::Call) {
            self.0 = Way::Closed;
        }
        Ok(answer)
    }

    /// Opens a line with its first message, if the manager's release knows what that is. Both go at once:
    /// raft waits for no more than one way there and back, to managers that are far away.
    async fn open(
        &mut self,
        client: &mut RaftClient<Channel>,
        first: wire::AppendRequest,
    ) -> Result<Option<(Box<Line>, wire::AppendResponse)>, Status> {
        let (requests, stream) = mpsc::channel(1);
        // There is room for it.
        let _ = requests.try_send(first);
        match client.appends(ReceiverStream::new(stream)).await {
            Ok(answers) => {
                let mut line = Box::new(Line { requests, answers: answers.into_inner() });
                Ok(line.answer().await.map(|answer| (line, answer)))
            }
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
        self.answer().await
    }

    async fn answer(&mut self) -> Option<wire::AppendResponse> {
        self.answers.message().await.ok()?
    }
}

#[cfg(test)]
mod tests;
