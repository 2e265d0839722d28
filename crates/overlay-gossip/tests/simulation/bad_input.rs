//! Members that misbehave although they hold the key, and those that hold none.

use std::{net::SocketAddr, time::Duration};

use overlay_crypto::keyring::GossipKeyRing;
use overlay_gossip::{DropReason, Output, config::MAX_DATAGRAM};
use overlay_testkit::sim::Link;
use overlay_types::{Incarnation, NodeId};
use proptest::prelude::*;
use rstest::rstest;

use crate::{
    cluster::{Cluster, node_id},
    keys,
};

const STRANGER: u128 = 1 << 64;

/// A greeting as the format says, written down by hand: version, kind, node, incarnation, flags, IPv4
/// address, port.
fn greeting(node: NodeId, incarnation: u64, ip: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![1, 1];
    bytes.extend_from_slice(&node.to_bytes());
    bytes.extend_from_slice(&incarnation.to_be_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&ip);
    bytes.extend_from_slice(&7946_u16.to_be_bytes());
    bytes
}

fn address() -> SocketAddr {
    "10.9.9.9:7946".parse().unwrap()
}

fn sealed_by(node: NodeId, message: &[u8]) -> Vec<u8> {
    GossipKeyRing::new(node, Incarnation::new(5), keys::ring(1)).seal(message).unwrap()
}

#[rstest]
#[case::honest(NodeId::from_u128(STRANGER), 5, [10, 9, 9, 9], None)]
#[case::another_node(node_id(1), 5, [10, 9, 9, 9], Some(DropReason::Impersonation))]
#[case::before_its_start(NodeId::from_u128(STRANGER), 4, [10, 9, 9, 9], Some(DropReason::Impersonation))]
#[case::far_future(NodeId::from_u128(STRANGER), u64::MAX, [10, 9, 9, 9], Some(DropReason::Impersonation))]
#[case::no_address(NodeId::from_u128(STRANGER), 5, [0, 0, 0, 0], Some(DropReason::Malformed))]
#[case::multicast(NodeId::from_u128(STRANGER), 5, [224, 0, 0, 1], Some(DropReason::Malformed))]
fn g02_nobody_speaks_for_another(
    #[case] claimed: NodeId,
    #[case] incarnation: u64,
    #[case] ip: [u8; 4],
    #[case] reason: Option<DropReason>,
) {
    let mut cluster = Cluster::formed(1, Link::lan(), 3);
    let bytes = sealed_by(NodeId::from_u128(STRANGER), &greeting(claimed, incarnation, ip));
    let before = cluster.gossip(0).members().count();
    let known = cluster.with(0, |gossip, now| {
        gossip.handle_datagram(address(), &bytes, now);
        gossip.members().count()
    });
    let drops: Vec<_> = cluster.counters(0).drops().collect();
    match reason {
        Some(reason) => assert_eq!((known, drops), (before, vec![(reason, 1)])),
        None => assert_eq!((known, drops), (before + 1, vec![])),
    }
}

#[test]
fn g02_a_replay_has_no_effect() {
    let mut cluster = Cluster::formed(2, Link::lan(), 3);
    let stranger = NodeId::from_u128(STRANGER);
    let bytes = sealed_by(stranger, &greeting(stranger, 5, [10, 9, 9, 9]));
    for expected in [0, 1, 2] {
        cluster.with(0, |gossip, now| gossip.handle_datagram(address(), &bytes, now));
        assert_eq!(cluster.counters(0).dropped(DropReason::Replayed), expected);
    }
    let mut own = cluster.gossip(1).identity().node;
    cluster.with(1, |gossip, now| gossip.handle_datagram(address(), &sealed_by(own, b"x"), now));
    assert_eq!(cluster.counters(1).dropped(DropReason::FromSelf), 1);
    own = node_id(2);
    cluster.with(0, |gossip, now| gossip.handle_datagram(address(), &sealed_by(own, b"x"), now));
    assert_eq!(cluster.counters(0).dropped(DropReason::StaleIncarnation), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes, bare or sealed by a member, as datagram or over a stream: nothing but counters change.
    #[test]
    fn g01_garbage_has_no_effect(
        garbage in prop::collection::vec(any::<u8>(), 0..MAX_DATAGRAM - 100),
        kind in 0_u8..4,
        sealed: bool,
        stream: bool,
    ) {
        let mut cluster = Cluster::new(3, Link::lan(), 1);
        cluster.start(0, &[]);
        cluster.run(Duration::from_secs(1));
        let stranger = NodeId::from_u128(STRANGER);
        let bytes = if sealed {
            sealed_by(stranger, &[&[1, kind], garbage.as_slice()].concat())
        } else {
            garbage
        };
        let idle = cluster.with(0, |gossip, now| {
            if stream {
                gossip.handle_stream_message(address(), &bytes, now);
            } else {
                gossip.handle_datagram(address(), &bytes, now);
            }
            matches!(gossip.poll_output(now), Output::WakeAt(_)) && gossip.members().count() == 0
        });
        prop_assert!(idle);
        prop_assert_eq!(cluster.counters(0).total_dropped(), 1);
    }
}
