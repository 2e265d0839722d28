use std::time::Duration;

use overlay_crypto::keyring::RingKeys;
use overlay_gossip::DropReason;
use overlay_testkit::sim::Link;

use crate::{cluster::Cluster, keys};

/// Every step reaches the members at different times, up to two seconds apart.
fn roll_out(cluster: &mut Cluster, ring: &RingKeys) {
    for index in cluster.sim.running() {
        cluster.with(index, |gossip, _| gossip.set_keys(ring.clone()));
        cluster.run(Duration::from_millis(200));
    }
}

#[test]
fn g02_rotations_lose_no_message() {
    let mut cluster = Cluster::formed(1, Link::lan(), 10);
    for epoch in 1..6 {
        roll_out(&mut cluster, &keys::prepared(epoch));
        roll_out(&mut cluster, &keys::switched(epoch + 1));
    }
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.sim.net.tally().lost, 0);
    for index in cluster.sim.running() {
        assert_eq!(cluster.counters(index).total_dropped(), 0, "{:?}", cluster.counters(index));
    }
    assert!(cluster.all_know_all());
}

#[test]
fn g02_a_node_that_missed_rotations_comes_back_with_keys_from_its_manager() {
    let mut cluster = Cluster::formed(2, Link::lan(), 4);
    let (away, others) = (cluster.hosts(3..4), cluster.hosts(0..3));
    cluster.sim.net.partition(&away, &others);
    cluster.run(Duration::from_secs(20));
    for epoch in 1..5 {
        for index in 0..3 {
            cluster.with(index, |gossip, _| gossip.set_keys(keys::switched(epoch + 1)));
        }
        cluster.run(Duration::from_secs(5));
    }
    cluster.sim.net.heal();
    cluster.run(Duration::from_secs(30));
    assert!(!cluster.all_know_all());
    assert!(cluster.counters(3).dropped(DropReason::UnknownEpoch) > 0);
    assert!(cluster.counters(0).dropped(DropReason::UnknownEpoch) > 0);
    cluster.with(3, |gossip, _| gossip.set_keys(keys::switched(5)));
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
}
