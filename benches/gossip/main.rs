//! Gossip of 1 000 members, simulated: how soon they all know each other, how soon a death is known,
//! and who is called dead at 5 % loss although he is not. Next to it plain foca with its own settings
//! for a local network, on the same network with the same seed.
//!
//! Published figures to hold this against, none of them of a simulation:
//!
//! - memberlist's settings for a local network (`DefaultLANConfig`) give a suspected member
//!   4 × log10 of the members in seconds to object, 12 s among 1 000, and six times as long while
//!   nobody else suspects it. foca's `Config::new_lan` is derived from them, without the latter.
//! - Lifeguard (Dadgar, Phillips, Currey: "Lifeguard: SWIM-ing with Situational Awareness",
//!   arXiv:1707.00788v1, abstract) has more than 50 times fewer false deaths than SWIM with
//!   suspicion when members are slow, and detects deaths modestly later.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]

mod gossip;
#[path = "../../crates/overlay-gossip/tests/simulation/machine.rs"]
mod machine;
mod plain_foca;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use overlay_testkit::sim::{Hosts, Link, Machine, Network};

/// Members, numbered from 0.
const MEMBERS: usize = 1_000;

/// Members that die, one every [`DEATH_PERIOD`].
const DEATHS: usize = 10;
const DEATH_PERIOD: Duration = Duration::from_secs(5);

/// How long is waited for the last death to be known.
const DEATHS_KNOWN_WITHIN: Duration = Duration::from_mins(2);

/// How long convergence may take before it counts as never.
const CONVERGED_WITHIN: Duration = Duration::from_mins(15);

/// How long the members live with loss.
const LOSSY_TIME: Duration = Duration::from_mins(10);

const SEED: u64 = 1;

/// A protocol under test.
pub(crate) trait Protocol: Machine + Sized {
    /// The protocol, in the names of results.
    const NAME: &str;
    /// Bounds on the results: convergence in s, median and p99 of a death in s, false deaths.
    const TARGETS: [&str; 4];

    /// Member `index`, which knows the address of member 0.
    fn start(index: usize, seed: u64, now: Instant) -> Self;

    /// Other members that it holds for alive.
    fn active(&self) -> usize;

    /// Who is dead, if that is what the event is about.
    fn dead(event: &Self::Event) -> Option<usize>;
}

/// Where a member is.
pub(crate) fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, (index / 250) as u8, (index % 250) as u8 + 1], 7946))
}

fn main() {
    measure::<machine::Member>();
    measure::<plain_foca::PlainFoca>();
}

fn measure<M: Protocol>() {
    let link = Link::lan();
    let mut sim = Hosts::new(Network::new(SEED, link.clone()), (0..MEMBERS).map(address));
    for index in 0..MEMBERS {
        let member = M::start(index, sim.net.draw(), sim.net.now());
        sim.start(index, member);
    }
    let converged = converge::<M>(&mut sim);
    report::<M>("all 1 000 know all", converged.as_secs_f64(), "s", M::TARGETS[0]);

    let mut delays = die(&mut sim);
    let unknown = DEATHS * (MEMBERS - DEATHS) - delays.len();
    delays.sort_unstable();
    let percentile = |percent: usize| delays[(delays.len() - 1) * percent / 100].as_secs_f64();
    report::<M>("a death is known, median member", percentile(50), "s", M::TARGETS[1]);
    report::<M>("a death is known, p99 member", percentile(99), "s", M::TARGETS[2]);
    report::<M>("a death is known, last member", percentile(100), "s", "");
    report::<M>("a death is not known after 2 min", unknown as f64, "members", "");

    sim.net.set_default_link(link.with_loss(0.05));
    let before = sim.net.tally().sent;
    let (called, believed) = false_deaths(&mut sim);
    let sent = (sim.net.tally().sent - before) as f64;
    let members = (MEMBERS - DEATHS) as f64;
    report::<M>("false deaths, 10 min at 5 % loss", called as f64, "members", M::TARGETS[3]);
    report::<M>("the same, times that any heard of one", believed as f64, "times", "");
    report::<M>("messages", sent / LOSSY_TIME.as_secs_f64() / members, "/s a member", "");
}

fn report<M: Protocol>(what: &str, value: f64, unit: &str, target: &str) {
    println!("gossip/{}, {what}\t{value:.2}\t{unit}\t{target}", M::NAME);
}

/// Waits until everybody knows everybody.
fn converge<M: Protocol>(sim: &mut Hosts<M>) -> Duration {
    while sim.net.elapsed() < CONVERGED_WITHIN {
        sim.run(Duration::from_millis(100));
        if (0..MEMBERS).all(|index| sim.machine(index).active() == MEMBERS - 1) {
            break;
        }
    }
    sim.net.elapsed()
}

/// Lets members die, and says for each death and each survivor how long it did not know.
fn die<M: Protocol>(sim: &mut Hosts<M>) -> Vec<Duration> {
    sim.run(Duration::from_secs(30));
    sim.forget_events();
    let victims = MEMBERS - DEATHS..MEMBERS;
    let mut died_at = Vec::new();
    for victim in victims.clone() {
        died_at.push(sim.net.elapsed());
        drop(sim.stop(victim));
        sim.run(DEATH_PERIOD);
    }
    sim.run(DEATHS_KNOWN_WITHIN);
    let mut known = BTreeSet::new();
    let mut delays = Vec::new();
    for (observer, at, event) in sim.events() {
        let Some(victim) = M::dead(event) else { continue };
        // Victims tell, too, as long as they live.
        if !victims.contains(&victim) || victims.contains(&observer) {
            continue;
        }
        // Nothing when it was called dead before it was.
        let Some(delay) = at.checked_sub(died_at[victim - victims.start]) else { continue };
        if known.insert((observer, victim)) {
            delays.push(delay);
        }
    }
    delays
}

/// How many members were called dead by somebody, and how often anybody heard so.
fn false_deaths<M: Protocol>(sim: &mut Hosts<M>) -> (usize, usize) {
    sim.forget_events();
    sim.run(LOSSY_TIME);
    let deaths = sim.events().filter_map(|(_, _, event)| M::dead(event));
    let deaths: Vec<usize> = deaths.filter(|victim| *victim < MEMBERS - DEATHS).collect();
    (deaths.iter().collect::<BTreeSet<_>>().len(), deaths.len())
}
