//! `overlay.v1.Nodes`.

use overlay_api::{
    convert::availability,
    status::{Reason, refused},
    v1,
};
use overlay_types::{Node, NodeId, Revision, Role};
use tonic::{Request, Response, Status};

use super::{
    Api,
    gate::Caller,
    invalid,
    list::{Listed, NodeList},
    request_id, unexpected,
};
use crate::state::{Action, Response as Answer, State};

impl Api {
    /// Verdict of gossip.
    pub(super) fn liveness(&self, node: NodeId) -> v1::Liveness {
        if node == self.control.node() {
            return v1::Liveness::Alive;
        }
        self.verdicts.borrow().get(&node).copied().unwrap_or_default()
    }

    pub(super) fn node_status(&self, node: &Node, leader: Option<NodeId>) -> v1::NodeStatus {
        let verdict = self.liveness(node.id);
        v1::NodeStatus {
            node: Some(node.into()),
            liveness: verdict.into(),
            leader: leader == Some(node.id),
        }
    }
}

impl Api {
    /// Refuses a demotion that would leave the managers without a quorum: those that gossip says
    /// are alive must be a majority of those that remain.
    fn check_quorum_without(&self, demoted: &Node) -> Result<(), Status> {
        let remaining: Vec<(Node, v1::Liveness)> = self.control.replica().read(|state| {
            let nodes = state.view().nodes().values();
            let managers = nodes.filter(|n| n.role == Role::Manager && n.id != demoted.id);
            managers.map(|node| (node.clone(), self.liveness(node.id))).collect()
        });
        let alive = remaining.iter().filter(|(_, l)| *l == v1::Liveness::Alive).count();
        // None remains: the replicated state says so better.
        if remaining.is_empty() || alive > remaining.len() / 2 {
            return Ok(());
        }
        let dead = remaining.iter().filter(|(_, l)| *l != v1::Liveness::Alive);
        let dead: Vec<&str> = dead.map(|(node, _)| node.name.as_str()).collect();
        Err(refused(
            Reason::Quorum,
            "role",
            format!(
                "without {} the managers would lose their quorum: {} of {} that remain are alive \
                 (not {}); bring these back, or demote and remove them first",
                demoted.name,
                alive,
                remaining.len(),
                dead.join(", ")
            ),
        ))
    }

    /// Refuses to remove a node that may be running.
    fn check_gone(&self, node: &Node) -> Result<(), Status> {
        match self.liveness(node.id) {
            v1::Liveness::Dead | v1::Liveness::Left => Ok(()),
            liveness => Err(refused(
                Reason::NodeAlive,
                "node",
                format!(
                    "node {} is not known to be dead ({}); run overlayctl leave on it, or remove it \
                     with --force",
                    node.name,
                    liveness.as_str_name().trim_start_matches("LIVENESS_").to_ascii_lowercase()
                ),
            )),
        }
    }
}

#[tonic::async_trait]
impl v1::nodes_server::Nodes for Api {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let consistency = request.consistency;
        let list = NodeList::new(request).map_err(invalid)?;
        let leader = self.control.leader().await;
        let status = |node: &Node| self.node_status(node, leader);
        let look = |state: &State| list.of(state, status, |node| self.liveness(node));
        let Listed { objects: nodes, next } = self.read(consistency, look).await?;
        let answered_by = self.control.node().to_string();
        let answer = v1::ListNodesResponse { nodes, answered_by, next_page_token: next };
        Ok(Response::new(answer))
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let request = request.into_inner();
        let leader = self.control.leader().await;
        let get = |state: &State| {
            state.find_node(&request.node).map(|node| self.node_status(node, leader))
        };
        let node = Some(self.read(request.consistency, get).await?);
        Ok(Response::new(v1::GetNodeResponse { node }))
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::UpdateNodeResponse>, Status> {
        let request = request.into_inner();
        let write = request_id(&request.request_id)?;
        let role = Role::try_from(request.role()).map_err(invalid)?;
        let availability = availability(request.availability).map_err(invalid)?;
        let old = |state: &State| state.find_node(&request.node).cloned();
        let old = self.read(None, old).await?;
        if (old.role, role) == (Role::Manager, Role::Worker) {
            self.check_quorum_without(&old)?;
        }
        let node = Node { role, availability, labels: request.labels, ..old };
        let based_on = Revision::new(request.changed_at);
        match self.control.write(write, Action::UpdateNode { node, based_on }).await? {
            Answer::Node(node) => {
                Ok(Response::new(v1::UpdateNodeResponse { node: Some((&node).into()) }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let write = request_id(&request.request_id)?;
        let find = |state: &State| state.find_node(&request.node).cloned();
        if let Some(node) = self.find_to_remove(write, find).await? {
            caller.speaks_for(node.id)?;
            if caller.node() != node.id && !request.force {
                self.check_gone(&node)?;
            }
            self.control.write(write, Action::RemoveNode(node.id)).await?;
            // It has the gossip keys.
            self.turn_gossip_key().await;
        }
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }
}
