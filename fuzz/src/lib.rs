//! The entry points that the deterministic test of the workspace runs too.

#[path = "../../tests/fuzz_entry/entry.rs"]
pub mod entry;
