//! Whom to greet: addresses that should be members and are not.

use std::{collections::BTreeSet, net::SocketAddr};

use rand::{Rng, seq::IteratorRandom};

use super::codec::is_usable;
use crate::config::MAX_HINTS;

/// Addresses at which members are expected.
///
/// Seeds come from the operator and managers' hints from the replicated state; both are needed: a
/// node that joins has only seeds, and a node that was away may find that all its seeds have moved.
#[derive(Debug, Default)]
pub(crate) struct Greetings {
    seeds: BTreeSet<SocketAddr>,
    hints: BTreeSet<SocketAddr>,
}

impl Greetings {
    pub(crate) fn add_seeds(&mut self, seeds: impl IntoIterator<Item = SocketAddr>) {
        self.seeds.extend(seeds.into_iter().filter(|a| is_usable(*a)).map(canonical));
        while self.seeds.len() > MAX_HINTS {
            self.seeds.pop_last();
        }
    }

    pub(crate) fn set_hints(&mut self, hints: impl IntoIterator<Item = SocketAddr>) {
        let usable = hints.into_iter().filter(|a| is_usable(*a)).map(canonical);
        self.hints = usable.take(MAX_HINTS).collect();
    }

    /// At most `count` addresses, by chance, of seeds, hints and `dead`, but none of `active`.
    ///
    /// In a healthy cluster the former are few, and it costs a look at each active member.
    pub(crate) fn choose(
        &self,
        active: impl Iterator<Item = SocketAddr>,
        dead: impl Iterator<Item = SocketAddr>,
        count: usize,
        rng: &mut impl Rng,
    ) -> Vec<SocketAddr> {
        let mut candidates: BTreeSet<SocketAddr> = self.seeds.union(&self.hints).copied().collect();
        candidates.extend(dead);
        for address in active {
            candidates.remove(&address);
        }
        candidates.into_iter().sample(rng, count)
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 7946))
    }

    #[test]
    fn g05_seeds_hints_and_the_dead_are_greeted_but_no_active_member() {
        let mut greetings = Greetings::default();
        greetings.add_seeds([address(1), address(2), "0.0.0.0:1".parse().unwrap()]);
        greetings.set_hints([address(2), address(3), "[::ffff:10.0.0.3]:7946".parse().unwrap()]);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let active = [address(1), address(4)].into_iter();
        let dead = [address(4), address(5)].into_iter();
        let mut chosen = greetings.choose(active.clone(), dead, 10, &mut rng);
        chosen.sort();
        assert_eq!(chosen, [address(2), address(3), address(5)]);
        greetings.set_hints([]);
        assert_eq!(greetings.choose(active, [].into_iter(), 10, &mut rng), [address(2)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = (0..MAX_HINTS as u32 + 10)
            .map(|n| SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 7946)));
        let mut greetings = Greetings::default();
        greetings.add_seeds(many.clone());
        greetings.set_hints(many);
        assert_eq!((greetings.seeds.len(), greetings.hints.len()), (MAX_HINTS, MAX_HINTS));
    }
}
