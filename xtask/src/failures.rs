//! What went wrong in a run of tests, out of all that they print: for the end of a long log.

use std::io::{self, Write};

/// Lines kept of one failed test, its last ones.
const LINES: usize = 12;
/// Failed tests that are described; of the others only the number.
const TESTS: usize = 10;

/// Passes on what a libtest harness prints, and keeps what it says of failures.
pub(crate) struct Failures<W> {
    passed_on: W,
    /// The line that is not whole yet.
    line: Vec<u8>,
    part: Part,
    tests: Vec<Vec<String>>,
}

/// Where in the output we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Not in the output of a failed test.
    Between,
    /// In what a failed test printed.
    Failed,
    /// In a backtrace in there, which ends with an empty line.
    Backtrace,
}

impl<W: Write> Failures<W> {
    pub(crate) const fn new(passed_on: W) -> Self {
        Self { passed_on, line: Vec::new(), part: Part::Between, tests: Vec::new() }
    }

    /// A line with the name of each failed test, then the last lines that it printed, indented; and the
    /// test that has not ended.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut described = Vec::new();
        for test in self.tests.iter().take(TESTS) {
            let (name, printed) = test.split_first().expect("begun with its name");
            let last = &printed[printed.len().saturating_sub(LINES)..];
            described.push(name.clone());
            described.extend(last.iter().map(|line| format!("  {line}")));
        }
        if self.tests.len() > TESTS {
            described.push(format!("and {} more", self.tests.len() - TESTS));
        }
        let unfinished = String::from_utf8_lossy(&self.line);
        described.extend(unfinished.starts_with("test ").then(|| unfinished.into_owned()));
        described
    }

    fn take(&mut self, line: &str) {
        let named = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        self.part = match (named, self.part) {
            (Some(name), _) => {
                self.tests.push(vec![name.to_owned()]);
                Part::Failed
            }
            // The list of names, which ends the output of the failed tests.
            (None, _) if line == "failures:" => Part::Between,
            (None, Part::Failed) if line.eq_ignore_ascii_case("stack backtrace:") => {
                Part::Backtrace
            }
            (None, Part::Backtrace) if line.is_empty() => Part::Failed,
            (None, part) => part,
        };
        if named.is_none() && self.part == Part::Failed && !line.trim().is_empty() {
            self.tests.last_mut().expect("a test is being told").push(line.to_owned());
        }
    }
}

impl<W: Write> Write for Failures<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.passed_on.write(octets)?;
        for octet in &octets[..written] {
            if *octet == b'\n' {
                let line = core::mem::take(&mut self.line);
                self.take(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            } else {
                self.line.push(*octet);
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.passed_on.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test good ... ok
test bad ... FAILED
test worse ... FAILED

failures:

---- bad stdout ----

thread 'bad' panicked at src/lib.rs:1:2:
left and right differ
stack backtrace:
   0: core::panicking::panic

note: said after a backtrace

---- worse stdout ----
Error: it broke

Stack backtrace:
   0: anyhow::error

failures:
    bad
    worse

test result: FAILED. 1 passed; 2 failed
     Running unittests src/lib.rs
test good ... ok
";

    #[test]
    fn names_and_messages_are_kept_and_everything_is_passed_on() {
        let mut failures = Failures::new(Vec::new());
        for chunk in OUTPUT.as_bytes().chunks(7) {
            failures.write_all(chunk).unwrap();
        }
        assert_eq!(failures.passed_on, OUTPUT.as_bytes());
        let wanted = [
            "bad",
            "  thread 'bad' panicked at src/lib.rs:1:2:",
            "  left and right differ",
            "  note: said after a backtrace",
            "worse",
            "  Error: it broke",
        ];
        assert_eq!(failures.describe(), wanted);
    }

    #[test]
    fn of_much_the_last_lines_and_the_first_tests_are_kept() {
        let mut failures = Failures::new(io::sink());
        for test in 0..=TESTS {
            writeln!(failures, "---- t{test} stdout ----").unwrap();
            for line in 0..=LINES {
                writeln!(failures, "line {line}").unwrap();
            }
        }
        write!(failures, "test hangs ... ").unwrap();
        let described = failures.describe();
        assert_eq!(described.len(), TESTS * (1 + LINES) + 2);
        assert_eq!(described[..2], ["t0", "  line 1"]);
        assert_eq!(described[described.len() - 2..], ["and 1 more", "test hangs ... "]);
    }
}
