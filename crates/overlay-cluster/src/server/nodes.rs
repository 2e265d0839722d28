//! `overlay.v1.Nodes`.

use overlay_api::v1;
use overlay_types::{Node, NodeId};
use tonic::{Request, Response, Status};

use super::Api;

impl Api {
    fn node_status(&self, node: &Node, leader: Option<NodeId>) -> v1::NodeStatus {
        let verdict = if node.id == self.control.node() {
            v1::Liveness::Alive
        } else {
            self.verdicts.borrow().get(&node.id).copied().unwrap_or_default()
        };
        v1::NodeStatus {
            node: Some(node.into()),
            liveness: verdict.into(),
            leader: leader == Some(node.id),
        }
    }
}

#[tonic::async_trait]
impl v1::nodes_server::Nodes for Api {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let leader = self.control.leader().await;
        let list = |state: &crate::state::State| {
            let nodes = state.view().nodes().values();
            Ok(nodes.map(|node| self.node_status(node, leader)).collect())
        };
        let nodes = self.read(request.into_inner().consistency, list).await?;
        let answered_by = self.control.node().to_string();
        Ok(Response::new(v1::ListNodesResponse { nodes, answered_by }))
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let request = request.into_inner();
        let leader = self.control.leader().await;
        let get = |state: &crate::state::State| {
            state.find_node(&request.node).map(|node| self.node_status(node, leader))
        };
        let node = Some(self.read(request.consistency, get).await?);
        Ok(Response::new(v1::GetNodeResponse { node }))
    }
}
