//! How fast containers on two hosts talk, side by side in one run: over the hosts' cable itself, over
//! VXLAN as one sets it up by hand, over our dataplanes, and over tunnels of others.
//!
//! | | |
//! |---|---|
//! | cable | from host to host: what there is to lose |
//! | bare VXLAN | a VXLAN device moved into each container: the plainest, for one container on each host |
//! | bridged VXLAN | a VXLAN device, a bridge and veth pairs: how one connects containers by hand |
//! | kernel dataplane | the same devices in a namespace of their own, and a fence |
//! | user dataplane | TAP devices and a switch in user space |
//! | user dataplane, encrypted | the same, and ESP with AES-256-GCM |
//! | wireguard-go, boringtun | from host to host by WireGuard in user space, ChaCha20-Poly1305 |
//! | peer | what the command in `OVERLAY_SPEED_PEER` sets up, if it is set; see `layouts.rs` |
//!
//! `-- "bare VXLAN" "kernel dataplane"` measures those and the peer only.
//! `-- services` measures a service on the kernel dataplane instead: its task's own address, its virtual
//! address, and its published port on a node without a task, next to those of a peer.
//!
//! All are measured by turns, so that other load on the machine meets all of them alike; what is told is
//! the median over rounds of the ratio within a round. WireGuard has less to do than the user dataplane: its
//! device is the host's own, and there is no switch and no frame. On a machine with few cores run it with real-time
//! priority (`chrt -f 10 cargo bench --bench speed`). `OVERLAY_SPEED_ROUNDS` is the number of rounds.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.
#![expect(clippy::print_stdout, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod layouts;
mod load;
mod ours;
#[path = "../../tests/lab/programs.rs"]
mod programs;
mod services;
mod wireguard;

use anyhow::{Result, ensure};
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

/// Which of ours is told next to which other, with the target of each ratio.
const COMPARISONS: [(&str, &str, Target); 15] = [
    (KERNEL, "cable", none),
    (KERNEL, BARE, |_| ">= 1"),
    (KERNEL, BRIDGED, |_| ">= 1"),
    (KERNEL, "peer", |_| ">= 1.2"),
    (PLAIN, BARE, |figure| of_streams(figure, ">= 0.5")),
    (SEALED, BARE, |figure| of_streams(figure, ">= 0.4")),
    (SEALED, BRIDGED, none),
    (SEALED, PLAIN, none),
    (SEALED, "wireguard-go", |figure| of_streams(figure, ">= 8")),
    (SEALED, "boringtun", |figure| of_streams(figure, ">= 8")),
    (services::VIRTUAL, services::DIRECT, |figure| of_streams(figure, ">= 0.95")),
    (services::MESH, services::DIRECT, none),
    (services::DIRECT, "peer task", none),
    (services::VIRTUAL, "peer virtual address", none),
    (services::MESH, "peer mesh", none),
];

const BARE: &str = "bare VXLAN";
const BRIDGED: &str = "bridged VXLAN";
const KERNEL: &str = "kernel dataplane";
const PLAIN: &str = "user dataplane";
const SEALED: &str = "user dataplane, encrypted";

/// Of a figure.
type Target = fn(&str) -> &'static str;

fn none(_: &str) -> &'static str {
    ""
}

fn of_streams(figure: &str, target: &'static str) -> &'static str {
    if figure.starts_with("TCP") { target } else { "" }
}

/// What is measured when this is an argument.
const SERVICES: &str = "services";

/// Sets a layout up that has this name.
type Layout = fn(&str) -> Result<Pair>;

fn layouts() -> Result<Vec<Pair>> {
    if std::env::args().any(|argument| argument == SERVICES) {
        let mut pairs = services::ours()?;
        pairs.extend(layouts::peer(SERVICES)?);
        return Ok(pairs);
    }
    let all: [(&str, Layout); 8] = [
        ("cable", layouts::cable),
        (BARE, layouts::bare),
        (BRIDGED, layouts::bridged),
        (KERNEL, ours::kernel),
        (PLAIN, |name| ours::user(name, false)),
        (SEALED, |name| ours::user(name, true)),
        ("wireguard-go", wireguard::in_go),
        ("boringtun", wireguard::in_rust),
    ];
    // Cargo adds an option.
    let asked: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for name in &asked {
        ensure!(all.iter().any(|(known, _)| known == name), "no layout is called {name:?}");
    }
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let asked = all.iter().filter(|(name, _)| is_asked(name));
    let mut pairs = asked.map(|(name, start)| start(name)).collect::<Result<Vec<_>>>()?;
    pairs.extend(layouts::peer("containers")?);
    Ok(pairs)
}

fn run() -> Result<()> {
    let rounds = std::env::var("OVERLAY_SPEED_ROUNDS").ok().and_then(|text| text.parse().ok());
    let pairs = layouts()?;
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
    let find = |name| pairs.iter().position(|pair| pair.name == name);
    for (ours, other, target) in COMPARISONS {
        let (Some(one), Some(two)) = (find(ours), find(other)) else { continue };
        for (at, (figure, _, more_is_better)) in FIGURES.iter().enumerate() {
            let ratio = |(a, b): (&[f64; FIGURES.len()], &[f64; FIGURES.len()])| {
                if *more_is_better { a[at] / b[at] } else { b[at] / a[at] }
            };
            let value = median(measured[one].iter().zip(&measured[two]).map(ratio).collect());
            println!("speed: {ours} to {other}, {figure}\t{value:.2}\t\t{}", target(figure));
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    if lab::skip() { Ok(()) } else { lab::isolated(run) }
}
