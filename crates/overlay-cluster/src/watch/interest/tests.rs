use std::sync::Arc;

use overlay_types::{
    Addresses, EndpointRole, MacAddr, Meta, NetworkDraft, Readiness, Revision, Service,
    ServiceDraft, ServiceId, ServiceNetwork, Vni,
};
use proptest::prelude::*;

use super::*;
use crate::watch::{Event, Feed, Window};

const NODES: u8 = 3;
const NETWORKS: u8 = 3;

/// The last one is the ingress network.
fn network(number: u8) -> Object {
    let mut draft = NetworkDraft::new(format!("net{number}").parse().unwrap());
    draft.ingress = number + 1 == NETWORKS;
    Object::Network(Network {
        id: NetworkId::from_u128(number.into()),
        meta: Meta::default(),
        spec: draft.try_into().unwrap(),
        vni: Vni::new(5000 + u32::from(number)).unwrap(),
        subnets: Vec::new(),
    })
}

fn service(number: u8, networks: &[u8]) -> Object {
    let mut draft = ServiceDraft::new(format!("svc{number}").parse().unwrap());
    draft.networks = networks
        .iter()
        .map(|n| ServiceNetwork { network: NetworkId::from_u128((*n).into()), aliases: vec![] })
        .collect();
    Object::Service(Service {
        id: ServiceId::from_u128(number.into()),
        meta: Meta::default(),
        spec: draft.try_into().unwrap(),
        vips: BTreeMap::default(),
        previous: None,
    })
}

/// An endpoint; its id decides on its network and node, neither of which it ever leaves.
fn endpoint(id: u8) -> Object {
    let (network, node) = (id % NETWORKS, id / NETWORKS % NODES);
    Object::Endpoint(Endpoint {
        id: EndpointId::from_u128(id.into()),
        meta: Meta::default(),
        network: NetworkId::from_u128(network.into()),
        node: NodeId::from_u128(node.into()),
        service: None,
        name: None,
        addresses: Addresses::default(),
        mac: MacAddr::default(),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let networks = prop::collection::btree_set(0..NETWORKS, 0..3);
    prop_oneof![
        1 => (0..NETWORKS).prop_map(|n| Change::Put(network(n))),
        1 => (0_u8..3, networks)
            .prop_map(|(s, n)| Change::Put(service(s, &n.into_iter().collect::<Vec<_>>()))),
        4 => (0_u8..18).prop_map(|e| Change::Put(endpoint(e))),
        2 => (0_u8..18).prop_map(|e| Change::Delete(endpoint(e).key())),
        1 => (0_u8..3).prop_map(|s| Change::Delete(service(s, &[]).key())),
        1 => Just(Change::Delete(network(NETWORKS - 1).key())),
    ]
}

/// What the node must know of `view`, said in the plainest way.
fn expected(view: &View, node: NodeId) -> View {
    let mut own = View::default();
    let interest = Interest::of_node(node, view);
    own.apply(
        view.revision(),
        interest.snapshot(view).into_iter().map(Change::Put).collect::<Vec<_>>(),
    );
    own
}

fn event(view: &View, changes: Vec<Change>) -> Event {
    Event { revision: view.revision().next(), changes: Arc::from(changes), replaced: false }
}

#[test]
fn s10_a_node_sees_the_ingress_network_before_it_has_a_place_there() {
    let (node, mut view) = (NodeId::from_u128(1), View::default());
    view.apply(Revision::new(1), [Change::Put(network(0))]);
    let mut interest = Interest::of_node(node, &view);
    let told = interest.narrow(&view, &[Change::Put(network(2)), Change::Put(network(0))]);
    assert_eq!(told, [Change::Put(network(2))]);
    view.apply(Revision::new(2), [Change::Put(network(2)), Change::Put(endpoint(5))]);
    assert_eq!(interest.narrow(&view, &[Change::Put(endpoint(5))]).len(), 3);
    // What goes is the place, not the network.
    view.apply(Revision::new(3), [Change::Delete(endpoint(5).key())]);
    let told = interest.narrow(&view, &[Change::Delete(endpoint(5).key())]);
    assert_eq!(told, [Change::Delete(endpoint(5).key())]);
    view.apply(Revision::new(4), [Change::Delete(network(2).key())]);
    let told = interest.narrow(&view, &[Change::Delete(network(2).key())]);
    assert_eq!(told, [Change::Delete(network(2).key())]);
}

#[test]
fn g03_a_replaced_state_is_told_whole_also_at_the_next_revision() {
    let (node, mut view) = (NodeId::from_u128(1), View::default());
    view.apply(Revision::new(1), []);
    let interest = Interest::of_node(node, &view);
    let (mut feed, _) =
        Feed::start(interest, view.revision(), &view, &Window::new(view.revision()));
    // A snapshot is one revision ahead and holds an endpoint that no event told of.
    view.apply(Revision::new(2), [Change::Put(endpoint(3))]);
    let replaced = Event { revision: view.revision(), changes: Arc::from([]), replaced: true };
    let batch = feed.next(&view, &replaced).unwrap();
    assert!(batch.snapshot);
    let mut own = View::default();
    own.apply(batch.revision, batch.changes);
    assert_eq!(own, expected(&view, node));
}

proptest! {
    /// Whenever a subscriber starts, and from whichever revision it comes back, it ends with just
    /// what concerns its node.
    #[test]
    fn g03_a_subscriber_equals_the_state(
        writes in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..30),
        away in 0_usize..30,
        back in 0_usize..30,
    ) {
        let node = NodeId::from_u128(1);
        let (mut view, mut window) = (View::default(), Window::new(Revision::ZERO));
        let (mut own, mut feed): (View, Option<Feed>) = (View::default(), None);
        for (number, changes) in writes.into_iter().enumerate() {
            let event = event(&view, changes);
            view.apply(event.revision, event.changes.iter().cloned());
            window.push(event.clone());
            let subscribed = !(away.min(back)..away.max(back)).contains(&number);
            let batch = match (&mut feed, subscribed) {
                (_, false) => { feed = None; continue }
                (Some(feed), true) => feed.next(&view, &event),
                (None, true) => {
                    let interest = Interest::of_node(node, &view);
                    let (started, batch) = Feed::start(interest, own.revision(), &view, &window);
                    feed = Some(started);
                    Some(batch)
                }
            };
            if let Some(batch) = batch {
                if batch.snapshot { own = View::default(); }
                own.apply(batch.revision, batch.changes);
            }
            prop_assert_eq!(&own, &expected(&view, node));
        }
    }

    /// A subscriber that is told of events late, while the state is ahead, is right in the end.
    #[test]
    fn g03_a_late_subscriber_equals_the_state_in_the_end(
        writes in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..30),
    ) {
        let node = NodeId::from_u128(1);
        let (mut view, window) = (View::default(), Window::new(Revision::ZERO));
        let interest = Interest::of_node(node, &view);
        let (mut feed, _) = Feed::start(interest, Revision::ZERO, &view, &window);
        let mut events = Vec::new();
        for changes in writes {
            let event = event(&view, changes);
            view.apply(event.revision, event.changes.iter().cloned());
            events.push(event);
        }
        let mut own = View::default();
        for event in events {
            let batch = feed.next(&view, &event).unwrap();
            if batch.snapshot { own = View::default(); }
            own.apply(batch.revision, batch.changes);
        }
        prop_assert_eq!(own, expected(&view, node));
    }
}
