use super::*;

fn host(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7946))
}

fn run(seed: u64, link: Link, count: u32) -> Vec<(Duration, u32)> {
    let mut net = Network::new(seed, link);
    for number in 0..count {
        net.send(host(1), host(2), number);
    }
    drain(&mut net)
}

fn drain(net: &mut Network<u32>) -> Vec<(Duration, u32)> {
    let mut arrived = Vec::new();
    while let Some(at) = net.next_delivery() {
        net.advance_to(at);
        while let Some(delivery) = net.poll() {
            arrived.push((net.elapsed(), delivery.payload));
        }
    }
    arrived
}

fn rough() -> Link {
    Link::lan().with_loss(0.2).with_duplication(0.1).with_reordering(0.1)
}

#[test]
fn a_seed_replays_and_another_differs() {
    assert_eq!(run(7, rough(), 200), run(7, rough(), 200));
    assert_ne!(run(7, rough(), 200), run(8, rough(), 200));
}

#[test]
fn shares_are_about_what_was_asked_for() {
    let count = 10_000;
    let lossy = run(1, Link::lan().with_loss(0.2), count).len();
    assert!((7_800..=8_200).contains(&lossy), "{lossy}");
    let doubled = run(2, Link::lan().with_duplication(0.1), count).len();
    assert!((10_850..=11_150).contains(&doubled), "{doubled}");
    let held_back = run(3, Link::lan().with_reordering(0.1), count)
        .iter()
        .filter(|(at, _)| *at > Duration::from_millis(1))
        .count();
    assert!((850..=1_050).contains(&held_back), "{held_back}");
}

#[test]
fn a_one_way_cut_leaves_the_other_way() {
    let mut net = Network::new(4, Link::lan());
    net.cut_one_way(&[host(1).ip()], &[host(2).ip()]);
    net.send(host(1), host(2), 1);
    net.send(host(2), host(1), 2);
    net.send_reliable(host(2), host(1), 3);
    assert_eq!(drain(&mut net).into_iter().map(|(_, p)| p).collect::<Vec<_>>(), [2]);
    net.heal();
    net.send(host(1), host(2), 4);
    assert_eq!(drain(&mut net).len(), 1);
}

#[test]
fn a_cut_swallows_what_is_under_way() {
    let mut net = Network::new(5, Link::lan());
    net.send(host(1), host(2), 1);
    net.partition(&[host(1).ip()], &[host(2).ip()]);
    assert_eq!(drain(&mut net), []);
    assert_eq!(net.tally(), Tally { sent: 1, cut: 1, ..Tally::default() });
}

#[test]
fn a_link_of_its_own_overrides_the_default() {
    let mut net = Network::new(6, Link::lan());
    net.set_link(host(1).ip(), host(2).ip(), Link::lan().with_loss(1.0));
    net.send(host(1), host(2), 1);
    net.send(host(1), host(3), 2);
    assert_eq!(drain(&mut net).into_iter().map(|(_, p)| p).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_stream_pays_for_loss_with_time() {
    let mut net = Network::new(9, Link::lan().with_loss(0.3));
    for number in 0..1_000 {
        net.send_reliable(host(1), host(2), number);
    }
    let arrived = drain(&mut net);
    assert!(arrived.len() >= 995, "{}", arrived.len());
    let late = arrived.iter().filter(|(at, _)| *at > RETRANSMIT_FIRST).count();
    assert!((550..=750).contains(&late), "1 - 0.7^3 of them lose something: {late}");
}
