//! The joiner's side: asks managers until one of them decides.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use overlay_api::v1::{self, membership_client::MembershipClient};
use overlay_types::{Node, RequestId};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::PendingJoin;
use crate::ca::{CaError, Dialer, JoinToken};

/// How long managers that answer, but cannot decide, are asked again. A new leader takes two
/// seconds, and of thousands of hosts that join at once the last is let in after some ten.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rounds in which nobody may be reached: a busy manager loses a handshake now and then, and one
/// that restarts is back soon. Where nobody is, waiting longer does not help.
const UNREACHED: u32 = 4;
/// From one round to the next.
const ROUND: Duration = Duration::from_millis(500);

/// Why a join came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// A manager refused, or is not of the cluster that the token is for.
    #[error(transparent)]
    Refused(#[from] CaError),
    /// No manager decided: what each of them said last.
    #[error("no manager decided: {0}")]
    Undecided(String),
}

/// Has `node` join. Asks each manager in turn, again and again while one of them is there: the
/// request is the same one, so that a repeated join is one node.
pub async fn ask(
    token: &JoinToken,
    remotes: &[SocketAddr],
    from: IpAddr,
    pending: &PendingJoin,
    node: &Node,
) -> Result<v1::JoinResponse, AskError> {
    let request = v1::JoinRequest {
        secret: token.secret().expose().to_vec(),
        certificate_request: pending.request().to_vec(),
        node: Some(node.into()),
        request_id: RequestId::from_u128(rand::random()).to_string(),
        root_digest: token.digest().to_bytes().to_vec(),
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut reached, mut round) = (false, 0);
    loop {
        let (mut reasons, mut others) = (Vec::new(), Vec::new());
        for remote in remotes {
            let channel = match Dialer::joiner(token.digest(), from, *remote)?.channel().await {
                Ok(channel) => channel,
                Err(error) => {
                    reasons.push(error.to_string());
                    if matches!(error, CaError::OtherRoot { .. }) {
                        others.push(error);
                    }
                    continue;
                }
            };
            match MembershipClient::new(channel).join(request.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if is_undecided(&status) => {
                    reached = true;
                    reasons.push(format!("{remote}: {}", status.message()));
                }
                Err(status) => return Err(CaError::of_join_answer(&status, *remote).into()),
            }
        }
        round += 1;
        let given_up = !reached && round == UNREACHED;
        // Who is not of the token's cluster will not be: that says more than who does not answer.
        if let Some(other) = others.pop()
            && (given_up || others.len() + 1 == remotes.len())
        {
            return Err(other.into());
        }
        if given_up || Instant::now() > deadline {
            return Err(AskError::Undecided(reasons.join("; ")));
        }
        pause().await;
    }
}

/// The manager has no quorum, or too many join there just now, or it went away meanwhile, which HTTP/2
/// has several words for. Refusals have other codes.
fn is_undecided(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when a manager can decide again")]
async fn pause() {
    tokio::time::sleep(ROUND).await;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::no_quorum(Status::unavailable("no leader"), true)]
    #[case::too_many_join(Status::resource_exhausted("wait a second"), true)]
    #[case::it_stopped_before_it_answered(Status::cancelled("operation was canceled"), true)]
    #[case::the_connection_broke(Status::from_error("broken pipe".into()), true)]
    #[case::in_the_middle_of_it(Status::internal("h2 protocol error: http2 error"), true)]
    #[case::old_token(Status::permission_denied("the token was rotated"), false)]
    #[case::nonsense(Status::invalid_argument("node.name"), false)]
    fn c02_managers_that_did_not_decide_are_asked_again(
        #[case] answer: Status,
        #[case] again: bool,
    ) {
        assert_eq!(is_undecided(&answer), again);
    }
}
