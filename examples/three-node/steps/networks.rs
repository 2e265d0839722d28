//! A plain and an encrypted network: everybody reaches everybody on the same one, and nobody on
//! the other.

use core::time::Duration;
use std::sync::Arc;

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;

use crate::{
    demo::{Demo, PLAIN, SEALED},
    guest::{Guest, all_reach},
    story::{Story, shown},
};

/// How long a ping waits for an answer that should not come.
const PING: Duration = Duration::from_millis(500);
/// Octets of the transfer that is timed, there and back.
const TRANSFER: usize = 8 << 20;

pub(crate) async fn run(story: &mut Story, demo: &mut Demo) -> Result<()> {
    story.step("Two networks: one plain, one encrypted; a guest of each on every node");
    for (name, encrypted) in [(PLAIN, false), (SEALED, true)] {
        let network = demo.create_network(0, name, encrypted).await?;
        let subnet = network.subnets.first().map_or("", |subnet| subnet.subnet.as_str());
        story.tell(format!("network {name}: {subnet}, VNI {}", network.vni));
    }
    for place in 0..demo.nodes.len() {
        let number = place + 1;
        demo.plain.push(demo.attach(place, PLAIN, &format!("plain{number}"), "").await?);
        demo.sealed.push(demo.attach(place, SEALED, &format!("sealed{number}"), "").await?);
    }
    for (name, guests) in [(PLAIN, &demo.plain), (SEALED, &demo.sealed)] {
        all_pairs(story, name, guests).await?;
    }
    story.tell("");
    isolated(story, &demo.plain[0], &demo.sealed[1], &demo.plain[1]).await?;
    isolated(story, &demo.sealed[0], &demo.plain[0], &demo.sealed[1]).await
}

/// Every guest pings and connects to every other one.
async fn all_pairs(story: &Story, name: &str, guests: &[Arc<Guest>]) -> Result<()> {
    let pairs = || {
        let all = guests.iter().flat_map(|from| guests.iter().map(move |to| (from, to)));
        all.filter(|(from, to)| !Arc::ptr_eq(from, to))
    };
    let first = all_reach(guests, guests).await?;
    story.tell("");
    story.measured(format!("{name}: all pairs answer for the first time"), shown(first));
    let mut times = Vec::new();
    for (from, to) in pairs() {
        times.push(from.ping(to.address()).await?);
        let answer = from.fetch(to.address()).await?;
        ensure!(answer == to.config.name, "{answer} answered for {}", to.config.name);
    }
    times.sort_unstable();
    let count = times.len();
    story.measured(format!("{name}: ping, {count} pairs, median"), shown(times[count / 2]));
    story.tell(format!("{name}: TCP between all {count} pairs, and the right one answers"));
    let (from, to) = (&guests[0], &guests[1]);
    let time = from.transfer(to.address(), TRANSFER, "").await?;
    // Octets per microsecond are megabytes per second.
    let rate = 2 * TRANSFER as u128 / time.as_micros().max(1);
    let what = format!("{name}: {} MB over TCP and back, all octets right", TRANSFER >> 20);
    story.measured(what, format!("{} ({rate} MB/s)", shown(time)));
    Ok(())
}

/// Nothing passes from one guest to one of another network, asked politely or not; `mate` is on the
/// network of the first.
async fn isolated(story: &Story, from: &Guest, to: &Guest, mate: &Guest) -> Result<()> {
    let (source, target) = (&from.config, &to.config);
    let answered = from.ping_for(to.address(), PING).await.is_ok();
    ensure!(!answered, "{} reaches {} across networks", source.name, target.name);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(source.mac.0, target.mac.0)
        .ipv4(source.address.octets(), target.address.octets(), 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut frame, b"three-node")?;
    from.forge(frame);
    // Ports and sockets keep order: what was sent behind it has arrived.
    from.reach(mate.address()).await?;
    ensure!(mate.heard_from(source.mac), "{} forgets whom it hears", mate.config.name);
    ensure!(!to.heard_from(source.mac), "a forged frame reached {}", target.name);
    story.tell(format!("{} cannot reach {}: no answer to ARP,", source.name, target.name));
    story.tell("  and a frame forged to its Ethernet address never arrives");
    Ok(())
}
