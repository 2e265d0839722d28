//! Which nodes are dead, or drained: asked once for every task of an answer.

use std::collections::HashSet;

use foldhash::quality::RandomState;
use overlay_types::NodeId;

/// Bits of the filter per node of the set: one of the others in 64 is looked up in it for nothing.
const BITS_PER_NODE: usize = 64;

/// A set of nodes that says "not in it" after one load from memory, mostly.
///
/// ```text
/// node ──► bit of its id in the filter ── clear ──► no
///                     └──────────────────  set  ──► in the set? ──► yes or no
/// ```
///
/// Ids are random or hashes, so their low bits are as good as those of another hash.
#[derive(Clone, Debug)]
pub(super) struct NodeSet {
    /// A power of two of words.
    filter: Box<[u64]>,
    nodes: HashSet<NodeId, RandomState>,
}

impl NodeSet {
    pub(super) fn contains(&self, node: NodeId) -> bool {
        let (word, bit) = self.place(node);
        self.filter[word] & bit != 0 && self.nodes.contains(&node)
    }

    /// The same set with `node` in it, or not. Costs in its size.
    pub(super) fn with(&self, node: NodeId, contained: bool) -> Self {
        let others = self.nodes.iter().copied().filter(|other| *other != node);
        others.chain(contained.then_some(node)).collect()
    }

    /// Word and bit of the filter that stand for the node.
    fn place(&self, node: NodeId) -> (usize, u64) {
        let id = node.to_u128() as usize;
        ((id / 64) & (self.filter.len() - 1), 1 << (id % 64))
    }
}

impl Default for NodeSet {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let nodes: HashSet<_, _> = nodes.into_iter().collect();
        let words = (nodes.len() * BITS_PER_NODE).div_ceil(64).next_power_of_two();
        let mut this = Self { filter: vec![0; words].into(), nodes: HashSet::default() };
        for node in &nodes {
            let (word, bit) = this.place(*node);
            this.filter[word] |= bit;
        }
        this.nodes = nodes;
        this
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn g04_exactly_the_dead_are_dead(
            // Multiples of 2^32 share all low bits.
            dead in prop::collection::btree_set((0_u128..100, any::<bool>()), 0..80),
        ) {
            let id = |(n, high): (u128, bool)| NodeId::from_u128(if high { n << 32 } else { n });
            let dead: BTreeSet<_> = dead.into_iter().map(id).collect();
            let nodes: NodeSet = dead.iter().copied().collect();
            for n in 0..100 {
                for node in [id((n, false)), id((n, true))] {
                    prop_assert_eq!(nodes.contains(node), dead.contains(&node));
                    let toggled = nodes.with(node, !dead.contains(&node));
                    prop_assert_eq!(toggled.contains(node), !dead.contains(&node));
                }
            }
        }
    }

    #[test]
    fn nobody_is_dead_at_first() {
        assert!(!NodeSet::default().contains(NodeId::from_u128(0)));
    }
}
