//! How fast containers on two hosts talk, side by side in one run: over the hosts' cable itself, over
//! VXLAN as one sets it up by hand, and over the kernel dataplane with its filter of members.
//!
//! | | |
//! |---|---|
//! | cable | from host to host: what there is to lose |
//! | bare VXLAN | a VXLAN device moved into each container: the plainest, for one container on each host |
//! | bridged VXLAN | a VXLAN device, a bridge and veth pairs: how one connects containers by hand |
//! | ours | the kernel dataplane: the same devices in a namespace of their own, and a fence |
//! | peer | what the command in `OVERLAY_SPEED_PEER` sets up, if it is set; see `layouts.rs` |
//!
//! All are measured by turns, so that other load on the machine meets all of them alike; what is told is
//! the median over rounds of the ratio within a round. On a machine with few cores run it with real-time
//! priority (`chrt -f 10 cargo bench --bench speed`). `OVERLAY_SPEED_ROUNDS` is the number of rounds.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod layouts;
mod load;

use anyhow::Result;
use overlay_testkit::lab;

use self::layouts::Pair;

const ROUNDS: usize = 7;

/// Figures, their units, and whether more is better.
const FIGURES: [(&str, &str, bool); 8] = [
    ("TCP, 1 flow", "Gbit/s", true),
    ("TCP, 8 flows", "Gbit/s", true),
    ("CPU time, TCP, 1 flow", "s/GB", false),
    ("UDP of 1400 octets", "packets/s", true),
    ("UDP of 64 octets", "packets/s", true),
    ("request and response, p50", "µs", false),
    ("request and response, p99", "µs", false),
    ("connections", "1/s", true),
];

/// All figures of one layout in one round.
fn round(pair: &Pair) -> Result<[f64; FIGURES.len()]> {
    let (one, cpu) = load::stream(pair, 1)?;
    let (eight, _) = load::stream(pair, 8)?;
    let (large, small) = (load::datagrams(pair, 1400)?, load::datagrams(pair, 64)?);
    let (half, most) = load::exchanges(pair)?;
    Ok([one, eight, cpu, large, small, half, most, load::connections(pair)?])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Targets of ours next to each of the others.
fn target(other: &str) -> &'static str {
    match other {
        "bare VXLAN" | "bridged VXLAN" => ">= 1",
        "peer" => ">= 1.2",
        _ => "",
    }
}

fn run() -> Result<()> {
    let rounds = std::env::var("OVERLAY_SPEED_ROUNDS").ok().and_then(|text| text.parse().ok());
    let mut pairs =
        vec![layouts::cable()?, layouts::bare()?, layouts::bridged()?, layouts::ours()?];
    pairs.extend(layouts::peer()?);
    // The first turn finds neighbours, and caches as they will be.
    pairs.iter().try_for_each(|pair| round(pair).map(drop))?;
    let mut measured = vec![Vec::new(); pairs.len()];
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        for (pair, all) in pairs.iter().zip(&mut measured) {
            all.push(round(pair)?);
        }
    }
    for (at, (figure, unit, _)) in FIGURES.iter().enumerate() {
        for (pair, all) in pairs.iter().zip(&measured) {
            let value = median(all.iter().map(|round| round[at]).collect());
            let digits = if value < 1000.0 { 2 } else { 0 };
            println!("speed: {figure}, {}\t{value:.digits$}\t{unit}\t", pair.name);
        }
    }
    let ours = pairs.iter().position(|pair| pair.name == "ours").unwrap_or_default();
    for (pair, all) in pairs.iter().zip(&measured).filter(|(pair, _)| pair.name != "ours") {
        for (at, (figure, _, more_is_better)) in FIGURES.iter().enumerate() {
            let ratio = |(a, b): (&[f64; FIGURES.len()], &[f64; FIGURES.len()])| {
                if *more_is_better { a[at] / b[at] } else { b[at] / a[at] }
            };
            let value = median(measured[ours].iter().zip(all).map(ratio).collect());
            println!("speed: ours to {}, {figure}\t{value:.2}\t\t{}", pair.name, target(pair.name));
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(run) }
}
