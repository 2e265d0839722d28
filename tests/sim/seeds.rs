//! Seeds that must hold every invariant.

use std::{
    env,
    fmt::Write,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use crate::{child::run, run::Outcome};

/// How many seeds `cargo test` runs.
const SEEDS: u64 = 300;

/// Violations in a report: one bug has many.
const SHOWN: usize = 10;

/// Lines of the log in a report.
const LINES: usize = 1000;

/// Seeds that found a bug once, and which.
const FOUND_BUGS: [(u64, &str); 7] = [
    (23, "a manager that was demoted while it was away watched itself for ever"),
    (1_000_039, "a leader that had taken itself out of the group changed the group"),
    (1_000_178, "a node was told of what came just after its removal"),
    (7_001_346, "a watch of a manager that was demoted right after its start never ended"),
    (8_000_392, "a manager whose disk failed behind a snapshot that it received did not run again"),
    (8_001_502, "a manager that missed its demotion kept the others from choosing a leader"),
    (
        10_005_796,
        "a leader that was being taken out of the group changed the group otherwise meanwhile",
    ),
];

fn from_environment(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

fn report(outcome: &Outcome) -> String {
    let mut text = format!("\nseed {} failed:\n", outcome.seed);
    for violation in outcome.violations.iter().take(SHOWN) {
        writeln!(text, "  {}: {}", violation.invariant, violation.text).unwrap();
    }
    if env::var_os("SIM_LOG").is_some() {
        let end = outcome.log.len().saturating_sub(LINES);
        outcome.log[end..].iter().for_each(|line| writeln!(text, "    {line}").unwrap());
    }
    writeln!(text, "replay: cargo xtask sim --seeds 1 --first-seed {}", outcome.seed).unwrap();
    text
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures of a run")]
fn every_seed_holds_every_invariant() {
    let (first, count) =
        (from_environment("SIM_FIRST_SEED", 1), from_environment("SIM_SEEDS", SEEDS));
    let began = Instant::now();
    let (next, calls) = (AtomicU64::new(first), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run(seed, None);
                    calls.fetch_add(outcome.calls as u64, Ordering::Relaxed);
                    if !outcome.violations.is_empty() {
                        println!("{}", report(&outcome));
                        failures.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_unstable();
    let (seconds, calls) = (began.elapsed().as_secs_f64(), calls.into_inner());
    println!(
        "{count} seeds from {first}, {calls} calls, {seconds:.1} s: {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "seeds that failed: {failures:?}");
}

#[test]
fn seeds_that_found_a_bug_once_hold_every_invariant() {
    for (seed, bug) in FOUND_BUGS {
        let outcome = run(seed, None);
        assert!(outcome.violations.is_empty(), "once, {bug}\n{}", report(&outcome));
    }
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in [7, 8, 9] {
        let [one, other] = [run(seed, None), run(seed, None)];
        let differs = one.log.iter().zip(&other.log).position(|(one, other)| one != other);
        let around = |log: &[String], line: usize| log[line.saturating_sub(20)..=line].join("\n");
        if let Some(line) = differs {
            let (one, other) = (around(&one.log, line), around(&other.log, line));
            panic!("seed {seed}, line {line}:\n{one}\n\n{other}");
        }
        assert_eq!(one.log.len(), other.log.len(), "seed {seed}");
    }
}
