//! The entry points that the deterministic test of the workspace runs too.

#[path = "../../tests/fuzz_entry"]
mod fuzz_entry {
    pub mod entry;
}

pub use fuzz_entry::entry;
