//! Rules about files: how long, how named, how finished.

use super::{functions::functions, source::Source};
use crate::report::Verdict;

/// Lines at which a file must be split.
const FILE_LIMIT: usize = 800;

/// Lines at which its author should think about it.
const FILE_THINK: usize = 500;

/// Longest function, in lines.
const FUNCTION_LIMIT: usize = 70;

/// Names that say nothing about what is inside.
const VAGUE_NAMES: [&str; 5] = ["common", "helpers", "manager", "misc", "utils"];

/// What a mark of later looks like.
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "#[ignore"];

pub(crate) fn file_sizes(sources: &[Source]) -> Verdict {
    let mut complaints = Vec::new();
    let mut notes = Vec::new();
    for Source { path, code } in sources {
        match code.lines().count() {
            lines if lines > FILE_LIMIT => {
                complaints.push(format!("{path}: {lines} lines, at most {FILE_LIMIT}: split it"));
            }
            lines if lines > FILE_THINK => notes.push(format!("{path}: {lines} lines")),
            _ => {}
        }
    }
    Verdict::of_complaints(complaints).with_notes(notes)
}

pub(crate) fn function_sizes(sources: &[Source]) -> Verdict {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let long = functions(&source.code).into_iter().filter(|f| f.lines > FUNCTION_LIMIT);
        complaints.extend(long.map(|f| {
            let path = &source.path;
            format!("{path}:{}: fn {}: {} lines, at most {FUNCTION_LIMIT}", f.line, f.name, f.lines)
        }));
    }
    Verdict::of_complaints(complaints)
}

pub(crate) fn file_names(sources: &[Source]) -> Verdict {
    let vague = sources.iter().filter(|source| {
        let path = source.path.trim_end_matches(".rs");
        path.split('/').any(|part| VAGUE_NAMES.contains(&part))
    });
    let complaint = |s: &Source| format!("{}: name it after what is inside", s.path);
    Verdict::of_complaints(vague.map(complaint).collect())
}

/// Code and tests that were put off.
pub(crate) fn unfinished(sources: &[Source]) -> Verdict {
    let mut complaints = Vec::new();
    for source in sources {
        for mark in UNFINISHED {
            let lines = source.lines_with(mark);
            complaints.extend(lines.iter().map(|line| format!("{}:{line}: {mark}", source.path)));
        }
    }
    Verdict::of_complaints(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_function(lines: usize) -> String {
        format!("fn long() {{\n{}}}", "    a();\n".repeat(lines - 2))
    }

    /// One file, `rule`, and what it says about the file.
    fn check(rule: fn(&[Source]) -> Verdict, path: &str, text: &str, expected: &Verdict) {
        assert_eq!(rule(&[Source::new(path, text)]), *expected, "{path}");
    }

    #[test]
    fn files_are_measured() {
        check(file_sizes, "a.rs", &"a\n".repeat(500), &Verdict::ok());
        let note = "a.rs: 800 lines".to_owned();
        check(file_sizes, "a.rs", &"a\n".repeat(800), &Verdict::ok().with_notes([note]));
        let split = Verdict::fail("tests.rs: 801 lines, at most 800: split it");
        check(file_sizes, "tests.rs", &"a\n".repeat(801), &split);
    }

    #[test]
    fn functions_are_measured_except_in_tests() {
        check(function_sizes, "a.rs", &long_function(70), &Verdict::ok());
        let long = Verdict::fail("a.rs:1: fn long: 71 lines, at most 70");
        check(function_sizes, "a.rs", &long_function(71), &long);
        check(function_sizes, "examples/a.rs", &long_function(71), &Verdict::ok());
    }

    #[test]
    fn vague_names_are_refused() {
        let vague = |path: &str| Verdict::fail(format!("{path}: name it after what is inside"));
        for path in ["crates/a/src/utils.rs", "crates/a/src/common/mod.rs"] {
            check(file_names, path, "", &vague(path));
        }
        check(file_names, "crates/a/src/manager_key.rs", "", &Verdict::ok());
    }

    #[test]
    fn unfinished_code_is_found() {
        let text = "fn a() {\n    todo!()\n}\n// todo!\n#[ignore = \"slow\"]\n#[ignored]";
        let found = ["a.rs:2: todo!", "a.rs:5: #[ignore"].map(str::to_owned);
        check(unfinished, "a.rs", text, &Verdict::of_complaints(found.to_vec()));
    }
}
