//! What the reader sees: steps, what was done in them, what was measured.

use core::{fmt::Display, time::Duration};
use std::io::{Stdout, Write};

use tokio::time::Instant;

/// Columns of the text in front of a measured value.
const COLUMN: usize = 66;

/// The narration of one run.
#[derive(Debug)]
pub(crate) struct Story {
    out: Stdout,
    began: Instant,
    steps: u32,
}

impl Story {
    pub(crate) fn begin(title: &str) -> Self {
        let story = Self { out: std::io::stdout(), began: Instant::now(), steps: 0 };
        story.line(title);
        story
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        let (seconds, number) = (self.began.elapsed().as_secs_f64(), self.steps);
        self.line(format!("\n[{seconds:4.1} s]  {number}. {title}"));
    }

    /// Something is so.
    pub(crate) fn tell(&self, text: impl Display) {
        self.line(format!("          {text}").trim_end());
    }

    /// Something was measured.
    pub(crate) fn measured(&self, what: impl Display, value: impl Display) {
        let what = format!("{what} ");
        self.tell(format!("{what:.<COLUMN$} {value}"));
    }

    /// How it ended.
    pub(crate) fn end(&self, outcome: Result<(), &anyhow::Error>) {
        let seconds = self.began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => self.line(format!("\n[{seconds:4.1} s]  All of it holds.")),
            Err(error) => self.line(format!("\n[{seconds:4.1} s]  FAILED: {error:#}")),
        }
    }

    fn line(&self, text: impl Display) {
        // Nobody reads any more: the exit code still tells.
        let _ = writeln!(self.out.lock(), "{text}");
    }
}

/// A duration in the unit that reads best.
pub(crate) fn shown(time: Duration) -> String {
    match time.as_micros() {
        0..1_000 => format!("{} µs", time.as_micros()),
        1_000..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
