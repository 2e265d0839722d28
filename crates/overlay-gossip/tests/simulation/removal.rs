use std::{collections::BTreeSet, time::Duration};

use overlay_gossip::{DropReason, Event, GossipError, config::MAX_REMOVED};
use overlay_testkit::sim::Link;
use overlay_types::NodeId;

use crate::cluster::{Cluster, node_id};

fn remove(cluster: &mut Cluster, at: usize, nodes: &[usize]) {
    let nodes = nodes.iter().map(|index| node_id(*index)).collect();
    cluster.with(at, |gossip, now| gossip.set_removed(nodes, now)).expect("few nodes");
}

#[test]
fn a_removed_node_is_refused_at_once_also_where_others_still_know_it() {
    let mut cluster = Cluster::formed(1, Link::lan(), 6);
    cluster.run(Duration::from_secs(5));
    cluster.sim.forget_events();
    for index in 0..4 {
        remove(&mut cluster, index, &[5]);
        assert_eq!(cluster.state_at(index, 5), None, "forgotten at once");
    }
    // Member 4 has not heard of the removal, and speaks with and about the removed one.
    for _ in 0..60 {
        cluster.run(Duration::from_millis(50));
        assert!((0..4).all(|index| cluster.state_at(index, 5).is_none()));
    }
    assert!((0..4).any(|index| cluster.counters(index).dropped(DropReason::Removed) > 0));
    let told = cluster.events().filter(|(index, _, _)| *index < 4);
    assert_eq!(told.collect::<Vec<_>>(), [], "a removal is no death, and nobody else died");
    remove(&mut cluster, 4, &[5]);
    cluster.expect("alone", Duration::from_secs(30), |c| c.knows_exactly(5, &[]));
    assert!((0..5).all(|index| cluster.knows_exactly(index, &[0, 1, 2, 3, 4])));
    // Admitted again, it is greeted by nobody, and greets.
    for index in 0..5 {
        remove(&mut cluster, index, &[]);
    }
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
}

#[test]
fn a_dead_node_that_is_removed_is_forgotten_and_greeted_no_more() {
    let mut cluster = Cluster::formed(2, Link::lan(), 4);
    cluster.kill(3);
    cluster.expect("dead", Duration::from_secs(15), |c| c.knows_exactly(0, &[1, 2]));
    for index in 0..3 {
        remove(&mut cluster, index, &[3]);
    }
    cluster.run(Duration::from_secs(1));
    let sent = cluster.counters(0).datagrams_out;
    cluster.run(Duration::from_mins(1));
    assert!((0..3).all(|index| cluster.state_at(index, 3).is_none()));
    // One probe and at most three answers a second are what is left.
    assert!(cluster.counters(0).datagrams_out - sent < 4 * 60);
}

#[test]
fn the_last_other_member_may_be_removed() {
    let mut cluster = Cluster::formed(3, Link::lan(), 2);
    remove(&mut cluster, 0, &[0, 1]);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.gossip(0).members().count(), 0);
    assert!(cluster.events().any(|(index, _, event)| (index, event) == (0, Event::Isolated)));
}

#[test]
fn too_many_removed_are_an_error_and_change_nothing() {
    let mut cluster = Cluster::formed(4, Link::lan(), 2);
    let nodes: BTreeSet<_> = (1..=MAX_REMOVED as u128 + 1).map(NodeId::from_u128).collect();
    let refused = cluster.with(0, |gossip, now| gossip.set_removed(nodes, now)).unwrap_err();
    assert!(matches!(refused, GossipError::TooManyRemoved { count } if count == MAX_REMOVED + 1));
    assert!(cluster.all_know_all());
}
