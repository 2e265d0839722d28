//! When what is due.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::identity::Identity;

/// A timer of ours; foca's are kept beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Every greeting period: greet addresses that should be members and are not.
    Greet,
    /// Every exchange period: exchange everything with a random member.
    Exchange,
    /// While a member is doubted: the first doubt that runs out.
    Doubt,
    /// While leaving: say so once more.
    Leave,
}

impl Timer {
    const COUNT: usize = 4;
    const ALL: [Self; Self::COUNT] = [Self::Greet, Self::Exchange, Self::Doubt, Self::Leave];
}

/// What fired.
#[derive(Debug)]
pub(crate) enum Fired {
    Ours(Timer),
    Foca(foca::Timer<Identity>),
}

/// All timers of one member.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    ours: [Option<Instant>; Timer::COUNT],
    /// At most a few per member: probe cycle, a suspicion, the reminder to forget a dead one.
    foca: BinaryHeap<Reverse<FocaTimer>>,
    sequence: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.ours[timer as usize] = Some(at);
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.ours[timer as usize] = None;
    }

    pub(crate) fn clear_foca(&mut self) {
        self.foca.clear();
    }

    pub(crate) fn clear_all(&mut self) {
        self.ours = [None; Timer::COUNT];
        self.clear_foca();
    }

    pub(crate) fn add_foca(&mut self, at: Instant, timer: foca::Timer<Identity>) {
        self.sequence += 1;
        self.foca.push(Reverse(FocaTimer { at, sequence: self.sequence, timer }));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let foca = self.foca.peek().map(|Reverse(first)| first.at);
        self.ours.iter().copied().flatten().chain(foca).min()
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn fire(&mut self, now: Instant) -> Option<Fired> {
        let next = self.next().filter(|at| *at <= now)?;
        if let Some(timer) = Timer::ALL.into_iter().find(|t| self.ours[*t as usize] == Some(next)) {
            self.clear(timer);
            return Some(Fired::Ours(timer));
        }
        self.foca.pop().map(|Reverse(first)| Fired::Foca(first.timer))
    }

    /// Moves everything later.
    pub(crate) fn postpone(&mut self, by: Duration) {
        for at in self.ours.iter_mut().flatten() {
            *at += by;
        }
        let foca = std::mem::take(&mut self.foca).into_vec();
        self.foca =
            foca.into_iter().map(|Reverse(t)| Reverse(FocaTimer { at: t.at + by, ..t })).collect();
    }
}

#[derive(Debug)]
struct FocaTimer {
    at: Instant,
    sequence: u64,
    timer: foca::Timer<Identity>,
}

impl PartialEq for FocaTimer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for FocaTimer {}

impl PartialOrd for FocaTimer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FocaTimer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // foca says which of its timers goes first when several are due at once.
        (self.at, &self.timer, self.sequence).cmp(&(other.at, &other.timer, other.sequence))
    }
}
