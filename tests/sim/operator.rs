//! Who runs the cluster: adds nodes, gives them roles, removes them, and repeats what got no answer.

use core::time::Duration;

use overlay_api::v1::{self, nodes_client::NodesClient};
use overlay_cluster::{
    control::Control,
    raft::transport::Channel,
    state::{Action, Response},
};
use overlay_types::{NodeId, RequestId, Revision, Role};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time;
use tonic::{Code, Status};

use crate::{
    client::{ATTEMPTS, PATIENCE, is_refusal, refused},
    history::{Ask, History, Told},
    net::Net,
    nodes,
};

/// One errand of the operator's.
#[derive(Debug)]
pub(crate) struct Operator {
    net: Net,
    history: History,
    random: StdRng,
}

impl Operator {
    pub(crate) fn new(net: Net, history: History, seed: u64) -> Self {
        Self { net, history, random: StdRng::seed_from_u64(seed) }
    }

    /// Has a node join, through one of `controls`. Nobody signs certificates here, so this is what a
    /// manager does after it has looked at the token.
    pub(crate) async fn join(mut self, node: NodeId, controls: Vec<Control>) {
        let number = self.history.begin(Ask::Join(node));
        let request = RequestId::from_u128(self.random.random());
        for _ in 0..ATTEMPTS {
            let control = &controls[self.random.random_range(0..controls.len())];
            let write = control.write(request, Action::JoinNode(nodes::node(node)));
            match time::timeout(PATIENCE, write).await {
                Ok(Ok(Response::Node(node))) => {
                    self.history.end(number, Told::Node(node.id, node.meta.created_at));
                    return;
                }
                Ok(Err(status)) if is_refusal(status.code()) => break,
                _ => self.pause().await,
            }
        }
        self.history.end(number, Told::Unknown);
    }

    /// Promotes or demotes a node.
    pub(crate) async fn set_role(mut self, node: NodeId, role: Role) {
        let number = self.history.begin(Ask::SetRole { node, role });
        let request = RequestId::from_u128(self.random.random()).to_string();
        let mut doubtful = false;
        for _ in 0..ATTEMPTS {
            let answer = time::timeout(PATIENCE, set_role(self.channel(), node, role, &request));
            match answer.await {
                Ok(Ok(())) => return self.history.end(number, Told::Done),
                Ok(Err(status)) if is_refusal(status.code()) => {
                    let told = refused(&status, doubtful);
                    return self.history.end(number, told);
                }
                _ => {
                    doubtful = true;
                    self.pause().await;
                }
            }
        }
        self.history.end(number, Told::Unknown);
    }

    /// Removes a worker.
    pub(crate) async fn remove(mut self, node: NodeId) {
        let number = self.history.begin(Ask::RemoveNode(node));
        let request_id = RequestId::from_u128(self.random.random()).to_string();
        let mut doubtful = false;
        for _ in 0..ATTEMPTS {
            let mut client = NodesClient::new(self.channel());
            let request = v1::RemoveNodeRequest {
                node: node.to_string(),
                force: true,
                request_id: request_id.clone(),
            };
            match time::timeout(PATIENCE, client.remove_node(request)).await {
                Ok(Ok(_)) => return self.history.end(number, Told::Done),
                Ok(Err(status)) if is_refusal(status.code()) => {
                    let told = refused(&status, doubtful);
                    return self.history.end(number, told);
                }
                _ => {
                    doubtful = true;
                    self.pause().await;
                }
            }
        }
        self.history.end(number, Told::Unknown);
    }

    /// From one manager to one, as `overlayctl` on a manager's host.
    fn channel(&mut self) -> Channel {
        let managers = self.net.managers();
        let [from, to] = [(); 2].map(|()| managers[self.random.random_range(0..managers.len())]);
        self.net.links(from).to(to)
    }

    async fn pause(&mut self) {
        let pause = self.random.random_range(20..400);
        time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn set_role(channel: Channel, node: NodeId, role: Role, request: &str) -> Result<(), Status> {
    let mut client = NodesClient::new(channel);
    let get = v1::GetNodeRequest { node: node.to_string(), consistency: None };
    let status = client.get_node(get).await?.into_inner().node.unwrap_or_default();
    let known = status.node.ok_or_else(|| Status::new(Code::Internal, "no node"))?;
    let update = v1::UpdateNodeRequest {
        node: known.id,
        role: v1::Role::from(role).into(),
        availability: known.availability,
        labels: known.labels,
        changed_at: Revision::new(known.meta.unwrap_or_default().changed_at).get(),
        request_id: request.to_owned(),
    };
    client.update_node(update).await.map(drop)
}
