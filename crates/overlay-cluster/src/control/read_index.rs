//! Which log entry a read has to see: asked of the quorum once for all reads that wait.
//!
//! ```text
//!   reads ──► queue ──► all that wait ──► one round to the quorum ──► answers
//! ```

use openraft::error::{CheckIsLeaderError, Fatal, RaftError};
use overlay_types::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::raft::types::{LogId, Member, Raft};

/// Reads that wait to be asked for; further ones wait at the door. A round takes all of them.
const QUEUE: usize = 4096;

/// What the raft core answers: the log id, or why it is not this node that can say.
pub(super) type Answer =
    Result<Option<LogId>, RaftError<NodeId, CheckIsLeaderError<NodeId, Member>>>;

/// Hands reads to the task, which ends with it.
#[derive(Clone, Debug)]
pub(super) struct ReadIndex(mpsc::Sender<oneshot::Sender<Answer>>);

impl ReadIndex {
    /// Starts the task that asks `raft`.
    pub(super) fn start(raft: Raft) -> Self {
        let (sender, reads) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft, reads));
        Self(sender)
    }

    /// The log id that includes every write acknowledged before this call, if this node leads.
    pub(super) async fn get(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        if self.0.send(reply).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        Err(RaftError::Fatal(Fatal::Stopped))
    }
}

/// A read that comes while a round is under way waits for the next one: the answer of this one may
/// be older than it.
async fn run(raft: Raft, mut reads: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut waiting = Vec::new();
    while reads.recv_many(&mut waiting, QUEUE).await > 0 {
        let answer = raft.get_read_log_id().await.map(|(read, _applied)| read);
        for reply in waiting.drain(..) {
            // Whoever asked may be gone.
            drop(reply.send(answer.clone()));
        }
    }
}
