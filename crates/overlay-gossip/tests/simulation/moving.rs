//! Members that come back at another address.

use std::time::Duration;

use overlay_testkit::sim::Link;
use rstest::rstest;

use crate::cluster::Cluster;

/// The node knows a seed, or only its managers know where it is now.
#[rstest]
#[case::it_greets_a_seed(1, true)]
#[case::the_others_are_told_where_it_is(2, false)]
fn g05_a_member_with_a_new_address_is_followed(#[case] seed: u64, #[case] knows_seed: bool) {
    let mut cluster = Cluster::formed(seed, Link::lan(), 6);
    cluster.run(Duration::from_secs(5));
    cluster.kill(5);
    cluster.expect("dead", Duration::from_secs(15), |c| c.knows_exactly(0, &[1, 2, 3, 4]));
    let moved = "[2001:db8::5]:7946".parse().unwrap();
    cluster.sim.move_to(5, moved);
    let seeds = if knows_seed { cluster.addresses(0..1) } else { Vec::new() };
    cluster.start(5, &seeds);
    if !knows_seed {
        cluster.with(0, |gossip, _| gossip.set_members_hint([moved]));
    }
    cluster.expect("known at its new address", Duration::from_secs(10), |c| {
        c.all_know_all()
            && (0..5).all(|index| c.gossip(index).members().any(|(id, _)| id.address == moved))
    });
}
