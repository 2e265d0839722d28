//! Lists that a message names in part.

use core::fmt;

/// How many items of a list a rejection names before it counts the rest.
const SHOWN: usize = 8;

/// The first few of many as a message names them, and how many more there are. Keeps a rejection
/// small, which is replicated like any answer.
pub(in crate::state) fn some_of(items: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut items = items.into_iter();
    let mut shown: Vec<String> = items.by_ref().take(SHOWN).collect();
    match items.count() {
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    shown
}

pub(super) struct List<'a>(pub(super) &'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.0.join(", "))
    }
}
