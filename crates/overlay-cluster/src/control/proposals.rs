//! Writes of this leader: those that wait together share a log entry.
//!
//! ```text
//!   writes ──► queue ──► all that wait ──► one entry ──► raft ──► answers
//!                ▲                           │
//!                └── fewer than UNDER_WAY ◄──┘
//! ```
//!
//! A write alone is proposed at once. Under load, entries grow instead of waiting in line, so that
//! what an entry costs (raft, the disks, messages to followers) is paid once for many writes.

use core::future::Future;
use std::sync::Arc;

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use overlay_types::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::{
    raft::{
        batch::{Batch, Packed},
        types::{Member, Outcome, Raft},
    },
    state::Command,
};

/// Writes that wait to be proposed; further ones wait at the door.
const QUEUE: usize = 4096;
/// Writes in one entry: applying them keeps readers of the state out for a few milliseconds.
const MAX_COMMANDS: usize = 256;
/// Bytes of one entry, but for its first command: a few of those with a large routing table.
const MAX_BYTES: usize = 1 << 20;
/// Entries that are proposed and not yet answered: while one is on its way to the disks, the
/// next is gathered. More of them would be smaller ones.
const UNDER_WAY: usize = 4;

/// What became of a write: what it was answered, or why raft took it no further.
pub(super) type Answer = Result<Outcome, Box<RaftError<NodeId, ClientWriteError<NodeId, Member>>>>;

/// Hands writes to the task, which ends with it.
#[derive(Clone, Debug)]
pub(super) struct Proposals(mpsc::Sender<Proposal>);

#[derive(Debug)]
struct Proposal {
    command: Packed,
    reply: oneshot::Sender<Answer>,
}

impl Proposals {
    /// Starts the task that proposes to `raft`.
    pub(super) fn start(raft: Raft) -> Self {
        let (sender, proposals) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft, proposals));
        Self(sender)
    }

    /// Writes, if this node leads. One that lost its quorum never answers.
    pub(super) async fn write(&self, command: Arc<Command>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { command: Packed::new(command), reply };
        if self.0.send(proposal).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        Err(Box::new(RaftError::Fatal(Fatal::Stopped)))
    }
}

async fn run(raft: Raft, mut proposals: mpsc::Receiver<Proposal>) {
    let mut waiting = Vec::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            received = proposals.recv_many(&mut waiting, MAX_COMMANDS),
                if waiting.is_empty() && under_way.len() < UNDER_WAY =>
            {
                if received == 0 {
                    return;
                }
            }
        }
        while under_way.len() < UNDER_WAY && !waiting.is_empty() {
            under_way.push(propose(raft.clone(), next_entry(&mut waiting)));
        }
    }
}

/// The first of those that wait, up to the size of an entry. Who gave up is passed over.
fn next_entry(waiting: &mut Vec<Proposal>) -> Vec<Proposal> {
    waiting.retain(|proposal| !proposal.reply.is_closed());
    let mut bytes = 0;
    let fits = waiting.iter().take_while(|proposal| {
        let first = bytes == 0;
        bytes += proposal.command.len();
        first || bytes <= MAX_BYTES
    });
    let fitting = fits.count();
    waiting.drain(..fitting).collect()
}

/// Waits for the answer even if all callers are gone: the entry is in the log of a leader without a quorum
/// until another one leads, and further ones would be there, too.
fn propose(raft: Raft, proposals: Vec<Proposal>) -> impl Future<Output = ()> {
    let (commands, replies): (Vec<_>, Vec<_>) =
        proposals.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
    async move {
        if replies.is_empty() {
            return;
        }
        match raft.client_write(Batch::new(commands)).await {
            // Whoever asked may be gone.
            Ok(answer) => answer.data.into_iter().zip(replies).for_each(|(outcome, reply)| {
                drop(reply.send(Ok(outcome)));
            }),
            Err(error) => replies.into_iter().for_each(|reply| {
                drop(reply.send(Err(Box::new(error.clone()))));
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_types::{NetworkDraft, NetworkId, RequestId, UnixMillis};

    use super::*;
    use crate::state::{Action, MAX_HOST_ROUTES};

    fn proposal(routes: usize) -> (Proposal, oneshot::Receiver<Answer>) {
        let route = "10.0.0.0/24".parse().unwrap();
        let action = Action::CreateNetwork {
            id: NetworkId::from_u128(1),
            spec: NetworkDraft::new("web".parse().unwrap()).try_into().unwrap(),
            host_routes: vec![route; routes],
        };
        let command = Command { request: RequestId::from_u128(1), at: UnixMillis(1), action };
        let command = Arc::new(command);
        let (reply, answer) = oneshot::channel();
        (Proposal { command: Packed::new(command), reply }, answer)
    }

    #[test]
    fn r06_an_entry_is_bounded_in_bytes_and_takes_one_command_at_least() {
        let (mut waiting, _answers): (Vec<_>, Vec<_>) =
            (0..20).map(|_| proposal(MAX_HOST_ROUTES)).unzip();
        let each = waiting[0].command.len();
        let mut taken = 0;
        while !waiting.is_empty() {
            let entry = next_entry(&mut waiting);
            assert!(!entry.is_empty() && entry.len() * each <= MAX_BYTES, "{}", entry.len());
            taken += entry.len();
        }
        assert_eq!(taken, 20);
    }

    #[test]
    fn who_gave_up_is_not_proposed() {
        let (mut waiting, mut answers): (Vec<_>, Vec<_>) = (0..3).map(|_| proposal(0)).unzip();
        drop(answers.remove(1));
        assert_eq!(next_entry(&mut waiting).len(), 2);
        assert!(waiting.is_empty());
    }
}
