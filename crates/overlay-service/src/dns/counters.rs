//! What became of the queries of a server.

use core::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
};

/// Numbers since the server started. Each query ends in one of those behind `queries`, so that
/// their sum is less than `queries` only by what is on its way to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Messages that came in.
    pub queries: u64,
    /// Answered from the directory, also with no record or NXDOMAIN.
    pub answered: u64,
    /// Answered by an upstream.
    pub forwarded: u64,
    /// Answered as an upstream did before.
    pub cached: u64,
    /// Refused: no way out, or a kind of question that is never answered.
    pub refused: u64,
    /// SERVFAIL: no upstream answered, or too many questions wait for one.
    pub failed: u64,
    /// Not a query that can be read.
    pub malformed: u64,
}

impl Counts {
    /// What became of queries, each outcome with its number.
    pub fn outcomes(self) -> impl Iterator<Item = (Outcome, u64)> {
        [
            (Outcome::Answered, self.answered),
            (Outcome::Forwarded, self.forwarded),
            (Outcome::Cached, self.cached),
            (Outcome::Refused, self.refused),
            (Outcome::Failed, self.failed),
            (Outcome::Malformed, self.malformed),
        ]
        .into_iter()
    }
}

impl AddAssign for Counts {
    /// Sums over several servers.
    fn add_assign(&mut self, other: Self) {
        self.queries += other.queries;
        self.answered += other.answered;
        self.forwarded += other.forwarded;
        self.cached += other.cached;
        self.refused += other.refused;
        self.failed += other.failed;
        self.malformed += other.malformed;
    }
}

/// What became of a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered from the directory, also with no record or NXDOMAIN.
    Answered,
    /// Answered by an upstream.
    Forwarded,
    /// Answered as an upstream did before.
    Cached,
    /// Refused: no way out, or a kind of question that is never answered.
    Refused,
    /// SERVFAIL: no upstream answered, or too many questions wait for one.
    Failed,
    /// Not a query that can be read.
    Malformed,
}

impl Outcome {
    /// A short stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    queries: AtomicU64,
    answered: AtomicU64,
    forwarded: AtomicU64,
    cached: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    malformed: AtomicU64,
}

impl Counters {
    pub(super) fn query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Answered => &self.answered,
            Outcome::Forwarded => &self.forwarded,
            Outcome::Cached => &self.cached,
            Outcome::Refused => &self.refused,
            Outcome::Failed => &self.failed,
            Outcome::Malformed => &self.malformed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            queries: read(&self.queries),
            answered: read(&self.answered),
            forwarded: read(&self.forwarded),
            cached: read(&self.cached),
            refused: read(&self.refused),
            failed: read(&self.failed),
            malformed: read(&self.malformed),
        }
    }
}
