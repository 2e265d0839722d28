//! Join tokens.

use overlay_api::v1;
use overlay_cluster::{
    ca::{Authority, JoinSecret},
    control::Control,
    server::request_id,
    state::{Action, OpaqueSecret},
};
use overlay_types::{Role, SpecError};

use crate::NodeError;

/// Both join tokens, as the replicated state has them.
pub(crate) fn tokens(control: &Control) -> Result<v1::GetJoinTokensResponse, NodeError> {
    let trust = control.replica().read(|state| state.trust().cloned());
    let trust = trust.ok_or(NodeError::NoCluster)?;
    let authority = Authority::from_trust(&trust)?;
    let token = |role| authority.token(role).to_text().to_string();
    Ok(v1::GetJoinTokensResponse { worker: token(Role::Worker), manager: token(Role::Manager) })
}

/// Replaces a join token. Returns the new one.
pub(crate) async fn rotate_token(
    control: &Control,
    request: &v1::RotateJoinTokenRequest,
) -> Result<String, NodeError> {
    let invalid = |error: SpecError| NodeError::from(overlay_api::status::invalid(&error));
    let role = Role::try_from(request.role()).map_err(invalid)?;
    let write = request_id(&request.request_id)?;
    let secret = OpaqueSecret(JoinSecret::generate()?.expose().to_vec());
    control.write(write, Action::RotateJoinSecret { role, secret }).await?;
    control.linearize().await?;
    let tokens = tokens(control)?;
    Ok(match role {
        Role::Worker => tokens.worker,
        Role::Manager => tokens.manager,
    })
}
