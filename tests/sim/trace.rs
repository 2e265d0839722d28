//! What happened, in order: the same in two runs of one seed.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// The log of one run. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    lines: Vec<String>,
    ticks: u64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner { start: Instant::now(), lines: Vec::new(), ticks: 0 })))
    }

    /// Notes what happened at this virtual moment.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let mut inner = self.0.lock().unwrap();
        let line = format!("{:>12?} {}", inner.start.elapsed(), what());
        inner.lines.push(line);
    }

    /// The next number: orders beginnings and ends of calls.
    pub(crate) fn tick(&self) -> u64 {
        let mut inner = self.0.lock().unwrap();
        inner.ticks += 1;
        inner.ticks
    }

    /// All that was noted.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().lines)
    }
}
