//! Writes, through whoever leads.

use openraft::error::{ClientWriteError, RaftError};
use overlay_api::internal::v1 as wire;
use overlay_types::{NodeId, RequestId};
use prost::Message;
use tokio::time::timeout_at;
use tonic::{Code, Status};

use super::{
    Control,
    attempt::{Attempt, Patience, deposed, is_barred, no_manager, not_leader},
    rejection_status,
};
use crate::{
    raft::types::Member,
    state::{Action, Command, Response, State},
};

impl Control {
    /// Writes, through whoever leads. Applied once, however often it is tried here or by the
    /// caller with the same `request`.
    pub async fn write(&self, request: RequestId, action: Action) -> Result<Response, Status> {
        // A leader of an older release would not see what it does not know.
        let check =
            |state: &State| state.check_level(&action).and_then(|()| state.check_room_for(&action));
        self.0.replica.read(check).map_err(|r| rejection_status(&r))?;
        let command = Command { request, at: self.now(), action };
        let patience = Patience::new();
        loop {
            // A leader that lost its quorum never answers.
            let here = timeout_at(patience.0, self.write_here(command.clone())).await;
            match here.unwrap_or(Err(Attempt::NoLeader)) {
                Ok(response) => return Ok(response),
                Err(Attempt::Refused(status)) => return Err(status),
                Err(Attempt::Elsewhere(leader)) => {
                    let there = timeout_at(patience.0, self.propose_to(leader, &command)).await;
                    match there.unwrap_or_else(|_| Err(not_leader())) {
                        Err(status) if status.code() == Code::Unavailable => {}
                        Err(status) if is_barred(&status) => return Err(no_manager(&status)),
                        answer => return answer,
                    }
                }
                Err(Attempt::NoLeader) => {}
            }
            patience.pause(&self.raft()).await?;
        }
    }

    /// Writes if this node leads.
    pub(crate) async fn propose_as_leader(&self, mut command: Command) -> Result<Response, Status> {
        command.at = self.now();
        match self.write_here(command).await {
            Ok(response) => Ok(response),
            Err(Attempt::Refused(status)) => Err(status),
            Err(Attempt::Elsewhere(_) | Attempt::NoLeader) => Err(not_leader()),
        }
    }

    async fn write_here(&self, command: Command) -> Result<Response, Attempt> {
        match self.0.core().proposals.write(command).await {
            Ok(outcome) => outcome.map_err(|r| Attempt::Refused(rejection_status(&r))),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(Attempt::forward(to.leader_id, to.leader_node))
            }
            Err(error) => Err(Attempt::Refused(self.unavailable(error))),
        }
    }

    async fn propose_to(
        &self,
        (leader, member): (NodeId, Member),
        command: &Command,
    ) -> Result<Response, Status> {
        let mut client = self.0.core().peers.client(leader, &member).ok_or_else(not_leader)?;
        let command = wire::Command::from(command).encode_to_vec();
        let answer = tokio::select! {
            biased;
            answer = client.propose(wire::ProposeRequest { command }) => answer?.into_inner(),
            () = deposed(self.raft(), leader) => return Err(not_leader()),
        };
        Response::try_from(answer.response.unwrap_or_default())
            .map_err(|error| Status::internal(format!("answer of the leader: {error}")))
    }
}
