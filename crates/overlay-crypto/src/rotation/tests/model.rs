//! Several nodes and the managers' replicated log, in any order, with delays, loss, absence and
//! restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NODES: usize = 3;
/// Nodes that are not away are never further behind the log than this.
const MAX_LAG: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, Copy)]
enum Op {
    /// A node reads this many entries of the log.
    Read(usize, usize),
    /// A request reaches the managers, or is lost.
    Request(usize, bool),
    /// The managers take the next step that they may; with force, as if the grace period had ended.
    Advance(bool),
    StartRotation,
    Tick(u64),
    Restart(usize),
    Away(usize),
    Back(usize),
    /// One node sends a packet to another.
    Talk(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..NODES;
    prop_oneof![
        6 => (who.clone(), 1..6_usize).prop_map(|(who, count)| Op::Read(who, count)),
        12 => (0..8_usize, prop::bool::weighted(0.1)).prop_map(|(at, lost)| Op::Request(at, lost)),
        6 => prop::bool::weighted(0.3).prop_map(Op::Advance),
        2 => Just(Op::StartRotation),
        3 => (1..10_u64).prop_map(Op::Tick),
        1 => (60..120_u64).prop_map(Op::Tick),
        1 => who.clone().prop_map(Op::Restart),
        1 => who.clone().prop_map(Op::Away),
        2 => who.clone().prop_map(Op::Back),
        4 => (who.clone(), who).prop_map(|(from, to)| Op::Talk(from, to)),
    ]
}

#[derive(Clone, Copy)]
enum Entry {
    Epoch(EpochStatus),
    Removed(Epoch),
    Key(NodeKeyStatus),
}

#[derive(Clone)]
enum Request {
    Publish(NodeKeyStatus),
    Ready(NodeKeyStatus),
}

impl Request {
    fn node(&self) -> NodeId {
        let (Self::Publish(key) | Self::Ready(key)) = self;
        key.node
    }
}

#[derive(Clone)]
struct Node {
    id: NodeId,
    rotation: Rotation,
    /// How much of the log it has read.
    read: usize,
    away: bool,
    /// Its data path.
    inbound: BTreeMap<SaId, SaKeys>,
    sending: BTreeMap<NodeId, (SaId, SaKeys)>,
    used: BTreeSet<SaId>,
    /// Keys whose secrets it lost by restarting.
    lost: BTreeSet<PublicKey>,
}

#[derive(Clone)]
struct World {
    now: Instant,
    entropy: u64,
    log: Vec<(Instant, Entry)>,
    epochs: BTreeMap<Epoch, EpochStatus>,
    keys: BTreeMap<(NodeId, Epoch), NodeKeyStatus>,
    requests: Vec<Request>,
    nodes: Vec<Node>,
    /// Pairs whose packets arrived and that have no excuse since for losing one.
    connected: BTreeSet<(usize, usize)>,
}

impl World {
    fn new() -> Self {
        Self::of(NODES)
    }

    fn of(nodes: usize) -> Self {
        let mut world = Self {
            now: start() + DRAIN,
            entropy: 0,
            log: Vec::new(),
            epochs: BTreeMap::new(),
            keys: BTreeMap::new(),
            requests: Vec::new(),
            nodes: Vec::new(),
            connected: BTreeSet::new(),
        };
        world.put_epoch(status(1, EpochState::Active));
        for number in 0..nodes {
            let node = world.fresh_node(number);
            world.nodes.push(node);
        }
        world
    }

    fn fresh_node(&mut self, number: usize) -> Node {
        self.entropy += 1;
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&self.entropy.to_be_bytes());
        let id = node(number as u128 + 1);
        let config =
            RotationConfig { send_margin: Duration::from_mins(1), ..RotationConfig::default() };
        let mut rotation = Rotation::new(ClusterId::from_u128(9), id, config, entropy);
        self.read_snapshot(&mut rotation);
        Node {
            id,
            rotation,
            read: self.log.len(),
            away: false,
            inbound: BTreeMap::new(),
            sending: BTreeMap::new(),
            used: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    fn read_snapshot(&self, rotation: &mut Rotation) {
        let gone: Vec<Epoch> =
            rotation.epochs().map(|(e, _)| e).filter(|e| !self.epochs.contains_key(e)).collect();
        for epoch in gone {
            rotation.handle_epoch_removed(epoch);
        }
        self.epochs.values().for_each(|status| rotation.handle_epoch(*status, self.now));
        for key in self.keys.values() {
            let _ = rotation.handle_key(*key, self.now);
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Read(who, count) => self.read(who, count),
            Op::Request(at, lost) if at < self.requests.len() => {
                let request = self.requests.swap_remove(at);
                if !lost {
                    self.apply(&request);
                }
            }
            Op::Advance(force) => self.advance(force),
            Op::StartRotation if self.newest().state == EpochState::Active => {
                let next = self.newest().epoch.next();
                self.put_epoch(status(next.get(), EpochState::Preparing));
            }
            Op::Tick(seconds) => self.tick(Duration::from_secs(seconds)),
            Op::Restart(who) => self.restart(who, self.log.len()),
            Op::Away(who) => {
                self.nodes[who].away = true;
                self.excuse(who);
            }
            Op::Back(who) if self.nodes[who].away => self.bring_back(who),
            Op::Talk(from, to) if from != to => self.talk(from, to),
            _ => {}
        }
        self.pump_all();
        self.check();
    }

    /// A new process takes a node's place, with a view of the first `read` entries of the log.
    fn restart(&mut self, who: usize, read: usize) {
        let mut fresh = self.fresh_node(who);
        if read < self.log.len() {
            let (cluster, config) = (fresh.rotation.cluster, fresh.rotation.config.clone());
            fresh.rotation = Rotation::new(cluster, fresh.id, config, *fresh.rotation.seed);
            fresh.read = 0;
        }
        let old = std::mem::replace(&mut self.nodes[who], fresh);
        self.read(who, read - self.nodes[who].read);
        let secrets = old.rotation.generations.values().map(Generation::public);
        self.nodes[who].lost = old.lost.iter().copied().chain(secrets).collect();
        // Publications take effect in their order, so those on the way are lost; what else was said
        // may arrive after what the next process says.
        self.requests.retain(|request| match request {
            Request::Publish(key) => key.node != old.id,
            Request::Ready(_) => true,
        });
        self.excuse(who);
    }

    fn read(&mut self, who: usize, count: usize) {
        let node = &mut self.nodes[who];
        if node.away {
            return;
        }
        for (_, entry) in self.log[node.read..].iter().take(count) {
            match entry {
                Entry::Epoch(status) => node.rotation.handle_epoch(*status, self.now),
                Entry::Removed(epoch) => node.rotation.handle_epoch_removed(*epoch),
                Entry::Key(key) => drop(node.rotation.handle_key(*key, self.now)),
            }
            node.read += 1;
        }
    }

    fn bring_back(&mut self, who: usize) {
        let placeholder = self.fresh_node(who);
        let mut node = std::mem::replace(&mut self.nodes[who], placeholder);
        // Every other time it is so far behind that it gets a snapshot instead of the log.
        if self.entropy.is_multiple_of(2) {
            self.read_snapshot(&mut node.rotation);
            node.read = self.log.len();
        }
        node.away = false;
        self.nodes[who] = node;
        self.read(who, usize::MAX);
    }

    fn tick(&mut self, step: Duration) {
        let to = self.now + step;
        while self.now < to {
            self.now = to.min(self.now + Duration::from_secs(5));
            for who in 0..self.nodes.len() {
                while let Some((written, _)) = self.log.get(self.nodes[who].read)
                    && *written + MAX_LAG <= self.now
                    && !self.nodes[who].away
                {
                    self.read(who, 1);
                }
            }
            self.pump_all();
            self.check();
        }
    }

    fn pump_all(&mut self) {
        // A greeting gives the node that hears it something to do, too.
        while (0..self.nodes.len()).fold(false, |busy, who| self.pump(who) | busy) {}
    }

    /// Does what the machine of a node says, as a data path would; whether there was anything.
    fn pump(&mut self, who: usize) -> bool {
        let mut busy = false;
        loop {
            let node = &mut self.nodes[who];
            match node.rotation.poll_output(self.now) {
                Output::InstallInbound { id, keys } => {
                    assert_eq!(node.inbound.insert(id, keys), None, "installed twice");
                }
                Output::UseForSending { id, keys, greet } => {
                    assert!(node.used.insert(id), "keys of {id:?} were handed out twice");
                    node.sending.insert(id.peer, (id, keys));
                    if greet {
                        let to = (0..self.nodes.len()).find(|to| self.nodes[*to].id == id.peer);
                        self.talk(who, to.expect("the peer is one of the nodes"));
                    }
                }
                Output::StopSending { peer } => drop(node.sending.remove(&peer)),
                Output::Remove(id) => assert!(node.inbound.remove(&id).is_some()),
                Output::Erased(epoch) => {
                    assert!(node.inbound.keys().all(|id| id.epoch != epoch));
                    assert!(node.sending.values().all(|(id, _)| id.epoch != epoch));
                    self.excuse_those_left_behind();
                }
                Output::Publish { epoch, public } => {
                    let key = NodeKeyStatus { node: node.id, epoch, public, ready: false };
                    self.requests.push(Request::Publish(key));
                }
                Output::ReportReady { epoch, public } => {
                    let key = NodeKeyStatus { node: node.id, epoch, public, ready: true };
                    self.requests.push(Request::Ready(key));
                }
                Output::RequestRotation(_) => unreachable!("no usage is reported"),
                Output::Wait(_) => return busy,
            }
            busy = true;
        }
    }

    fn talk(&mut self, from: usize, to: usize) {
        let Some((id, keys)) = self.nodes[from].sending.get(&self.nodes[to].id) else { return };
        let id = SaId { peer: self.nodes[from].id, ..*id };
        if let Some(inbound) = self.nodes[to].inbound.get(&id) {
            assert_eq!(inbound, keys, "one SPI, other keys");
            self.nodes[to].rotation.handle_heard(id);
        }
    }

    /// Everyone returns, and every request and every write arrives.
    fn calm(&mut self) {
        for _ in 0..10 {
            (0..self.nodes.len()).for_each(|who| self.run(Op::Back(who)));
            (0..self.nodes.len()).for_each(|who| self.run(Op::Read(who, usize::MAX)));
            while !self.requests.is_empty() {
                self.run(Op::Request(0, false));
            }
            self.run(Op::Tick(6));
            self.run(Op::Advance(false));
        }
    }

    /// After that, what is under way ends, and one more rotation goes through.
    fn settle(&mut self) {
        for phase in 0..6 {
            if phase == 3 {
                self.run(Op::StartRotation);
            }
            self.calm();
            (0..8).for_each(|_| self.run(Op::Tick(60)));
        }
        let newest = self.newest();
        assert_eq!(newest.state, EpochState::Active);
        for (from, node) in self.nodes.iter().enumerate() {
            let epochs: Vec<_> = node.rotation.epochs().collect();
            assert_eq!(epochs, [(newest.epoch, EpochState::Active)], "others are erased");
            assert_eq!(node.inbound.len(), self.nodes.len() - 1);
            assert_eq!(node.sending.len(), self.nodes.len() - 1);
            for (to, peer) in self.nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                assert_eq!(node.sending[&peer.id].0.epoch, newest.epoch);
                assert!(self.is_installed(from, to, node.sending[&peer.id].0));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn e03_lossless_rotation(ops in prop::collection::vec(op(), 0..200)) {
        let mut world = World::new();
        world.calm();
        prop_assert_eq!(world.connected.len(), NODES * (NODES - 1));
        for op in ops {
            world.run(op);
        }
        world.settle();
    }
}

mod check;
mod exhaustive;
mod managers;
mod scenarios;
