//! `overlay.v1.Membership`: how a host becomes a node and stays one.

use overlay_api::{
    convert,
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
        Admission, Authority, CaError, ConnectionInfo, RootDigest, Subject,
        join::{SigningRequest, limit::TooManyJoins},
    },
    state::{Action, Response as Answer, State, Trust},
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
    pub(super) fn authority(&self) -> Result<Authority, Status> {
        let trust = self.control.replica().read(|state: &State| state.trust().cloned());
        authority(trust)
    }

    /// Refuses a token of a root that was replaced. This manager's certificate may still be able to
    /// prove itself by that root; who joins must not be told others than it trusts.
    fn check_digest(&self, digest: &[u8]) -> Result<(), Status> {
        let digest = convert::bytes32("root_digest", digest).map_err(invalid)?;
        let digest = RootDigest::from_bytes(digest);
        let known = |state: &State| {
            state.roots().iter().any(|root| RootDigest::of(&root.certificate) == digest)
        };
        if self.control.replica().read(known) { Ok(()) } else { Err(CaError::FormerRoot.into()) }
    }

    /// Refuses a join of a source that tries too often, or when all together do.
    fn check_rate<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let connection = ConnectionInfo::of(request).ok_or_else(not_over_control_connection)?;
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

fn authority(trust: Option<Trust>) -> Result<Authority, Status> {
    let trust = trust.ok_or_else(|| {
        with_reason(Reason::ManagerLags, "this manager has no state yet; ask another")
    })?;
    Authority::from_trust(&trust).map_err(|error| Status::internal(error.to_string()))
}

fn not_over_control_connection() -> Status {
    Status::internal("the call did not come over a control connection")
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
        self.check_digest(&request.root_digest)?;
        let authority = self.authority()?;
        let csr = &request.certificate_request;
        let id = node_id(write, csr);
        let Admission { role, root, request: csr } = authority.admit(&request.secret, csr)?;

        let mut node = needed("node", request.node)?;
        node.id = id.to_string();
        node.role = v1::Role::from(role).into();
        node.root = root.to_string();
        // It announces that once it is in: managers of a release before might not read it.
        node.host = None;
        let node = overlay_types::Node::try_from(node).map_err(invalid)?;
        let node = match self.control.write(write, Action::JoinNode(node)).await? {
            // The answer to the first of two that were under way at once.
            Answer::Node(node) if node.root != root => {
                let message = "the root was changed meanwhile; ask again";
                return Err(with_reason(Reason::NotYet, message));
            }
            Answer::Node(node) => node,
            other => return Err(unexpected(&other)),
        };
        let subject = Subject { node: id, role: node.role, as_of: node.meta.changed_at };
        let certificate = authority.sign(&csr, subject, self.control.now())?.to_vec();
        let answer = self.control.replica().read(|state: &State| {
            let view = state.view();
            let managers = view.nodes().values().filter(|node| node.role == Role::Manager);
            v1::JoinResponse {
                certificate,
                node: Some((&node).into()),
                cluster: view.cluster().map(Into::into),
                managers: managers.map(Into::into).collect(),
                gossip_keys: view.gossip_keys().map(Into::into),
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
        // One look, so that the signer is among the roots, and the role is that of the revision.
        let (subject, trust, roots) = self.control.replica().read(|state: &State| {
            let known = state.view().nodes().get(&peer);
            let as_of = state.revision();
            let subject = known.map(|node| Subject { node: peer, role: node.role, as_of });
            (subject, state.trust().cloned(), state.roots().to_vec())
        });
        let subject = subject.ok_or_else(|| {
            let message = format!("node {peer} was removed from the cluster");
            with_reason(Reason::NodeRemoved, message)
        })?;
        if subject.role == Role::Worker && self.control.is_member(peer) {
            // It would drop out of the group that still counts on it.
            let message = "the raft group still has this node as a member; ask again in a moment";
            return Err(with_reason(Reason::NotYet, message));
        }
        let certificate = authority(trust)?.sign(&csr, subject, self.control.now())?.to_vec();
        let roots = roots.iter().map(Into::into).collect();
        Ok(Response::new(v1::RenewResponse { certificate, roots }))
    }

    async fn report_certificate(
        &self,
        request: Request<v1::ReportCertificateRequest>,
    ) -> Result<Response<v1::ReportCertificateResponse>, Status> {
        let node = Caller::of(&request)?.node();
        let peer = ConnectionInfo::of(&request).and_then(|connection| connection.peer);
        let root = peer.ok_or_else(not_over_control_connection)?.issuer;
        let write = RequestId::from_u128(rand::random());
        self.control.write(write, Action::NoteCertificate { node, root }).await?;
        Ok(Response::new(v1::ReportCertificateResponse {}))
    }
}
