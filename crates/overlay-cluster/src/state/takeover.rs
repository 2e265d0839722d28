//! One manager goes on alone: after the others were lost for good, or from a backup.

use core::net::SocketAddr;

use overlay_types::{Node, NodeId, RequestId, Revision, Role, UnixMillis};

use super::{Action, Command, Rejection, RotationPolicy, State};

/// How far the revision jumps. What was written after this state was, is lost, and some node may have
/// seen it: a revision must not come twice with different content.
const LEAP: u64 = 1 << 32;

/// Who goes on, and when.
#[derive(Clone, Debug)]
pub struct Takeover {
    /// The only manager from now on.
    pub keeper: Node,
    /// The time of day.
    pub at: UnixMillis,
    /// How long a rotation of the gossip key waits.
    pub rotation: RotationPolicy,
    /// The next gossip key, drawn at random: those who were removed have the current one.
    pub gossip_key: [u8; 32],
}

impl State {
    /// Goes on with one manager. All others are removed with what is theirs: they may come back with
    /// the former state, and nobody may listen to them. `draw` gives a new random number each time.
    pub fn take_over(
        &mut self,
        takeover: Takeover,
        mut draw: impl FnMut() -> u128,
    ) -> Result<(), Rejection> {
        let Takeover { keeper, at, rotation, gossip_key } = takeover;
        let keeper = Node { role: Role::Manager, ..keeper };
        let own = keeper.id;
        self.view.apply(Revision::new(self.revision().get() + LEAP), []);
        let mut write = |state: &mut Self, action| {
            let request = RequestId::from_u128(draw());
            state.apply(&Command { request, at, action }).map(drop)
        };
        write(self, Action::JoinNode(keeper))?;
        let other = |node: &&Node| node.role == Role::Manager && node.id != own;
        let others: Vec<Node> = self.view.nodes().values().filter(other).cloned().collect();
        for node in others {
            let (id, based_on) = (node.id, node.meta.changed_at);
            let node = Node { role: Role::Worker, ..node };
            write(self, Action::UpdateNode { node, based_on })?;
            write(self, Action::RemoveNode(id))?;
        }
        match write(self, rotation.start_gossip(self, at, gossip_key)) {
            // It turns already.
            Err(Rejection::RotationRunning { .. }) => Ok(()),
            turned => turned,
        }
    }

    /// The manager that answers at `control`, if there is one.
    pub fn manager_at(&self, control: SocketAddr) -> Option<NodeId> {
        let mut nodes = self.view.nodes().values();
        nodes.find(|n| n.role == Role::Manager && n.control == control).map(|n| n.id)
    }
}
