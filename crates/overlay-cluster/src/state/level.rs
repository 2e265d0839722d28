//! Feature levels: what every node of the cluster understands.
//!
//! ```text
//!   node 1 ── knows 2 ─┐
//!   node 2 ── knows 1 ─┼─► the cluster is at level 1: what needs 2 is refused
//!   node 3 ── knows 2 ─┘
//! ```
//!
//! The cluster's level is the lowest of its nodes', and never falls: a node of a lower level is not
//! let in.

use overlay_types::{Capabilities, Change, Cluster, FeatureLevel, Node, NodeId, Object, View};

use super::{
    Action, Applied, Rejection, Response, State,
    apply::{Context, Outcome},
    rejection::some_of,
};

/// Refuses what needs a level that the cluster of a view has not reached.
pub fn check_level(view: &View, needed: FeatureLevel) -> Result<(), Rejection> {
    let Some(cluster) = view.cluster() else { return Ok(()) };
    if needed <= cluster.level {
        return Ok(());
    }
    let behind = view.nodes().values().filter(|node| node.capabilities.level < needed);
    let nodes = some_of(behind.map(|node| node.name.to_string()));
    Err(Rejection::ClusterBehind { needed, level: cluster.level, nodes })
}

impl State {
    /// Refuses an action that some node of the cluster would not understand.
    pub fn check_level(&self, action: &Action) -> Result<(), Rejection> {
        check_level(&self.view, action.level())
    }

    pub(super) fn announce_level(
        &self,
        context: Context,
        id: NodeId,
        level: FeatureLevel,
    ) -> Outcome {
        let old = self.node(id)?;
        self.check_not_behind(old, level)?;
        if old.capabilities.level == level {
            return Ok(Applied::unchanged(Response::Node(old.clone())));
        }
        let capabilities = Capabilities { level, ..old.capabilities };
        let node = Node { meta: context.changed(old.meta), capabilities, ..old.clone() };
        let mut changes = vec![Change::Put(Object::Node(node.clone()))];
        let others = self.level_without(id);
        if let Some(cluster) = self.view.cluster()
            && cluster.level < others.min(level)
        {
            let (level, meta) = (others.min(level), context.changed(cluster.meta));
            let cluster = Cluster { level, meta, ..cluster.clone() };
            changes.push(Change::Put(Object::Cluster(cluster)));
        }
        Ok(Applied { response: Response::Node(node), changes })
    }

    /// Refuses a node that would not understand what the cluster does.
    pub(super) fn check_not_behind(
        &self,
        node: &Node,
        level: FeatureLevel,
    ) -> Result<(), Rejection> {
        match self.view.cluster() {
            Some(cluster) if level < cluster.level => {
                Err(Rejection::NodeBehind { node: node.name.clone(), level, needed: cluster.level })
            }
            _ => Ok(()),
        }
    }

    /// The lowest level of the nodes but one.
    pub(super) fn level_without(&self, id: NodeId) -> FeatureLevel {
        let others = self.view.nodes().values().filter(|node| node.id != id);
        others.map(|node| node.capabilities.level).min().unwrap_or(FeatureLevel::new(u32::MAX))
    }
}
