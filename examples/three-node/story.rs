//! What the reader sees: steps, what was done in them, what was measured.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::{fmt::Display, time::Duration};

use tokio::time::Instant;

/// Columns of the text in front of a measured value.
const COLUMN: usize = 66;

/// The narration of one run.
#[derive(Debug)]
pub(crate) struct Story {
    began: Instant,
    steps: u32,
}

impl Story {
    pub(crate) fn begin(title: &str) -> Self {
        println!("{title}");
        Self { began: Instant::now(), steps: 0 }
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        let seconds = self.began.elapsed().as_secs_f64();
        println!("\n[{seconds:4.1} s]  {}. {title}", self.steps);
    }

    /// Something is so.
    pub(crate) fn tell(&self, text: impl Display) {
        println!("{}", format!("          {text}").trim_end());
    }

    /// Something was measured.
    pub(crate) fn measured(&self, what: impl Display, value: impl Display) {
        let what = format!("{what} ");
        println!("          {what:.<COLUMN$} {value}");
    }

    pub(crate) fn end(&self) {
        let seconds = self.began.elapsed().as_secs_f64();
        println!("\n[{seconds:4.1} s]  All of it holds.");
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
