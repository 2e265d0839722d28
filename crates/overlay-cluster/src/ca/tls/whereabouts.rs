//! Where managers are, as far as this node knows. Their certificates say who they are, wherever that
//! is, so that a wrong idea costs a connection and nothing else.
//!
//! ```text
//!   caller's address ─────────┐
//!   replicated state ─────────┤──► candidates, all of them dialed ──► whoever proves to be the node
//!   gossip: IP, while alive ──┘
//! ```
//!
//! The state cannot follow managers when a majority of them moved: to be written it needs them. Gossip
//! finds all by any one node that did not move.

use core::net::{IpAddr, SocketAddr};
use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use overlay_types::NodeId;

/// Where nodes are. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts(Arc<ArcSwap<Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    told: BTreeMap<NodeId, SocketAddr>,
    heard: BTreeMap<NodeId, IpAddr>,
}

impl Whereabouts {
    /// Replaces what the replicated state says of managers.
    pub fn set_told(&self, told: BTreeMap<NodeId, SocketAddr>) {
        self.0.rcu(|known| Known { told: told.clone(), heard: known.heard.clone() });
    }

    /// Replaces where gossip hears the living.
    pub fn set_heard(&self, heard: BTreeMap<NodeId, IpAddr>) {
        self.0.rcu(|known| Known { told: known.told.clone(), heard: heard.clone() });
    }

    /// Where gossip hears a node, if it is alive.
    pub fn heard(&self, node: NodeId) -> Option<IpAddr> {
        self.0.load().heard.get(&node).copied()
    }

    /// Where the manager `node` may answer: at `given`, which somebody once read in the state, or
    /// where newer news say. The best guess first.
    pub(super) fn candidates(&self, node: NodeId, given: SocketAddr) -> Vec<SocketAddr> {
        let known = self.0.load();
        let told = known.told.get(&node).copied().unwrap_or(given);
        let heard = known.heard.get(&node).map(|ip| SocketAddr::new(*ip, told.port()));
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for address in heard.into_iter().chain([told, given]) {
            // Unspecified: another node has its address.
            if !address.ip().is_unspecified() && !candidates.contains(&address) {
                candidates.push(address);
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r04_a_manager_is_looked_for_wherever_it_may_be() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let node = NodeId::from_u128(1);
        let whereabouts = Whereabouts::default();
        let given = address("192.0.2.1:2377");
        let found = |whereabouts: &Whereabouts| whereabouts.candidates(node, given);
        assert_eq!(found(&whereabouts), [given]);
        whereabouts.set_heard([(node, [192, 0, 2, 9].into())].into());
        assert_eq!(found(&whereabouts), [address("192.0.2.9:2377"), given]);
        // The state knows its port.
        whereabouts.set_told([(node, address("192.0.2.9:99"))].into());
        assert_eq!(found(&whereabouts), [address("192.0.2.9:99"), given]);
        whereabouts.set_heard(BTreeMap::new());
        assert_eq!(found(&whereabouts), [address("192.0.2.9:99"), given]);
        whereabouts.set_told([(node, given)].into());
        assert_eq!(found(&whereabouts), [given]);
        // Another node has its address, and nobody knows where it is.
        whereabouts.set_told([(node, address("0.0.0.0:2377"))].into());
        assert_eq!(whereabouts.candidates(node, address("0.0.0.0:2377")), []);
    }
}
