//! Each checker can fail: with a bug planted for it, a few seeds find it.

use crate::{child::run, plant::Plant};

/// Seeds that are tried for each bug.
const SEEDS: u64 = 100;

fn check(plant: Plant, invariant: &str) {
    let found = (1..=SEEDS).find(|seed| {
        run(*seed, Some(plant)).violations.iter().any(|found| found.invariant == invariant)
    });
    assert!(found.is_some(), "{SEEDS} seeds with {plant:?} all held {invariant}");
}

#[test]
fn disks_that_lie_are_seen_to_lose_writes() {
    check(Plant::LyingDisks, "durable");
}

#[test]
fn disks_that_lie_are_seen_to_give_an_address_twice() {
    check(Plant::LyingDisks, "unique-address");
}

#[test]
fn disks_that_lie_are_seen_to_make_two_histories() {
    check(Plant::LyingDisks, "one-history");
}

#[test]
fn stale_reads_are_seen() {
    check(Plant::StaleReads, "linearizable");
}

#[test]
fn writes_repeated_as_new_ones_are_seen() {
    check(Plant::FreshRequestIds, "exactly-once");
}

#[test]
fn lost_batches_are_seen() {
    check(Plant::LostBatches, "converged");
}

#[test]
fn managers_that_do_not_begin_are_seen() {
    check(Plant::DeafNodes, "membership");
}

#[test]
fn removed_nodes_that_are_let_in_are_seen() {
    check(Plant::StolenCertificates, "barred");
}

#[test]
fn rotations_that_do_not_end_are_seen() {
    check(Plant::MuteWorkers, "rotation-ends");
}

#[test]
fn views_thrown_away_are_seen() {
    check(Plant::ForgetfulWorkers, "headless");
}
