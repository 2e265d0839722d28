//! A node that leaves its cluster.

use core::time::Duration;

use overlay_api::{
    status::{Reason, reason, refused, with_reason},
    v1::{self, nodes_client::NodesClient},
};
use overlay_types::{NodeId, Role};
use tonic::Code;

use crate::{NodeError, managers::Managers, member::Member};

/// How long a leave waits for the managers to go on without this one. It takes a second.
const RELIEF_PATIENCE: Duration = Duration::from_secs(10);

/// Has the cluster remove this node. Says why the cluster still lists it, if it does.
pub(crate) async fn leave(member: &Member, force: bool) -> Result<String, NodeError> {
    let identity = member.identity();
    if identity.role == Role::Manager && !force {
        let name = member.viewer.read(|view| {
            view.nodes().get(&identity.node).map_or(String::new(), |node| node.name.to_string())
        });
        return Err(refused(
            Reason::NodeIsManager,
            "force",
            format!(
                "this node is a manager; demote it first (overlayctl node demote {name}), or leave \
                 with --force"
            ),
        )
        .into());
    }
    match remove_self(member).await {
        Ok(()) => Ok(String::new()),
        Err(error) if force => Ok(error.to_string()),
        Err(NodeError::Refused(status)) if status.code() == Code::Unavailable => {
            let message = format!(
                "{}; leave --force erases what this node keeps, and leaves it to a manager to \
                 remove it from the cluster",
                status.message()
            );
            Err(with_reason(reason(&status).unwrap_or(Reason::NoManager), message).into())
        }
        Err(error) => Err(error),
    }
}

/// A manager is demoted first, and waits until the raft group is without it.
async fn remove_self(member: &Member) -> Result<(), NodeError> {
    let identity = member.identity();
    if identity.role == Role::Manager {
        demote(&member.managers, identity.node).await?;
        if !member.relieved(RELIEF_PATIENCE).await {
            let message = "the other managers have not taken this node out of their group yet";
            return Err(with_reason(Reason::NotYet, message).into());
        }
    }
    remove(&member.managers, identity.node).await
}

pub(super) async fn demote(managers: &Managers, node: NodeId) -> Result<(), NodeError> {
    let mut nodes = NodesClient::new(managers.channel().await?);
    let request = v1::GetNodeRequest { node: node.to_string(), consistency: None };
    let status = nodes.get_node(request).await?.into_inner().node.unwrap_or_default();
    let known = status.node.unwrap_or_default();
    let request = v1::UpdateNodeRequest {
        node: node.to_string(),
        role: v1::Role::Worker.into(),
        availability: known.availability,
        labels: known.labels,
        changed_at: known.meta.unwrap_or_default().changed_at,
        request_id: String::new(),
    };
    nodes.update_node(request).await?;
    Ok(())
}

pub(super) async fn remove(managers: &Managers, node: NodeId) -> Result<(), NodeError> {
    let mut nodes = NodesClient::new(managers.channel().await?);
    let request =
        v1::RemoveNodeRequest { node: node.to_string(), force: false, request_id: String::new() };
    nodes.remove_node(request).await?;
    Ok(())
}
