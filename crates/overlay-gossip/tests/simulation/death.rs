use std::time::Duration;

use overlay_gossip::{Event, MemberState};
use overlay_testkit::sim::Link;
use rstest::rstest;

use crate::cluster::{Cluster, node_id};

/// Death is known everywhere after: being probed by someone (3 periods, p > 0.99 from 5 members on),
/// the probe (1), the suspicion (3 s up to 10 members, 6 s at 100), the news (2 s).
#[rstest]
#[case::three(1, Link::lan(), 3, 10)]
#[case::twenty(2, Link::lan(), 20, 12)]
#[case::hundred(3, Link::lan(), 100, 14)]
#[case::hundred_lossy(4, Link::lan().with_loss(0.1), 100, 16)]
fn g04_a_death_is_known_everywhere(
    #[case] seed: u64,
    #[case] link: Link,
    #[case] count: usize,
    #[case] seconds: u64,
) {
    let mut cluster = Cluster::formed(seed, link, count);
    cluster.run(Duration::from_secs(10));
    cluster.sim.forget_events();
    cluster.kill(count - 1);
    cluster.expect("dead everywhere", Duration::from_secs(seconds), |c| {
        c.sim.running().iter().all(|i| c.state_at(*i, count - 1) == Some(MemberState::Dead))
    });
    let others = cluster.events().filter(|(_, _, event)| {
        matches!(event, Event::MemberDown(identity) if identity.node != node_id(count - 1))
    });
    assert_eq!(others.count(), 0, "only the dead one is called dead");
    // It returns, and is seen by all.
    let seeds = cluster.addresses(0..3);
    cluster.start(count - 1, &seeds);
    cluster.expect("back", Duration::from_secs(5), Cluster::all_know_all);
}

#[test]
fn g01_no_false_death_at_ten_percent_loss_for_an_hour() {
    let delay = Duration::from_millis(1)..=Duration::from_millis(30);
    let rough = Link::lan().with_loss(0.1).with_duplication(0.02).with_delay(delay);
    let mut cluster = Cluster::formed(5, rough, 100);
    cluster.sim.forget_events();
    cluster.run(Duration::from_hours(1));
    let bad = cluster.events().filter(|(_, _, event)| {
        matches!(event, Event::MemberDown(_) | Event::Rejoined(_) | Event::Isolated)
    });
    assert_eq!(bad.collect::<Vec<_>>(), []);
    assert!(cluster.all_know_all());
}

/// Nine of ten datagrams in one direction are lost, streams are not.
#[test]
fn g01_a_stream_gives_the_second_opinion() {
    let mut cluster = Cluster::formed(6, Link::lan(), 2);
    let hosts = cluster.hosts(0..2);
    let deaf = Link::lan().with_datagram_loss(0.9);
    cluster.sim.net.set_link(hosts[0], hosts[1], deaf);
    cluster.sim.forget_events();
    cluster.run(Duration::from_mins(10));
    let bad = cluster.events().filter(|(_, _, event)| matches!(event, Event::MemberDown(_)));
    assert_eq!(bad.count(), 0);
    assert!(cluster.counters(0).saved_by_stream > 50, "{:?}", cluster.counters(0));
}

/// A host that sleeps does not take the silence meanwhile for the death of all others.
#[test]
fn g04_a_stopped_process_declares_nobody_dead() {
    let mut cluster = Cluster::formed(7, Link::lan(), 5);
    cluster.run(Duration::from_secs(30));
    cluster.sim.forget_events();
    // The sockets of a stopped process keep what fits; here they keep nothing.
    let sleeper = cluster.sim.stop(4);
    cluster.run(Duration::from_mins(1));
    cluster.sim.start(4, sleeper);
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
    let called_dead: Vec<_> = cluster
        .events()
        .filter(|(index, _, event)| *index == 4 && matches!(event, Event::MemberDown(_)))
        .collect();
    assert_eq!(called_dead, []);
    assert!(cluster.events().any(|(i, _, e)| i == 4 && matches!(e, Event::Rejoined(_))));
}
