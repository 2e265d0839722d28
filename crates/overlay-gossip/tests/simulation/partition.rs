use std::time::Duration;

use overlay_gossip::Event;
use overlay_testkit::sim::Link;
use rstest::rstest;

use crate::cluster::Cluster;

const HEALED_WITHIN: Duration = Duration::from_secs(10);

#[rstest]
#[case::half_of_six(1, Link::lan(), 6, 3)]
#[case::one_of_ten(2, Link::lan(), 10, 9)]
#[case::half_of_hundred(3, Link::lan(), 100, 50)]
#[case::lossy(4, Link::lan().with_loss(0.1), 30, 10)]
fn g05_islands_merge_again(
    #[case] seed: u64,
    #[case] link: Link,
    #[case] count: usize,
    #[case] split: usize,
) {
    let mut cluster = Cluster::formed(seed, link, count);
    let (one, other) = (cluster.hosts(0..split), cluster.hosts(split..count));
    cluster.sim.net.partition(&one, &other);
    let (one, other): (Vec<_>, Vec<_>) = (0..count).partition(|index| *index < split);
    cluster.expect("two islands", Duration::from_mins(1), |c| {
        one.iter().all(|i| c.knows_exactly(*i, &one))
            && other.iter().all(|i| c.knows_exactly(*i, &other))
    });
    cluster.run(Duration::from_mins(3));
    cluster.sim.forget_events();
    cluster.sim.net.heal();
    cluster.expect("one island", HEALED_WITHIN, Cluster::all_know_all);
    cluster.run(Duration::from_secs(30));
    // Healing calls nobody dead who was alive on the same island all the time.
    let deaths = cluster.events().filter(|(_, _, event)| matches!(event, Event::MemberDown(_)));
    assert_eq!(deaths.collect::<Vec<_>>(), []);
    assert!(cluster.all_know_all());
}

/// Two clusters that have never met, whose seeds are all gone: only the managers know better.
#[test]
fn g05_islands_merge_when_every_seed_has_moved() {
    let mut cluster = Cluster::new(5, Link::lan(), 10);
    let nowhere = ["10.99.0.1:7946".parse().unwrap()];
    let (left, right) = (cluster.hosts(0..5), cluster.hosts(5..10));
    cluster.sim.net.partition(&left, &right);
    for index in 0..10 {
        let neighbour = cluster.sim.address(if index < 5 { 0 } else { 5 });
        cluster.start(index, &[nowhere[0], neighbour]);
    }
    cluster.run(Duration::from_secs(20));
    cluster.sim.net.heal();
    cluster.run(Duration::from_mins(2));
    assert!(!cluster.all_know_all(), "nobody has told them of each other");
    let addresses = cluster.addresses(0..10);
    cluster.with(9, |gossip, _| gossip.set_members_hint(addresses));
    cluster.expect("one island", HEALED_WITHIN, Cluster::all_know_all);
}

#[test]
fn g05_a_one_way_cut_heals() {
    let mut cluster = Cluster::formed(6, Link::lan(), 8);
    let (one, others) = (cluster.hosts(0..1), cluster.hosts(1..8));
    cluster.sim.net.cut_one_way(&one, &others);
    cluster.run(Duration::from_mins(2));
    cluster.sim.net.heal();
    cluster.expect("all know all", HEALED_WITHIN, Cluster::all_know_all);
    cluster.run(Duration::from_secs(30));
    assert!(cluster.all_know_all());
}
