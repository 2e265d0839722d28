//! Simulated network and clock, namespace lab and assertions for the overlay crates' tests.
