//! Writes, through whoever leads.

use std::sync::Arc;

use openraft::error::{ClientWriteError, RaftError};
use overlay_api::internal::v1 as wire;
use overlay_types::{FeatureLevel, NodeId, RequestId};
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
    state::{Action, Command, Rejection, Response, State},
};

impl Control {
    /// Writes, through whoever leads. Applied once, however often it is tried here or by the
    /// caller with the same `request`.
    pub async fn write(&self, request: RequestId, action: Action) -> Result<Response, Status> {
        self.check_before(&action).map_err(|r| rejection_status(&r))?;
        let command = Arc::new(Command { request, at: self.now(), action });
        let patience = Patience::new();
        match self.write_here(&command, &patience).await {
            Ok(response) => Ok(response),
            Err(Attempt::Refused(status)) => Err(status),
            // On the heap: it is large, and most writes do not come here.
            Err(attempt) => Box::pin(self.write_again(command, patience, attempt)).await,
        }
    }

    /// Goes on after an attempt that failed.
    async fn write_again(
        &self,
        command: Arc<Command>,
        patience: Patience,
        mut attempt: Attempt,
    ) -> Result<Response, Status> {
        loop {
            match attempt {
                Attempt::Refused(status) => return Err(status),
                Attempt::Elsewhere(leader) => {
                    let there = timeout_at(patience.0, self.propose_to(leader, &command)).await;
                    match there.unwrap_or_else(|_| Err(not_leader())) {
                        Err(status) if status.code() == Code::Unavailable => {}
                        Err(status) if is_barred(&status) => return Err(no_manager(&status)),
                        answer => return answer,
                    }
                }
                Attempt::NoLeader => {}
            }
            patience.pause(&self.raft()).await?;
            attempt = match self.write_here(&command, &patience).await {
                Ok(response) => return Ok(response),
                Err(attempt) => attempt,
            };
        }
    }

    /// Writes if this node leads.
    pub(crate) async fn propose_as_leader(&self, mut command: Command) -> Result<Response, Status> {
        command.at = self.now();
        match self.write_here(&Arc::new(command), &Patience::new()).await {
            Ok(response) => Ok(response),
            Err(Attempt::Refused(status)) => Err(status),
            Err(Attempt::Elsewhere(_) | Attempt::NoLeader) => Err(not_leader()),
        }
    }

    /// Refuses what is better not tried. Most writes are not looked at, because the state may be locked
    /// while an entry is applied.
    fn check_before(&self, action: &Action) -> Result<(), Rejection> {
        if action.level() <= FeatureLevel::FIRST && !matches!(action, Action::AttachEndpoint { .. })
        {
            return Ok(());
        }
        // A leader of an older release would not see what it does not know.
        let check =
            |state: &State| state.check_level(action).and_then(|()| state.check_room_for(action));
        self.0.replica.read(check)
    }

    async fn write_here(
        &self,
        command: &Arc<Command>,
        patience: &Patience,
    ) -> Result<Response, Attempt> {
        let core = self.0.core();
        // A leader that lost its quorum never answers, and there is a line before it.
        match timeout_at(patience.0, core.proposals.write(Arc::clone(command))).await {
            Ok(Ok(outcome)) => outcome.map_err(|r| Attempt::Refused(rejection_status(&r))),
            Ok(Err(error)) => Err(match *error {
                RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                    Attempt::forward(to.leader_id, to.leader_node)
                }
                error => Attempt::Refused(self.unavailable(error)),
            }),
            Err(_) => Err(Attempt::NoLeader),
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
