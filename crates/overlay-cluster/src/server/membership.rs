//! `overlay.v1.Membership`: how a host becomes a node and stays one.

use overlay_api::{
    status::{Reason, retry_after, with_reason},
    v1,
};
use overlay_types::{NodeId, RequestId, Role};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Api, gate::Caller, invalid, needed, request_id, unexpected};
use crate::{
    ca::{
        Authority, ConnectionInfo,
        join::{SigningRequest, limit::TooManyJoins},
    },
    state::{Action, Response as Answer, State},
};

/// The joiner's id: the same when it repeats the request because the answer was lost, and never one
/// that it can choose, because nobody finds a request that hashes to a given id.
fn node_id(request: RequestId, csr: &[u8]) -> NodeId {
    let mut hash = Sha256::new();
    hash.update(b"overlay node id");
    hash.update(request.to_bytes());
    hash.update(csr);
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    NodeId::from_bytes(id)
}

impl Api {
    fn authority(&self) -> Result<Authority, Status> {
        let trust = self.control.replica().read(|state: &State| state.trust().cloned());
        let trust = trust.ok_or_else(|| {
            with_reason(Reason::ManagerLags, "this manager has no state yet; ask another")
        })?;
        Authority::from_trust(&trust).map_err(|error| Status::internal(error.to_string()))
    }

    /// Refuses a join of a source that tries too often, or when all together do.
    fn check_rate<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let connection = ConnectionInfo::of(request)
            .ok_or_else(|| Status::internal("the call did not come over a control connection"))?;
        let source = connection.remote.ip();
        let now = Instant::now().into_std();
        self.joins().handle_join(source, now).map_err(|TooManyJoins { total, wait }| {
            let who = if total { "all hosts".to_owned() } else { source.to_string() };
            let seconds = wait.as_secs_f64().ceil();
            let message = format!("too many joins from {who}; try again in {seconds} s");
            retry_after(Reason::JoinRate, wait, message)
        })
    }
}

#[tonic::async_trait]
impl v1::membership_server::Membership for Api {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        self.check_rate(&request)?;
        let request = request.into_inner();
        let write = request_id(&request.request_id)?;
        // A secret that was rotated a moment ago decides here, too.
        self.control.linearize().await?;
        let authority = self.authority()?;
        let csr = &request.certificate_request;
        let id = node_id(write, csr);
        let admission = authority.admit(&request.secret, csr, id, self.control.now())?;

        let mut node = needed("node", request.node)?;
        node.id = id.to_string();
        node.role = v1::Role::from(admission.identity.role).into();
        let node = overlay_types::Node::try_from(node).map_err(invalid)?;
        let node = match self.control.write(write, Action::JoinNode(node)).await? {
            Answer::Node(node) => node,
            other => return Err(unexpected(&other)),
        };
        let answer = self.control.replica().read(|state: &State| {
            let view = state.view();
            let managers = view.nodes().values().filter(|node| node.role == Role::Manager);
            v1::JoinResponse {
                certificate: admission.certificate.to_vec(),
                node: Some((&node).into()),
                cluster: view.cluster().map(Into::into),
                managers: managers.map(Into::into).collect(),
                gossip_keys: view.gossip_keys().map(Into::into),
                root: authority.root().der().to_vec(),
            }
        });
        Ok(Response::new(answer))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let peer = Caller::of(&request)?.node();
        let csr = SigningRequest::from_der(&request.into_inner().certificate_request)?;
        // A node that joined or was removed a moment ago may be new to this manager.
        self.control.linearize().await?;
        let role = self
            .control
            .replica()
            .read(|state: &State| state.view().nodes().get(&peer).map(|node| node.role));
        let role = role.ok_or_else(|| {
            let message = format!("node {peer} was removed from the cluster");
            with_reason(Reason::NodeRemoved, message)
        })?;
        if role == Role::Worker && self.control.is_member(peer) {
            // It would drop out of the group that still counts on it.
            let message = "the raft group still has this node as a member; ask again in a moment";
            return Err(with_reason(Reason::NotYet, message));
        }
        let certificate = self.authority()?.sign(&csr, peer, role, self.control.now())?.to_vec();
        Ok(Response::new(v1::RenewResponse { certificate }))
    }
}
