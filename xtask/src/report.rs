//! Named pieces of work, each with a verdict and how long it took.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Result, bail};

/// What came of a piece of work, and lines for its reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    state: State,
    details: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Skipped,
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Fail => "FAIL",
        }
    }
}

impl Verdict {
    pub(crate) fn ok() -> Self {
        Self { state: State::Ok, details: Vec::new() }
    }

    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self { state: State::Skipped, details: vec![why.into()] }
    }

    pub(crate) fn fail(why: impl Into<String>) -> Self {
        Self { state: State::Fail, details: vec![why.into()] }
    }

    /// Fails when there is a complaint.
    pub(crate) fn of_complaints(complaints: Vec<String>) -> Self {
        let state = if complaints.is_empty() { State::Ok } else { State::Fail };
        Self { state, details: complaints }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.state == State::Ok
    }

    fn print_details(&self) {
        for line in self.details.iter().flat_map(|detail| detail.lines()) {
            println!("    {line}");
        }
    }

    /// The same verdict with more to read.
    pub(crate) fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(notes);
        self
    }
}

/// The verdicts so far. Prints each as it comes.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

struct Line {
    name: String,
    verdict: Verdict,
    elapsed: Duration,
}

impl Report {
    /// Does `work`, whatever came of the work before it, and prints one line and its details.
    pub(crate) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<Verdict>) {
        print!("{name:<18} ");
        let _ = io::stdout().flush(); // only so that a person sees what is being waited for
        self.judge(name, work);
    }

    /// Like [`Report::check`], for work that prints while it runs.
    pub(crate) fn stage(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        self.judge(name, || work().map(|()| Verdict::ok()));
    }

    fn judge(&mut self, name: &str, work: impl FnOnce() -> Result<Verdict>) {
        let started = now();
        let verdict = work().unwrap_or_else(|error| Verdict::fail(format!("{error:#}")));
        let elapsed = now() - started;
        println!("{:<8} {:>7.1} s", verdict.state.word(), elapsed.as_secs_f64());
        verdict.print_details();
        self.lines.push(Line { name: name.to_owned(), verdict, elapsed });
    }

    /// All verdicts once more, one line each, and why what failed did: the end of a long log is what
    /// people read, or all that they are shown.
    pub(crate) fn print_summary(&self) {
        println!("\n== summary");
        for Line { name, verdict, elapsed } in &self.lines {
            println!("{:<8} {:>7.1} s  {name}", verdict.state.word(), elapsed.as_secs_f64());
        }
        for Line { name, verdict, .. } in self.failed() {
            println!("\n== {name}: {}", verdict.state.word());
            verdict.print_details();
        }
    }

    fn failed(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.verdict.state == State::Fail)
    }

    /// An error that names what failed.
    pub(crate) fn finish(self) -> Result<()> {
        let failed: Vec<_> = self.failed().map(|line| line.name.as_str()).collect();
        if !failed.is_empty() {
            bail!("{} of {} failed: {}", failed.len(), self.lines.len(), failed.join(", "));
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a report says how long its work took")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_runs_and_failures_are_named() {
        let mut report = Report::default();
        let mut ran = 0;
        report.check("breaks", || bail!("no"));
        report.check("complains", || Ok(Verdict::of_complaints(vec!["a line".into()])));
        report.check("passes", || Ok(Verdict::of_complaints(Vec::new())));
        report.check("skips", || Ok(Verdict::skipped("not installed")));
        report.stage("counts", || {
            ran += 1;
            Ok(())
        });
        assert_eq!(ran, 1);
        let error = report.finish().unwrap_err().to_string();
        assert_eq!(error, "2 of 5 failed: breaks, complains");
    }

    #[test]
    fn notes_do_not_fail() {
        let verdict = Verdict::ok().with_notes(["long, but allowed".to_owned()]);
        assert_eq!(verdict.state, State::Ok);
    }
}
