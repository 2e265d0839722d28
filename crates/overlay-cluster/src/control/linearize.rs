//! Reads that see every write that was acknowledged before.

use openraft::error::{CheckIsLeaderError, RaftError};
use overlay_api::{
    internal::v1 as wire,
    status::{Reason, with_reason},
};
use overlay_types::NodeId;
use tokio::time::{timeout, timeout_at};
use tonic::{Code, Status};

use super::{
    Control,
    attempt::{Attempt, LEADER_PATIENCE, Patience, deposed, is_barred, no_manager, not_leader},
};
use crate::raft::{
    codec,
    types::{LogId, Member},
};

impl Control {
    /// Waits until this manager's state includes every write that was acknowledged before.
    pub async fn linearize(&self) -> Result<(), Status> {
        let patience = Patience::new();
        let current = loop {
            match self.read_index_here(&patience).await {
                Ok(log_id) => break log_id,
                Err(Attempt::Refused(status)) => return Err(status),
                Err(Attempt::Elsewhere(leader)) => {
                    let there = timeout_at(patience.0, self.ask_read_index(leader)).await;
                    match there.unwrap_or_else(|_| Err(not_leader())) {
                        Ok(log_id) => break log_id,
                        Err(status) if status.code() == Code::Unavailable => {}
                        Err(status) if is_barred(&status) => return Err(no_manager(&status)),
                        Err(status) => return Err(status),
                    }
                }
                Err(Attempt::NoLeader) => {}
            }
            patience.pause(&self.raft()).await?;
        };
        let mut progress = self.0.replica.progress();
        let applied = progress.wait_for(|applied| *applied >= current);
        match timeout(LEADER_PATIENCE, applied).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(with_reason(
                Reason::ManagerLags,
                "this manager lags behind the others; ask another",
            )),
        }
    }

    pub(crate) async fn read_index_as_leader(&self) -> Result<Option<LogId>, Status> {
        match self.read_index_here(&Patience::new()).await {
            Ok(log_id) => Ok(log_id),
            Err(Attempt::Refused(status)) => Err(status),
            Err(Attempt::Elsewhere(_) | Attempt::NoLeader) => Err(not_leader()),
        }
    }

    async fn read_index_here(&self, patience: &Patience) -> Result<Option<LogId>, Attempt> {
        let core = self.0.core();
        // A core that waits for its disk answers nobody.
        match timeout_at(patience.0, core.reads.get()).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(Attempt::forward(to.leader_id, to.leader_node))
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Err(Attempt::NoLeader)
            }
            Ok(Err(error)) => Err(Attempt::Refused(self.unavailable(error))),
            Err(_) => {
                let why = "its raft core does not answer; look whether its disk stands still";
                Err(Attempt::Refused(self.unavailable(why)))
            }
        }
    }

    async fn ask_read_index(
        &self,
        (leader, member): (NodeId, Member),
    ) -> Result<Option<LogId>, Status> {
        let mut client = self.0.core().peers.client(leader, &member).ok_or_else(not_leader)?;
        let answer = tokio::select! {
            biased;
            answer = client.read_index(wire::ReadIndexRequest {}) => answer?.into_inner(),
            () = deposed(self.raft(), leader) => return Err(not_leader()),
        };
        codec::optional_log_id(answer.log_id)
            .map_err(|error| Status::internal(format!("answer of the leader: {error}")))
    }
}
