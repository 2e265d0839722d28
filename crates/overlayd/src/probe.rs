//! Whether this node's endpoints can take traffic: their probes, when each is due, and what follows from
//! the answers. Pure; [`task`] asks, [`ask`] is one question.
//!
//! ```text
//!   endpoints with a probe ──► Probes ──► Ask ──► (task) ──► answer ─┐
//!                                │ ▲────────────────────────────────┘
//!                                └──► what managers do not know yet ──► ReportHealth
//!
//!             passes                 fails `retries` times in a row
//!  unknown ──────────► passing ◄──────────────────────────────────► failing
//!     │                          passes as often in a row as it has to     ▲
//!     └── fails `retries` times in a row ──────────────────────────────────┘
//! ```
//!
//! An endpoint that failed has to pass once in a row, and twice as often each time that it failed again:
//! one that comes and goes is written to the log ever more seldom.

mod ask;
pub(crate) mod task;

use core::{net::IpAddr, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Instant,
};

use overlay_types::{EndpointId, HealthProbe, NodeId, Readiness, View};

/// Questions under way at once; each has a thread for a moment and a socket.
const MAX_ASKED: usize = 64;
/// Longest time between questions to an endpoint that is not known to pass: whoever starts one waits.
const SOON: Duration = Duration::from_millis(500);
/// Most answers in a row that an endpoint has to pass after it failed.
const MAX_NEEDED: u32 = 32;
/// After so many in a row it is taken for one that never failed.
const FORGIVEN: u32 = 64;
/// Endpoints of one report, as managers take them.
const MAX_REPORTED: usize = 1024;

/// What is asked, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) probe: HealthProbe,
    pub(crate) address: IpAddr,
    /// The network namespace to ask from; `None` is the daemon's own.
    pub(crate) netns: Option<PathBuf>,
}

/// What there is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Ask, and say what came of it.
    Ask(EndpointId, Target),
    /// Nothing before this time, or before an answer.
    Wait(Option<Instant>),
}

/// Endpoints by what their probes say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Report {
    pub(crate) passing: BTreeSet<EndpointId>,
    pub(crate) failing: BTreeSet<EndpointId>,
}

impl Report {
    pub(crate) fn is_empty(&self) -> bool {
        self.passing.is_empty() && self.failing.is_empty()
    }

    fn len(&self) -> usize {
        self.passing.len() + self.failing.len()
    }
}

/// All probes of this node.
#[derive(Debug, Default)]
pub(crate) struct Probes(BTreeMap<EndpointId, Known>);

#[derive(Debug)]
struct Known {
    target: Target,
    /// From then on failures count.
    counts_from: Instant,
    /// When it is asked next; `None` while it is being asked.
    due: Option<Instant>,
    tally: Tally,
}

/// What was answered so far.
#[derive(Clone, Copy, Debug)]
struct Tally {
    /// What holds; `None` before it is known.
    passes: Option<bool>,
    /// Answers in a row of one kind, and of which.
    row: (bool, u32),
    /// Answers in a row that it has to pass, now or after it fails again.
    needed: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self { passes: None, row: (false, 0), needed: 1 }
    }
}

impl Tally {
    fn take(&mut self, passed: bool, retries: u32) {
        let count = if self.row.0 == passed { self.row.1.saturating_add(1) } else { 1 };
        self.row = (passed, count);
        match (self.passes, passed) {
            (None, true) => self.passes = Some(true),
            (Some(false), true) if count >= self.needed => self.passes = Some(true),
            (Some(true), true) if count >= FORGIVEN => self.needed = 1,
            (None, false) if count >= retries => self.passes = Some(false),
            (Some(true), false) if count >= retries => {
                self.passes = Some(false);
                self.needed = (self.needed * 2).min(MAX_NEEDED);
            }
            _ => {}
        }
    }
}

impl Probes {
    /// These are the endpoints to probe from now on. One with another target begins anew.
    pub(crate) fn follow(&mut self, targets: BTreeMap<EndpointId, Target>, now: Instant) {
        self.0.retain(|id, known| targets.get(id) == Some(&known.target));
        for (id, target) in targets {
            self.0.entry(id).or_insert_with(|| Known {
                counts_from: now + target.probe.start_period,
                target,
                due: Some(now),
                tally: Tally::default(),
            });
        }
    }

    /// What to do next. Asked again until it says to wait.
    pub(crate) fn poll_output(&mut self, now: Instant) -> Output {
        let asked = self.0.values().filter(|known| known.due.is_none()).count();
        if asked >= MAX_ASKED {
            return Output::Wait(None);
        }
        let next = self.0.iter_mut().filter_map(|(id, known)| Some((known.due?, id, known)));
        match next.min_by_key(|(due, ..)| *due) {
            Some((due, id, known)) if due <= now => {
                known.due = None;
                Output::Ask(*id, known.target.clone())
            }
            next => Output::Wait(next.map(|(due, ..)| due)),
        }
    }

    /// What came of a question. Of an endpoint that is not probed any more, or whose target is another by
    /// now, it says nothing.
    pub(crate) fn handle_answer(
        &mut self,
        id: EndpointId,
        target: &Target,
        passed: bool,
        now: Instant,
    ) {
        let Some(known) = self.0.get_mut(&id) else { return };
        if known.target != *target || known.due.is_some() {
            return;
        }
        if passed || now >= known.counts_from {
            known.tally.take(passed, target.probe.retries);
        }
        let interval = target.probe.interval;
        let settled = known.tally.passes == Some(true) && passed;
        known.due = Some(now + if settled { interval } else { interval.min(SOON) });
    }

    /// What of it the managers do not know yet, as the view shows.
    pub(crate) fn report(&self, view: &View, node: NodeId) -> Report {
        let mut report = Report::default();
        for (id, known) in &self.0 {
            let endpoint = view.endpoints().get(id).filter(|endpoint| endpoint.node == node);
            let Some(readiness) = endpoint.map(|endpoint| endpoint.readiness) else { continue };
            match (known.tally.passes, readiness) {
                (Some(true), Readiness::Starting | Readiness::Failing) => {
                    report.passing.insert(*id);
                }
                (Some(false), Readiness::Ready) => {
                    report.failing.insert(*id);
                }
                _ => {}
            }
            if report.len() == MAX_REPORTED {
                break;
            }
        }
        report
    }
}

#[cfg(test)]
mod tests;
