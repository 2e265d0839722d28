//! Nodes: joining, changing, removing.

use core::time::Duration;

use overlay_types::{
    Capabilities, Change, Cluster, HostReport, Node, NodeId, Object, ObjectKey, Revision, Role,
    label,
};

use super::{
    Applied, Rejection, Response, State,
    apply::{Context, MAX_NODES, Outcome, check_room},
    cluster::check_fresh,
    kind::Kind,
    place,
};
use crate::ca::root::{BACKDATE, NODE_VALIDITY};

/// How long a removed node is remembered: as long as a certificate that was signed just before the
/// removal, by a manager whose clock is ahead.
const REMEMBERED: Duration = Duration::from_secs(NODE_VALIDITY.as_secs() + BACKDATE.as_secs());

impl State {
    pub(super) fn join_node(&self, context: Context, node: &Node) -> Outcome {
        label::check(&node.labels)?;
        self.check_not_behind(node, node.capabilities.level)?;
        place::check(node)?;
        self.check_root(node.root)?;
        if let Some(old) = self.view.nodes().get(&node.id) {
            return Ok(put_node(context, old, node));
        }
        let removed = self.view.cluster().is_some_and(|c| c.removed_nodes.contains_key(&node.id));
        if removed {
            let reason = "the node was removed; join again with a new key";
            return Err(Rejection::invalid("node", node.id, reason));
        }
        check_room(Kind::Node, self.view.nodes().len(), MAX_NODES)?;
        let node = Node { meta: context.created(), role_since: context.revision, ..node.clone() };
        Ok(Applied::put(Response::Node(node.clone()), Object::Node(node)))
    }

    pub(super) fn update_node(&self, context: Context, node: &Node, based_on: Revision) -> Outcome {
        let old = self.node(node.id)?;
        check_fresh(Kind::Node, &old.name, based_on, old.meta.changed_at)?;
        label::check(&node.labels)?;
        if old.role == Role::Manager && node.role != Role::Manager && self.managers() == 1 {
            return Err(Rejection::LastManager { node: old.name.clone() });
        }
        Ok(put_node(context, old, node))
    }

    /// Endpoints that need what the node no longer has stay: whoever attached them decides.
    pub(super) fn announce_capabilities(
        &self,
        context: Context,
        id: NodeId,
        capabilities: Capabilities,
        host: &HostReport,
    ) -> Outcome {
        host.check()?;
        let old = self.node(id)?;
        let capabilities = Capabilities { level: old.capabilities.level, ..capabilities };
        let node = Node { capabilities, host: Some(Box::new(host.clone())), ..old.clone() };
        // Nobody reads the answer, and a report is the longest part of a node: it is not remembered.
        Ok(Applied { response: Response::Done, ..put_node(context, old, &node) })
    }

    /// Everything of the node goes with it: its endpoints give their addresses back (C07), and
    /// nobody derives a key with it any more.
    pub(super) fn remove_node(&mut self, context: Context, id: NodeId) -> Outcome {
        let node = self.node(id)?;
        if node.role == Role::Manager {
            return Err(Rejection::NodeIsManager { node: node.name.clone() });
        }
        let endpoints: Vec<_> = self
            .view
            .endpoints()
            .values()
            .filter(|endpoint| endpoint.node == id)
            .map(|endpoint| (endpoint.id, endpoint.network, endpoint.addresses))
            .collect();
        let keys = self.view.node_keys().keys().filter(|(_, node)| *node == id);
        let mut changes: Vec<Change> =
            keys.map(|key| Change::Delete(ObjectKey::NodeKey(key.0, key.1))).collect();
        for (endpoint, network, addresses) in endpoints {
            for address in addresses.iter() {
                self.release(network, address);
            }
            changes.push(Change::Delete(ObjectKey::Endpoint(endpoint)));
        }
        changes.push(Change::Delete(ObjectKey::Node(id)));
        if let Some(cluster) = self.view.cluster() {
            let level = cluster.level.max(self.level_without(id));
            let cluster = Cluster { level, ..without(cluster, id, context) };
            changes.push(Change::Put(Object::Cluster(cluster)));
        }
        Ok(Applied { response: Response::Done, changes })
    }

    /// How many managers there are.
    fn managers(&self) -> usize {
        self.view.nodes().values().filter(|node| node.role == Role::Manager).count()
    }
}

/// The cluster, remembering that the node was removed, and forgetting those whose certificates have
/// ended.
fn without(cluster: &Cluster, id: NodeId, context: Context) -> Cluster {
    let mut removed_nodes = cluster.removed_nodes.clone();
    removed_nodes.retain(|_, until| *until > context.at);
    removed_nodes.insert(id, context.at.after(REMEMBERED));
    Cluster { meta: context.changed(cluster.meta), removed_nodes, ..cluster.clone() }
}

fn put_node(context: Context, old: &Node, node: &Node) -> Applied {
    let node = Node { meta: old.meta, role_since: old.role_since, ..node.clone() };
    if node == *old {
        return Applied::unchanged(Response::Node(node));
    }
    let role_since = if node.role == old.role { old.role_since } else { context.revision };
    let node = Node { meta: context.changed(old.meta), role_since, ..node };
    Applied::put(Response::Node(node.clone()), Object::Node(node))
}
