//! Two nodes that follow one view, with their dataplanes on loopback addresses and no networks: the
//! only packets are those of the key rotation.
#![expect(
    clippy::disallowed_methods,
    reason = "tests begin at some instant and wait to a deadline"
)]

use core::net::IpAddr;

use overlay_dataplane::{
    Dataplane, Desired, diff,
    user::{SwitchConfig, UserDataplane, engine::Sas},
};
use overlay_types::{
    Capabilities, Change, DataplaneKind, EpochState, FeatureLevel, KeyEpoch, Meta, Node, NodeKey,
    Object, ObjectKey, Revision, Role,
};

use super::*;

/// Time that a packet over loopback has, on machines that are busy with other tests.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than one key takes to follow another.
const A_WHILE: Duration = Duration::from_mins(1);

fn id(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

/// Each test has a loopback net of its own: the ports are the real ones.
fn address(net: u8, number: u8) -> IpAddr {
    IpAddr::from([127, 77, net, number])
}

fn node(number: u8, data_path: IpAddr) -> Object {
    Object::Node(Node {
        id: id(number),
        meta: Meta::default(),
        name: format!("node{number}").parse().unwrap(),
        role: Role::Manager,
        role_since: Revision::ZERO,
        host: None,
        control: (data_path, 2377).into(),
        gossip: (data_path, 7946).into(),
        data_path,
        availability: overlay_types::Availability::Active,
        labels: BTreeMap::new(),
        capabilities: Capabilities {
            dataplane: DataplaneKind::User,
            encryption: true,
            ipv6: true,
            level: FeatureLevel::OURS,
        },
        root: overlay_types::RootId::default(),
    })
}

/// A view, written to as the managers would.
struct Managers(View);

impl Managers {
    fn put(&mut self, object: Object) {
        let next = Revision::new(self.0.revision().get() + 1);
        self.0.apply(next, [Change::Put(object)]);
    }

    fn put_epoch(&mut self, number: u64, state: EpochState) {
        let (epoch, meta) = (Epoch::new(number), Meta::default());
        let deadline = UnixMillis(3_600_000);
        self.put(Object::KeyEpoch(KeyEpoch { epoch, meta, state, deadline }));
    }

    fn take(&mut self, node: NodeId, reports: Vec<Report>) {
        for report in reports {
            let (epoch, public, ready) = match report {
                Report::PublicKey { epoch, public } => (epoch, public, false),
                Report::Ready { epoch, public } => (epoch, public, true),
                Report::Rotate => panic!("nothing was sent"),
            };
            let meta = Meta::default();
            self.put(Object::NodeKey(NodeKey { node, epoch, meta, public, ready }));
        }
    }
}

/// A node's keys and the dataplane that they are for.
struct Peer {
    keys: Keys,
    dataplane: UserDataplane,
}

impl Peer {
    fn start(net: u8, number: u8) -> Self {
        let keys = Keys::new(ClusterId::from_u128(7), id(number), [number; 32]);
        let dataplane = UserDataplane::start(SwitchConfig::new(address(net, number), 1)).unwrap();
        Self { keys, dataplane }
    }

    /// What the reconcile loop does in one turn.
    fn turn(&mut self, managers: &mut Managers) {
        let now = Instant::now();
        let heard = self.dataplane.switch().with_sas(Sas::newly_heard).unwrap();
        self.keys.notice(heard, Vec::new());
        self.keys.follow(&managers.0, UnixMillis(0), now);
        let (reports, _) = self.keys.step(&managers.0, now);
        let desired = Desired { sas: self.keys.sas().clone(), ..Desired::default() };
        let ops = diff(&desired, &self.dataplane.observe().unwrap());
        for result in self.dataplane.apply(ops) {
            result.unwrap();
        }
        managers.take(self.keys.own, reports);
    }

    /// The epoch that this node sends to a peer with.
    fn epoch_to(&self, peer: u8) -> Option<u64> {
        self.keys.sas().outbound.get(&id(peer)).map(|sa| sa.id.epoch.get())
    }
}

/// Two nodes that send each other with epoch 1.
fn connected(net: u8) -> (Managers, Peer, Peer) {
    let mut managers = Managers(View::default());
    managers.put(node(1, address(net, 1)));
    managers.put(node(2, address(net, 2)));
    managers.put_epoch(1, EpochState::Active);
    let (mut one, mut two) = (Peer::start(net, 1), Peer::start(net, 2));
    for _ in 0..3 {
        one.turn(&mut managers);
        two.turn(&mut managers);
    }
    assert_eq!((one.epoch_to(2), two.epoch_to(1)), (Some(1), Some(1)));
    (managers, one, two)
}

#[test]
fn e03_a_late_peer_is_greeted_with_the_new_epoch_as_soon_as_it_can_open_it() {
    let (mut managers, mut one, mut two) = connected(5);
    // The second node is away for the whole of it.
    for state in [EpochState::Preparing, EpochState::Ready, EpochState::Active] {
        managers.put_epoch(2, state);
        one.turn(&mut managers);
        one.turn(&mut managers);
    }
    managers.put_epoch(1, EpochState::Retired);
    one.turn(&mut managers);
    assert_eq!(one.epoch_to(2), Some(1), "it has no key of epoch 2");

    two.turn(&mut managers);
    one.turn(&mut managers);
    assert_eq!(one.epoch_to(2), Some(1), "it has a key, but may not have installed ours");
    two.turn(&mut managers);
    assert_eq!(two.epoch_to(1), Some(1), "nothing says that the first node knows its key");
    one.turn(&mut managers);
    assert_eq!(one.epoch_to(2), Some(2), "it is ready");

    let begin = Instant::now();
    while two.epoch_to(1) != Some(2) {
        assert!(begin.elapsed() < DEADLINE, "no greeting came");
        two.turn(&mut managers);
    }
}

#[test]
fn associations_follow_a_peer_that_moves() {
    let (mut managers, mut one, _two) = connected(6);
    managers.put(node(2, address(6, 3)));
    one.turn(&mut managers);
    let sas = one.keys.sas();
    let mut all = sas.inbound.values().chain(sas.outbound.values());
    assert!(all.all(|sa| sa.address == address(6, 3)), "{sas:?}");
}

/// The second node's daemon is started again, on a kernel that still seals for the first node.
fn restarted(net: u8, two: &mut Peer) {
    two.keys = Keys::new(ClusterId::from_u128(7), id(2), rand::random());
    two.keys.succeed([address(net, 1)].into());
}

/// Associations that a node opens what comes from a peer with.
fn opened(peer: &Peer) -> Vec<SaId> {
    peer.keys.sas().inbound.keys().copied().collect()
}

#[test]
fn d05_e03_a_node_that_was_started_again_seals_anew_when_its_peer_can_open_it() {
    let (mut managers, mut one, mut two) = connected(7);
    let before = opened(&one);
    restarted(7, &mut two);
    two.turn(&mut managers);
    assert_eq!(two.epoch_to(1), None, "the kernel seals with the old one");

    one.turn(&mut managers);
    assert_eq!(one.epoch_to(2), Some(1));
    assert_eq!(opened(&one).len(), 2, "and the first node opens both");
    two.turn(&mut managers);
    two.keys.notice(opened(&two), Vec::new());
    assert_eq!(two.epoch_to(1), Some(1), "the first node has the new one: it was heard by it");

    let new: Vec<SaId> = opened(&one).into_iter().filter(|id| !before.contains(id)).collect();
    one.keys.notice(new.clone(), Vec::new());
    let (_, due) = one.keys.step(&managers.0, Instant::now());
    assert!(due.is_some(), "the old one is to go");
    one.keys.step(&managers.0, Instant::now() + A_WHILE);
    assert_eq!(opened(&one), new);
}

/// It ends before it hears that its peer has its new key, and stays away.
#[test]
fn d05_e03_a_node_that_ends_as_soon_as_it_has_published_is_opened_for_as_long_as_it_is_away() {
    let (mut managers, mut one, mut two) = connected(11);
    let [sealing] = opened(&one)[..] else { panic!("{:?}", opened(&one)) };
    restarted(11, &mut two);
    two.turn(&mut managers);
    one.turn(&mut managers);
    for round in 1..=3 {
        one.keys.step(&managers.0, Instant::now() + round * A_WHILE);
        assert!(opened(&one).contains(&sealing), "its kernel seals with it: {:?}", opened(&one));
    }
}

#[test]
fn d05_headless_without_managers_a_node_that_was_started_again_keeps_its_old_keys() {
    let (mut managers, _one, mut two) = connected(8);
    restarted(8, &mut two);
    let now = Instant::now();
    let look = |two: &mut Peer, managers: &Managers, now| {
        two.keys.follow(&managers.0, UnixMillis(0), now);
        two.keys.step(&managers.0, now)
    };
    let (reports, _) = look(&mut two, &managers, now);
    let later = now + Duration::from_mins(50);
    look(&mut two, &managers, later);
    assert_eq!(two.epoch_to(1), None);
    // They come back, and nothing is heard of the other node.
    managers.take(id(2), reports);
    two.keys.see(&[id(1)].into(), later);
    look(&mut two, &managers, later);
    assert_eq!(two.epoch_to(1), None);
    look(&mut two, &managers, later + A_WHILE);
    assert_eq!(two.epoch_to(1), Some(1));
    assert!(two.keys.sas().greet.contains(&id(1)), "it opens the old one until it hears this one");
}

#[test]
fn d05_headless_a_node_that_was_started_again_keeps_its_old_keys_for_peers_that_are_down() {
    let (mut managers, _one, mut two) = connected(12);
    restarted(12, &mut two);
    two.turn(&mut managers);
    let mut now = Instant::now();
    let mut look = |two: &mut Peer, running: &[NodeId]| {
        now += A_WHILE;
        two.keys.see(&running.iter().copied().collect(), now);
        two.keys.step(&managers.0, now);
        (two.epoch_to(1), two.keys.handover.due().is_some())
    };
    assert_eq!(look(&mut two, &[]), (None, false), "its kernel opens nothing else");
    assert_eq!(look(&mut two, &[id(1)]), (None, true), "it is back, and has the new one soon");
    assert_eq!(look(&mut two, &[]), (None, false), "it has ended again");
    assert_eq!(look(&mut two, &[id(1)]), (None, true));
    assert_eq!(look(&mut two, &[id(1)]).0, Some(1));
}

#[test]
fn e02_nothing_of_a_node_that_is_removed_lingers() {
    let (mut managers, mut one, mut two) = connected(9);
    restarted(9, &mut two);
    two.turn(&mut managers);
    one.turn(&mut managers);
    assert_eq!(opened(&one).len(), 2);
    let next = Revision::new(managers.0.revision().get() + 1);
    managers.0.apply(next, [Change::Delete(ObjectKey::Node(id(2)))]);
    one.turn(&mut managers);
    assert_eq!(opened(&one), []);
}

/// Runs that are too short to be heard seal with what the one before them left.
#[test]
fn d05_e03_a_node_that_is_started_again_and_again_is_opened_all_the_while() {
    let (mut managers, mut one, mut two) = connected(10);
    let [sealing] = opened(&one)[..] else { panic!("{:?}", opened(&one)) };
    one.keys.notice(vec![sealing], Vec::new());
    for _ in 0..4 {
        restarted(10, &mut two);
        two.turn(&mut managers);
        one.turn(&mut managers);
        assert!(opened(&one).contains(&sealing), "{:?}", opened(&one));
        assert!(opened(&one).len() <= 3, "what no run sealed with goes: {:?}", opened(&one));
    }
}

/// Also when nothing was heard of any of them: it is the first one.
#[test]
fn d05_e03_a_silent_node_that_is_started_again_and_again_is_opened_all_the_while() {
    let (mut managers, mut one, mut two) = connected(13);
    let [sealing] = opened(&one)[..] else { panic!("{:?}", opened(&one)) };
    for _ in 0..8 {
        restarted(13, &mut two);
        two.turn(&mut managers);
        one.turn(&mut managers);
        assert!(opened(&one).contains(&sealing), "{:?}", opened(&one));
        assert!(opened(&one).len() <= 3, "what no run sealed with goes: {:?}", opened(&one));
    }
}
