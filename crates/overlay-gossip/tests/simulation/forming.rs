use std::time::Duration;

use overlay_gossip::{Event, MemberState};
use overlay_testkit::sim::Link;
use rstest::rstest;

use crate::cluster::{Cluster, node_id};

fn rough() -> Link {
    let delay = Duration::from_millis(1)..=Duration::from_millis(50);
    Link::lan().with_loss(0.1).with_duplication(0.05).with_reordering(0.05).with_delay(delay)
}

#[rstest]
#[case::two(1, Link::lan(), 2, 5)]
#[case::three(2, Link::lan(), 3, 5)]
#[case::hundred(3, Link::lan(), 100, 10)]
#[case::hundred_rough(4, rough(), 100, 20)]
fn g01_members_meet(
    #[case] seed: u64,
    #[case] link: Link,
    #[case] count: usize,
    #[case] seconds: u64,
) {
    let mut cluster = Cluster::new(seed, link, count);
    let seeds = cluster.addresses(0..1);
    for index in 0..count {
        cluster.start(index, &seeds);
    }
    cluster.expect("all know all", Duration::from_secs(seconds), Cluster::all_know_all);
}

#[test]
fn g05_zero_members_are_recovered_from() {
    let mut cluster = Cluster::new(5, Link::lan(), 3);
    let seeds = cluster.addresses(0..1);
    // The seed does not exist for a long while: the others greet it and know nobody.
    cluster.start(1, &seeds);
    cluster.start(2, &seeds);
    cluster.run(Duration::from_mins(10));
    assert!(cluster.knows_exactly(1, &[]) && cluster.knows_exactly(2, &[]));
    cluster.start(0, &[]);
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
    // All but one die, one after the other, and come back as if nothing had been.
    cluster.kill(0);
    cluster.kill(1);
    cluster.expect("alone", Duration::from_secs(15), |c| c.knows_exactly(2, &[]));
    assert!(cluster.events().any(|(index, _, event)| (index, event) == (2, Event::Isolated)));
    cluster.run(Duration::from_mins(10));
    cluster.start(0, &[]);
    cluster.start(1, &[]);
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
}

#[test]
fn g05_a_node_that_lost_its_seeds_is_found_by_those_who_hold_it_for_dead() {
    let mut cluster = Cluster::formed(6, Link::lan(), 5);
    cluster.kill(4);
    cluster.run(Duration::from_mins(5));
    cluster.start(4, &[]);
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
}

#[test]
fn g04_a_restart_is_noticed_before_the_death_is() {
    let mut cluster = Cluster::formed(7, Link::lan(), 10);
    let seeds = cluster.addresses(0..3);
    cluster.run(Duration::from_secs(5));
    cluster.sim.forget_events();
    let before = cluster.gossip(9).identity().incarnation;
    cluster.kill(9);
    cluster.start(9, &seeds);
    cluster.expect("the new one everywhere", Duration::from_secs(5), |c| {
        c.all_know_all()
            && (0..9).all(|index| {
                c.gossip(index)
                    .members()
                    .any(|(id, _)| id.node == node_id(9) && id.incarnation > before)
            })
    });
    let downs = cluster.events().filter(|(_, _, e)| matches!(e, Event::MemberDown(_))).count();
    let renewed = cluster.events().filter(|(_, _, e)| matches!(e, Event::MemberRenewed(_))).count();
    assert_eq!((downs, renewed), (0, 9));
}

#[rstest]
#[case::quiet(8, Link::lan())]
#[case::rough(9, rough())]
fn g04_leaving_is_no_death(#[case] seed: u64, #[case] link: Link) {
    let mut cluster = Cluster::formed(seed, link, 20);
    cluster.sim.forget_events();
    cluster.with(7, overlay_gossip::Gossip::leave);
    cluster.expect("gone", Duration::from_secs(5), |c| c.gossip(7).is_gone());
    assert!(cluster.events().any(|(index, _, event)| (index, event) == (7, Event::Left)));
    cluster.kill(7);
    cluster.expect("left everywhere", Duration::from_secs(5), |c| {
        c.sim.running().iter().all(|index| c.state_at(*index, 7) == Some(MemberState::Left))
    });
    cluster.run(Duration::from_mins(2));
    let mut left = 0;
    for (_, _, event) in cluster.events() {
        match event {
            Event::MemberLeft(identity) if identity.node == node_id(7) => left += 1,
            Event::MemberDown(identity) => panic!("{identity:?} is called dead"),
            _ => {}
        }
    }
    assert_eq!(left, 19);
    // And it may come back.
    let seeds = cluster.addresses(0..3);
    cluster.start(7, &seeds);
    cluster.expect("all know all", Duration::from_secs(10), Cluster::all_know_all);
}
