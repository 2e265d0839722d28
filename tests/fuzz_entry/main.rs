//! Every decoder of bytes from strangers, run on damaged bytes: the same entry points as
//! `cargo fuzz`, with a fixed seed and a fixed number of cases.
//!
//! A sample must be accepted untouched; damaged, it may be refused, but nothing may panic, and
//! what a decoder accepts must have the properties that the entry points assert.

#[expect(unreachable_pub, reason = "public to the fuzz targets, which include this file")]
mod entry;
mod mutation;
mod samples;

use std::panic::{self, RefUnwindSafe};

use mutation::Mutations;

/// Damaged cases for each entry point.
const CASES: usize = 20_000;

/// Any other would do; this one is written down so that a failure repeats.
const SEED: u64 = 0x0a00_00fe;

/// Runs `entry` on all `samples` and on damaged ones; how many of the damaged it accepted.
fn check(entry: impl Fn(&[u8]) -> bool + RefUnwindSafe, samples: &[Vec<u8>]) -> usize {
    for sample in samples {
        assert!(entry(sample), "sample {} is refused", sample.escape_ascii());
    }
    let mut accepted = 0;
    for case in Mutations::new(samples, SEED).take(CASES) {
        let outcome = panic::catch_unwind(|| entry(&case));
        accepted += usize::from(outcome.unwrap_or_else(|_| {
            panic!("an entry point panicked, see above, on b\"{}\"", case.escape_ascii())
        }));
    }
    accepted
}

/// Like [`check`], for an entry that must accept nothing but the samples as they are.
fn check_sealed(entry: fn(&[u8]) -> bool, samples: &[Vec<u8>]) {
    let refuses_forgeries = |case: &[u8]| {
        let accepted = entry(case);
        assert!(!accepted || samples.iter().any(|sample| sample == case), "a forgery was opened");
        accepted
    };
    check(refuses_forgeries, samples);
}

#[test]
fn specs_survive_damaged_text() {
    let accepted = check(entry::specs, &samples::specs());
    assert!(accepted > 0, "no damaged text is a spec: the samples are too brittle to test with");
}

#[test]
fn the_switch_survives_damaged_datagrams() {
    let accepted = check(entry::vxlan, &samples::vxlan());
    assert!(accepted > 0, "damage to payload does not concern the switch");
}

#[test]
fn the_switch_survives_damaged_frames() {
    let accepted = check(entry::frame, &samples::frames());
    assert!(accepted > 0, "damage to payload does not concern the switch");
}

#[test]
fn esp_opens_nothing_but_what_was_sealed() {
    check_sealed(entry::esp, &samples::esp());
}

#[test]
fn gossip_opens_nothing_but_what_was_sealed() {
    check_sealed(entry::gossip, &samples::gossip());
}

#[test]
fn gossip_survives_members_that_seal_nonsense() {
    let accepted = check(entry::gossip_message, &samples::gossip_messages());
    assert!(accepted > 0, "no damaged message is heard: the samples are too brittle to test with");
}

#[test]
fn names_survive_damaged_text() {
    let accepted = check(entry::dns_name, &samples::dns_names());
    assert!(accepted > 0, "no damaged name has records: the samples are too brittle to test with");
}

#[test]
fn the_name_server_survives_damaged_messages() {
    let accepted = check(entry::dns_message, &samples::dns_messages());
    assert!(accepted > 0, "no damaged message is answered: the samples are too brittle");
}

#[test]
fn esp_survives_peers_that_seal_nonsense() {
    let accepted = check(entry::esp_text, &samples::esp_texts());
    assert!(accepted > 0, "damage to payload does not concern ESP");
}
