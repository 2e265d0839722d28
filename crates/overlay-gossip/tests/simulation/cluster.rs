//! Many members on one simulated network.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use overlay_crypto::keyring::RingKeys;
use overlay_gossip::{
    Counters, Event, Gossip, GossipConfig, INCARNATIONS_PER_START, Identity, MemberState, Output,
};
use overlay_testkit::sim::{Carrier, Link, Network};
use overlay_types::{Incarnation, NodeId};

use crate::keys;

/// A member, or the place where one was.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) gossip: Option<Gossip>,
    pub(crate) events: Vec<(Duration, Event)>,
    incarnation: Incarnation,
    wake: Option<Instant>,
}

pub(crate) struct Cluster {
    pub(crate) net: Network<Vec<u8>>,
    pub(crate) nodes: Vec<Node>,
    config: GossipConfig,
    keys: RingKeys,
    wakes: BTreeSet<(Instant, usize)>,
}

pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId::from_u128(1 + index as u128)
}

impl Cluster {
    /// `count` members that have not started.
    pub(crate) fn new(seed: u64, link: Link, count: usize) -> Self {
        let nodes = (0..count).map(|index| Node {
            address: SocketAddr::from((
                [10, 1, (index / 250) as u8, (index % 250) as u8 + 1],
                7946,
            )),
            gossip: None,
            events: Vec::new(),
            incarnation: Incarnation::new(1_000),
            wake: None,
        });
        Self {
            net: Network::new(seed, link),
            nodes: nodes.collect(),
            config: GossipConfig::default(),
            keys: keys::ring(1),
            wakes: BTreeSet::new(),
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

    pub(crate) fn addresses(&self, range: std::ops::Range<usize>) -> Vec<SocketAddr> {
        self.nodes[range].iter().map(|node| node.address).collect()
    }

    pub(crate) fn hosts(&self, range: std::ops::Range<usize>) -> Vec<IpAddr> {
        self.nodes[range].iter().map(|node| node.address.ip()).collect()
    }

    pub(crate) fn start(&mut self, index: usize, seeds: &[SocketAddr]) {
        let (seed, now) = (self.net.draw(), self.net.now());
        let node = &mut self.nodes[index];
        node.incarnation = Incarnation::new(node.incarnation.get() + INCARNATIONS_PER_START);
        let identity = Identity::new(node_id(index), node.incarnation, node.address);
        let keys = self.keys.clone();
        let gossip = Gossip::new(self.config.clone(), identity, keys, seed, now);
        node.gossip = Some(gossip.expect("a usable address"));
        node.events.clear();
        self.with(index, |gossip, _| gossip.announce(seeds.iter().copied()));
    }

    /// Dies without a word.
    pub(crate) fn kill(&mut self, index: usize) {
        drop(self.stop(index));
    }

    /// Stops, as by SIGSTOP.
    pub(crate) fn stop(&mut self, index: usize) -> Gossip {
        self.set_wake(index, None);
        self.nodes[index].gossip.take().expect("the member runs")
    }

    pub(crate) fn resume(&mut self, index: usize, stopped: Gossip) {
        self.nodes[index].gossip = Some(stopped);
        self.with(index, Gossip::handle_timeout);
    }

    /// Does something to a member and sends what follows from it.
    pub(crate) fn with<R>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Gossip, Instant) -> R,
    ) -> R {
        let now = self.net.now();
        let gossip = self.nodes[index].gossip.as_mut().expect("the member runs");
        let result = act(gossip, now);
        self.take_outputs(index);
        result
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].gossip.is_some()).collect()
    }

    pub(crate) fn gossip(&self, index: usize) -> &Gossip {
        self.nodes[index].gossip.as_ref().expect("the member runs")
    }

    pub(crate) fn counters(&self, index: usize) -> &Counters {
        self.gossip(index).counters()
    }

    /// Lets time pass until the condition holds, and says how long that took.
    pub(crate) fn wait(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.net.now();
        let mut check_at = start;
        loop {
            // Conditions look at every pair of members, so they are checked 20 times a second.
            if self.net.now() >= check_at {
                if condition(self) {
                    return Some(self.net.now() - start);
                }
                check_at = self.net.now() + Duration::from_millis(50);
            }
            if self.net.now() - start >= limit {
                return None;
            }
            self.step(check_at.min(start + limit));
        }
    }

    /// The same, where it must hold in time.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        what: &str,
        limit: Duration,
        condition: impl FnMut(&Self) -> bool,
    ) -> Duration {
        self.wait(limit, condition).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.net.now() + time;
        while self.net.now() < end {
            self.step(end);
        }
    }

    pub(crate) fn all_know_all(&self) -> bool {
        let running = self.running();
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

    /// All events since the start, of members that run.
    pub(crate) fn events(&self) -> impl Iterator<Item = (usize, Duration, Event)> + '_ {
        self.nodes.iter().enumerate().flat_map(|(index, node)| {
            node.events.iter().map(move |(at, event)| (index, *at, *event))
        })
    }

    pub(crate) fn forget_events(&mut self) {
        for node in &mut self.nodes {
            node.events.clear();
        }
    }

    /// Goes to the next thing that happens, but not beyond `limit`.
    fn step(&mut self, limit: Instant) {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let next = [wake, self.net.next_delivery()].into_iter().flatten().min();
        self.net.advance_to(next.map_or(limit, |next| next.min(limit)));
        while let Some(delivery) = self.net.poll() {
            let Some(index) = self.nodes.iter().position(|node| node.address == delivery.to) else {
                continue;
            };
            let now = self.net.now();
            let Some(gossip) = self.nodes[index].gossip.as_mut() else { continue };
            match delivery.carrier {
                Carrier::Datagram => gossip.handle_datagram(delivery.from, &delivery.payload, now),
                Carrier::Stream => {
                    gossip.handle_stream_message(delivery.from, &delivery.payload, now);
                }
            }
            self.take_outputs(index);
        }
        while let Some((at, index)) = self.wakes.first().copied() {
            if at > self.net.now() {
                break;
            }
            self.with(index, Gossip::handle_timeout);
        }
    }

    fn take_outputs(&mut self, index: usize) {
        let now = self.net.now();
        let elapsed = self.net.elapsed();
        let node = &mut self.nodes[index];
        let gossip = node.gossip.as_mut().expect("the member runs");
        let wake = loop {
            match gossip.poll_output(now) {
                Output::SendDatagram { to, bytes } => self.net.send(node.address, to, bytes),
                Output::SendStream { to, bytes } => {
                    self.net.send_reliable(node.address, to, bytes);
                }
                Output::Event(event) => node.events.push((elapsed, event)),
                Output::WakeAt(at) => break Some(at),
                Output::Gone => break None,
            }
        };
        self.set_wake(index, wake);
    }

    fn set_wake(&mut self, index: usize, wake: Option<Instant>) {
        if let Some(old) = self.nodes[index].wake {
            self.wakes.remove(&(old, index));
        }
        self.nodes[index].wake = wake;
        self.wakes.extend(wake.map(|at| (at, index)));
    }
}
