//! Many members on one simulated network.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

use overlay_crypto::keyring::RingKeys;
use overlay_gossip::{
    Counters, Event, Gossip, GossipConfig, INCARNATIONS_PER_START, Identity, MemberState,
};
use overlay_testkit::sim::{Hosts, Link, Network};
use overlay_types::{Incarnation, NodeId};

use crate::{keys, machine::Member};

/// How often conditions are looked at. They look at every pair of members.
const CHECK_PERIOD: Duration = Duration::from_millis(50);

pub(crate) struct Cluster {
    pub(crate) sim: Hosts<Member>,
    /// Incarnation of each member's last start.
    incarnations: Vec<Incarnation>,
    config: GossipConfig,
    keys: RingKeys,
}

pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId::from_u128(1 + index as u128)
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, (index / 250) as u8, (index % 250) as u8 + 1], 7946))
}

impl Cluster {
    /// `count` members that have not started.
    pub(crate) fn new(seed: u64, link: Link, count: usize) -> Self {
        Self {
            sim: Hosts::new(Network::new(seed, link), (0..count).map(address)),
            incarnations: vec![Incarnation::new(1_000); count],
            config: GossipConfig::default(),
            keys: keys::ring(1),
        }
    }

    /// The same, all started with the first three as seeds and knowing each other.
    pub(crate) fn formed(seed: u64, link: Link, count: usize) -> Self {
        let mut cluster = Self::new(seed, link, count);
        let seeds = cluster.addresses(0..count.min(3));
        for index in 0..count {
            cluster.start(index, &seeds);
        }
        cluster.expect("all know all", Duration::from_secs(30), Self::all_know_all);
        cluster
    }

    pub(crate) fn addresses(&self, range: Range<usize>) -> Vec<SocketAddr> {
        range.map(|index| self.sim.address(index)).collect()
    }

    pub(crate) fn hosts(&self, range: Range<usize>) -> Vec<IpAddr> {
        range.map(|index| self.sim.address(index).ip()).collect()
    }

    pub(crate) fn start(&mut self, index: usize, seeds: &[SocketAddr]) {
        let incarnation = self.incarnations[index].get() + INCARNATIONS_PER_START;
        self.incarnations[index] = Incarnation::new(incarnation);
        let identity =
            Identity::new(node_id(index), self.incarnations[index], self.sim.address(index));
        let (seed, now) = (self.sim.net.draw(), self.sim.net.now());
        let gossip = Gossip::new(self.config.clone(), identity, self.keys.clone(), seed, now);
        let mut gossip = gossip.expect("a usable address");
        gossip.announce(seeds.iter().copied());
        self.sim.start(index, Member(gossip));
    }

    /// Dies without a word.
    pub(crate) fn kill(&mut self, index: usize) {
        drop(self.sim.stop(index));
    }

    /// Does something to a member and sends what follows from it.
    pub(crate) fn with<R>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Gossip, Instant) -> R,
    ) -> R {
        self.sim.with(index, |member, now| act(&mut member.0, now))
    }

    pub(crate) fn gossip(&self, index: usize) -> &Gossip {
        &self.sim.machine(index).0
    }

    pub(crate) fn counters(&self, index: usize) -> &Counters {
        self.gossip(index).counters()
    }

    /// Lets time pass until the condition holds, which it must in time, and says how long that took.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let start = self.sim.net.now();
        while !condition(self) {
            assert!(self.sim.net.now() - start < limit, "not within {limit:?}: {what}");
            self.sim.run(CHECK_PERIOD);
        }
        self.sim.net.now() - start
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.sim.run(time);
    }

    pub(crate) fn all_know_all(&self) -> bool {
        let running = self.sim.running();
        running.iter().all(|one| self.knows_exactly(*one, &running))
    }

    /// Whether these are all that the member holds for alive, besides itself.
    pub(crate) fn knows_exactly(&self, index: usize, expected: &[usize]) -> bool {
        let known: BTreeSet<NodeId> = self
            .gossip(index)
            .members()
            .filter(|(_, state)| state.is_active())
            .map(|(identity, _)| identity.node)
            .collect();
        let expected =
            expected.iter().filter(|other| **other != index).map(|other| node_id(*other));
        known == expected.collect()
    }

    pub(crate) fn state_at(&self, index: usize, of: usize) -> Option<MemberState> {
        let mut members = self.gossip(index).members();
        members.find(|(identity, _)| identity.node == node_id(of)).map(|(_, state)| state)
    }

    /// All events since they were last forgotten: by whom, when, what.
    pub(crate) fn events(&self) -> impl Iterator<Item = (usize, Duration, Event)> + '_ {
        self.sim.events().map(|(index, at, event)| (index, at, *event))
    }
}
