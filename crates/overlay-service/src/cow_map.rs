//! A hash map that is cheap to clone and to change after it was cloned.
//!
//! ```text
//! clone A ──► ┌ shard 0 ┐ ◄── clone B      a change in B copies one shard of at most
//!             │ shard 1 │ ◄──               SHARD_LEN entries on average; the others stay shared
//!             └ shard 2'┘ (B's own copy)
//! ```

use core::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
};
use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;

/// Average entries of a shard when the map grows. A change copies one shard, a clone one pointer
/// per shard: at 100 000 entries both cost about the same.
const SHARD_LEN: usize = 256;

type Shard<K, V> = HashMap<K, V, RandomState>;

/// See the [module](self).
///
/// The hasher is keyed, so that users cannot choose names that collide; no result depends on the
/// key. An answer takes several look-ups of two hashes each, so the hash is a fast one.
#[derive(Clone, Debug)]
pub(crate) struct CowMap<K, V> {
    /// A power of two of them; none while the map is empty.
    shards: Vec<Arc<Shard<K, V>>>,
    len: usize,
    hasher: RandomState,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { shards: Vec::new(), len: 0, hasher: RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(self.shard_of(key))?.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let shard = self.shard_to_fill(&key);
        let added = Arc::make_mut(&mut self.shards[shard]).insert(key, value).is_none();
        self.len += usize::from(added);
    }

    /// The entry's value to change, which is the default when it was absent.
    pub(crate) fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let shard = self.shard_to_fill(&key);
        let shard = Arc::make_mut(&mut self.shards[shard]);
        self.len += usize::from(!shard.contains_key(&key));
        shard.entry(key).or_default()
    }

    /// The value to change, if there is one. Copies the shard only then.
    pub(crate) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard_of(key);
        let shard = self.shards.get_mut(shard).filter(|s| s.contains_key(key))?;
        Arc::make_mut(shard).get_mut(key)
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = self.shard_of(key);
        let shard = self.shards.get_mut(shard).filter(|s| s.contains_key(key))?;
        let value = Arc::make_mut(shard).remove(key)?;
        self.len -= 1;
        Some(value)
    }

    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        if self.shards.len() <= 1 {
            return 0;
        }
        // The upper half: the shards themselves select buckets by the lower bits.
        (self.hasher.hash_one(key) >> 32) as usize & (self.shards.len() - 1)
    }

    fn shard_to_fill(&mut self, key: &K) -> usize {
        if self.len >= self.shards.len() * SHARD_LEN {
            self.grow();
        }
        self.shard_of(key)
    }

    fn grow(&mut self) {
        let count = (self.shards.len() * 2).max(1);
        let new = || Arc::new(Shard::with_hasher(self.hasher));
        let mut old = core::mem::replace(&mut self.shards, (0..count).map(|_| new()).collect());
        for mut shard in old.drain(..) {
            for (key, value) in core::mem::take(Arc::make_mut(&mut shard)) {
                let place = self.shard_of(&key);
                Arc::make_mut(&mut self.shards[place]).insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A map and a clone of it, each changed for itself, say what two plain maps say.
        #[test]
        fn clones_are_independent(
            steps in prop::collection::vec((any::<u8>(), 0_u16..2000, any::<bool>()), 0..3000),
            cut in 0_usize..3000,
        ) {
            let (mut map, mut model) = (CowMap::default(), BTreeMap::new());
            let mut kept = (map.clone(), model.clone());
            for (number, (value, key, put)) in steps.into_iter().enumerate() {
                if number == cut {
                    kept = (map.clone(), model.clone());
                }
                if put && value % 2 == 0 {
                    *map.entry(key) = value;
                    model.insert(key, value);
                } else if put {
                    map.insert(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
            }
            for (map, model) in [kept, (map, model)] {
                for key in 0..2000 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
                prop_assert_eq!(map.len, model.len());
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
        }
    }
}
