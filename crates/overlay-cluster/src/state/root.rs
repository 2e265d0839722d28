//! Root rotation: the CA gets a new key, and nobody stops talking meanwhile (C04).
//!
//! ```text
//!            RotateRoot             RotateRoot (again)          FinishRootRotation
//!  roots [A] ─────────► [A, B] ──────────────────────► [A, B, C] ─────────► [C]
//!  signs  A              B                              C         │          C
//!  tokens A              A                              A         │          C
//!                                    every node has been seen with a certificate of C
//! ```
//!
//! B and C are cross-certified by A, whose key is kept until the end: a node that was away since
//! before B accepts a certificate of C by way of A. A node trusts all roots of the cluster, gets a
//! certificate of the last one, and connects with it; the manager that it connects to notes that.
//! A node that is away holds the rotation up until it is back or removed. Every step is in the
//! replicated state, so whoever leads goes on where the last leader stopped.

use overlay_types::{Cluster, Node, NodeId, Object, Root, RootId};
use zeroize::Zeroize;

use super::{
    Action, Applied, Rejection, Response, State, Successor,
    apply::{Context, Outcome},
    rejection::some_of,
};

/// Roots that may be under way at a time. Each is in every node's handshakes' trust and in the
/// view; who rotates more often waits for nodes that will not come.
pub const MAX_PENDING_ROOTS: usize = 8;
/// Replaced roots that are remembered. They are looked up for connections that were made before a
/// rotation ended, and none of those outlives so many more.
const MAX_FORMER: usize = 256;

/// A root rotation that runs.
#[derive(Debug)]
pub struct RootRotation<'a> {
    /// The root that signs now, and will be the only one.
    pub signing: &'a Root,
    /// Nodes whose certificate is of another root, as far as managers saw.
    pub waiting: Vec<&'a Node>,
}

impl RootRotation<'_> {
    fn names(&self) -> Vec<String> {
        some_of(self.waiting.iter().map(|node| node.name.to_string()))
    }

    /// What is due, for the leader to propose.
    pub(crate) fn next_step(&self) -> Option<Action> {
        self.waiting.is_empty().then_some(Action::FinishRootRotation(self.signing.id))
    }
}

impl State {
    /// The root rotation, if one runs.
    pub fn root_rotation(&self) -> Option<RootRotation<'_>> {
        let [_, .., signing] = self.view.cluster()?.roots.as_slice() else { return None };
        let nodes = self.view.nodes().values();
        Some(RootRotation { signing, waiting: nodes.filter(|n| n.root != signing.id).collect() })
    }

    /// The roots that nodes trust, oldest first.
    pub(crate) fn roots(&self) -> &[Root] {
        self.view.cluster().map_or(&[], |cluster| &cluster.roots)
    }

    /// Refuses a root that nodes do not trust.
    pub(super) fn check_root(&self, given: RootId) -> Result<(), Rejection> {
        if self.roots().iter().any(|root| root.id == given) {
            return Ok(());
        }
        Err(Rejection::RootChanged { given, wanted: "a root of the cluster".into() })
    }

    pub(super) fn rotate_root(
        &mut self,
        context: Context,
        replaces: RootId,
        root: &Root,
        successor: &Successor,
    ) -> Outcome {
        if self.roots().first().is_none_or(|first| first.id != replaces) {
            let wanted = "the root that join tokens name".into();
            return Err(Rejection::RootChanged { given: replaces, wanted });
        }
        if root.cross.is_none() {
            return Err(Rejection::invalid("root", root.id, "it is not cross-certified"));
        }
        if let Some(running) =
            self.root_rotation().filter(|_| self.roots().len() > MAX_PENDING_ROOTS)
        {
            let nodes = running.names();
            return Err(Rejection::TooManyRoots { limit: MAX_PENDING_ROOTS, nodes });
        }
        let mut cluster = self.changed_cluster(context)?;
        let trust = self.trust.as_mut().ok_or(Rejection::NoCluster)?;
        let known = cluster.roots.iter().map(|root| root.id);
        if known.chain(trust.former_roots.iter().copied()).any(|id| id == root.id) {
            return Err(Rejection::invalid("root", root.id, "the cluster had it before"));
        }
        trust.successor = Some(successor.clone());
        cluster.roots.push(root.clone());
        Ok(put(cluster))
    }

    pub(super) fn note_certificate(&self, context: Context, id: NodeId, root: RootId) -> Outcome {
        let old = self.node(id)?;
        self.check_root(root)?;
        if old.root == root {
            return Ok(Applied::unchanged(Response::Node(old.clone())));
        }
        let node = Node { meta: context.changed(old.meta), root, ..old.clone() };
        Ok(Applied::put(Response::Node(node.clone()), Object::Node(node)))
    }

    pub(super) fn finish_root_rotation(&mut self, context: Context, root: RootId) -> Outcome {
        let rotation = self.root_rotation().filter(|rotation| rotation.signing.id == root);
        let Some(rotation) = rotation else {
            let wanted = "the root that replaces others".into();
            return Err(Rejection::RootChanged { given: root, wanted });
        };
        if !rotation.waiting.is_empty() {
            return Err(Rejection::RootInUse { nodes: rotation.names() });
        }
        let mut cluster = self.changed_cluster(context)?;
        let trust = self.trust.as_mut().ok_or(Rejection::NoCluster)?;
        let Some(successor) = trust.successor.take() else {
            let wanted = "a root whose key the managers have".into();
            return Err(Rejection::RootChanged { given: root, wanted });
        };
        trust.private_key.zeroize();
        trust.private_key.clone_from(&successor.private_key);
        trust.root_certificate.clone_from(&successor.root_certificate);
        let former = cluster.roots.iter().map(|root| root.id).filter(|id| *id != root);
        trust.former_roots.extend(former);
        let forgotten = trust.former_roots.len().saturating_sub(MAX_FORMER);
        trust.former_roots.drain(..forgotten);
        cluster.roots.retain(|known| known.id == root);
        for root in &mut cluster.roots {
            root.cross = None;
        }
        Ok(put(cluster))
    }

    fn changed_cluster(&self, context: Context) -> Result<Cluster, Rejection> {
        let cluster = self.view.cluster().ok_or(Rejection::NoCluster)?;
        Ok(Cluster { meta: context.changed(cluster.meta), ..cluster.clone() })
    }
}

fn put(cluster: Cluster) -> Applied {
    Applied::put(Response::Cluster(cluster.clone()), Object::Cluster(cluster))
}
