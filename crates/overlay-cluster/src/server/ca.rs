//! `overlay.v1.Ca`.

use overlay_api::{
    status::{Reason, with_reason},
    v1,
};
use overlay_types::{Node, Root};
use tonic::{Request, Response, Status};

use super::{Api, request_id, unexpected};
use crate::{
    ca::RootCertificate,
    state::{Response as Answer, State},
};

/// Nodes that an answer names: whoever looks whom a rotation waits for reads no more.
const NAMED: usize = 100;

fn described(root: &Root) -> Result<v1::CaRoot, Status> {
    let certificate = RootCertificate::from_der(&root.certificate)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::CaRoot {
        id: root.id.to_string(),
        digest: certificate.digest().to_string(),
        certificate: certificate.to_pem(),
    })
}

fn no_state() -> Status {
    with_reason(Reason::ManagerLags, "this manager has no state yet; ask another")
}

/// A rotation that runs: its root, how many nodes it waits for, and some of them.
type Waiting = (Root, usize, Vec<Node>);

fn waiting(state: &State) -> Option<Waiting> {
    let rotation = state.root_rotation()?;
    let named = rotation.waiting.iter().take(NAMED).map(|node| (*node).clone()).collect();
    Some((rotation.signing.clone(), rotation.waiting.len(), named))
}

#[tonic::async_trait]
impl v1::ca_server::Ca for Api {
    async fn get_ca(
        &self,
        request: Request<v1::GetCaRequest>,
    ) -> Result<Response<v1::GetCaResponse>, Status> {
        let look = |state: &State| Ok((state.roots().first().cloned(), waiting(state)));
        let (root, waiting) = self.read(request.into_inner().consistency, look).await?;
        let root = Some(described(&root.ok_or_else(no_state)?)?);
        let Some((signing, count, nodes)) = waiting else {
            return Ok(Response::new(v1::GetCaResponse { root, rotation: None }));
        };
        let leader = self.control.leader().await;
        let rotation = v1::RootRotation {
            root: Some(described(&signing)?),
            waiting_count: count as u64,
            waiting: nodes.iter().map(|node| self.node_status(node, leader)).collect(),
        };
        Ok(Response::new(v1::GetCaResponse { root, rotation: Some(rotation) }))
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::RotateCaResponse>, Status> {
        let write = request_id(&request.into_inner().request_id)?;
        self.control.linearize().await?;
        let action = self.authority()?.rotate(self.control.now())?;
        match self.control.write(write, action).await? {
            Answer::Cluster(cluster) => {
                // The answer to a request that is repeated tells of the first.
                let root = cluster.roots.last().ok_or_else(no_state)?;
                Ok(Response::new(v1::RotateCaResponse { root: Some(described(root)?) }))
            }
            other => Err(unexpected(&other)),
        }
    }
}
