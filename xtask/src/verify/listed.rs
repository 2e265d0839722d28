//! Exceptions that `ARCHITECTURE.md` has to name: files that read the clock, files with `unsafe`.
//!
//! The lints forbid both; these checks keep the lists in the document complete and true.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::source::Source;
use crate::report::Verdict;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// Files that may lift the ban of `clippy.toml` on clocks and sleeps. Tests may anyway.
pub(crate) fn shells(root: &Path, sources: &[Source]) -> Result<Verdict> {
    let document = read(root)?;
    let lifting: Vec<_> = sources
        .iter()
        .filter(|source| !source.is_test() && !source.lines_with("disallowed_methods").is_empty())
        .collect();
    Ok(Verdict::of_complaints(compare(&document, "## Shells", &lifting)))
}

/// Files that may lift `unsafe_code`, tests too.
pub(crate) fn unsafe_files(root: &Path, sources: &[Source]) -> Result<Verdict> {
    let document = read(root)?;
    let lifting: Vec<_> =
        sources.iter().filter(|source| !source.lines_with("unsafe_code").is_empty()).collect();
    Ok(Verdict::of_complaints(compare(&document, "## Unsafe code", &lifting)))
}

fn read(root: &Path) -> Result<String> {
    fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)
}

/// What is lifted but not listed, and listed but not lifted.
fn compare(document: &str, heading: &str, lifting: &[&Source]) -> Vec<String> {
    let Some(listed) = listed_paths(document, heading) else {
        return vec![format!("{DOCUMENT} has no `{heading}`")];
    };
    // A path that ends in `/` names all files below it.
    let names = |entry: &str, path: &str| {
        entry == path || (entry.ends_with('/') && path.starts_with(entry))
    };
    let mut complaints = Vec::new();
    for Source { path, .. } in lifting {
        if !listed.iter().any(|entry| names(entry, path)) {
            complaints.push(format!("{path} is not listed in {DOCUMENT} under `{heading}`"));
        }
    }
    for entry in &listed {
        if !lifting.iter().any(|source| names(entry, &source.path)) {
            complaints.push(format!("{entry} is listed under `{heading}`, but needs not be"));
        }
    }
    complaints
}

/// The first `code span` of each list item or table row below `heading`, where it is a path.
fn listed_paths<'a>(document: &'a str, heading: &str) -> Option<Vec<&'a str>> {
    let mut lines = document.lines();
    lines.find(|line| line.trim_end() == heading)?;
    let section = lines.take_while(|line| !line.starts_with("# ") && !line.starts_with("## "));
    let items = section.filter(|line| line.trim_start().starts_with(['-', '*', '|']));
    Some(
        items.filter_map(|item| item.split('`').nth(1)).filter(|span| span.contains('/')).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Title
## Shells
The files that read `a/clock.rs`.
- `a/io.rs`: reads `the/clock`
- `b/`
| `c/table.rs` | why |
- `now`
## Unsafe code
none
";

    #[test]
    fn the_section_lists_paths() {
        assert_eq!(listed_paths(TEXT, "## Shells").unwrap(), ["a/io.rs", "b/", "c/table.rs"]);
        assert_eq!(listed_paths(TEXT, "## Unsafe code").unwrap(), [""; 0]);
        assert_eq!(listed_paths(TEXT, "## Other"), None);
    }

    #[test]
    fn lists_and_code_must_agree() {
        let file = |path: &str| Source::new(path, "");
        let (io, below, table, new) =
            (file("a/io.rs"), file("b/x/y.rs"), file("c/table.rs"), file("a/new.rs"));
        assert_eq!(compare(TEXT, "## Shells", &[&io, &below, &table]), [""; 0]);
        assert_eq!(
            compare(TEXT, "## Shells", &[&io, &table, &new]),
            [
                "a/new.rs is not listed in ARCHITECTURE.md under `## Shells`",
                "b/ is listed under `## Shells`, but needs not be",
            ]
        );
        assert_eq!(compare(TEXT, "## Gone", &[]), ["ARCHITECTURE.md has no `## Gone`"]);
    }
}
