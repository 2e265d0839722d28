//! How long to wait before managers are asked again.
//!
//! ```text
//!   a manager refuses ──► SHORTEST ──► the next one … all of them refused: a round is over
//!   a round is over ────► SHORTEST for the first QUICK rounds, then twice as long each, to LONGEST
//!   a manager serves ───► from the beginning
//! ```

use core::time::Duration;

/// Between two managers, and between the first rounds: a node leaves a manager that died within two
/// seconds, whichever of the others can serve it.
const SHORTEST: Duration = Duration::from_millis(250);
/// Rounds that follow one another fast: an election takes less.
const QUICK: u32 = 4;
/// Longest wait. When the quorum is back, managers know within two seconds that a leader answers them,
/// and a round of seven takes less than two: so every node follows again within ten.
const LONGEST: Duration = Duration::from_secs(3);

/// What was asked in vain since a manager last served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backoff {
    /// Managers that refused in this round.
    refused: usize,
    /// Rounds that are over.
    rounds: u32,
}

impl Backoff {
    /// A manager serves.
    pub(crate) const fn served(&mut self) {
        *self = Self { refused: 0, rounds: 0 };
    }

    /// One of this many managers did not serve. How long to wait; `draw` is between 0 and 1.
    pub(crate) fn one_refused(&mut self, managers: usize, draw: f64) -> Duration {
        self.refused += 1;
        if self.refused < managers {
            return spread(SHORTEST, draw);
        }
        self.none_answered(draw)
    }

    /// No manager could be reached. How long to wait; `draw` is between 0 and 1.
    pub(crate) fn none_answered(&mut self, draw: f64) -> Duration {
        self.refused = 0;
        self.rounds = self.rounds.saturating_add(1);
        let doublings = self.rounds.saturating_sub(QUICK);
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        spread(SHORTEST.saturating_mul(factor).min(LONGEST), draw)
    }
}

/// Half of the time to all of it, so that nodes that lost the quorum together do not ask together.
fn spread(time: Duration, draw: f64) -> Duration {
    time.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds between what `step` asks, at the latest.
    fn waits(count: usize, mut step: impl FnMut(&mut Backoff) -> Duration) -> Vec<u128> {
        let mut backoff = Backoff::default();
        (0..count).map(|_| step(&mut backoff).as_millis()).collect()
    }

    #[test]
    fn c10_rounds_come_further_and_further_apart() {
        let doubling = [250, 250, 250, 250, 500, 1000, 2000, 3000, 3000];
        assert_eq!(waits(9, |b| b.none_answered(1.0)), doubling);
        assert_eq!(waits(9, |b| b.one_refused(1, 1.0)), doubling);
        // No manager is known yet.
        assert_eq!(waits(9, |b| b.one_refused(0, 1.0)), doubling);
        let earliest = [125, 125, 125, 125, 250, 500, 1000, 1500, 1500];
        assert_eq!(waits(9, |b| b.none_answered(0.0)), earliest);
        // Between the managers of a round it does not grow.
        let of_three: Vec<u128> = doubling.into_iter().flat_map(|wait| [250, 250, wait]).collect();
        assert_eq!(waits(27, |b| b.one_refused(3, 1.0)), of_three);
        // What a wrong draw gives is within the bounds.
        for draw in [f64::INFINITY, -7.0] {
            let wrong = waits(9, |b| b.none_answered(draw));
            let bounds = earliest.iter().zip(&doubling);
            assert!(wrong.iter().zip(bounds).all(|(w, (least, most))| least <= w && w <= most));
        }
    }

    #[test]
    fn c10_who_was_served_begins_again() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.none_answered(1.0);
        }
        backoff.one_refused(3, 1.0);
        backoff.served();
        assert_eq!(backoff, Backoff::default());
        assert_eq!(backoff.none_answered(1.0), SHORTEST);
    }

    #[test]
    fn c10_every_manager_is_asked_soon_however_long_it_was_in_vain() {
        let mut backoff = Backoff { refused: 0, rounds: u32::MAX };
        for managers in 1..=7 {
            let round: Duration = (0..managers).map(|_| backoff.one_refused(managers, 1.0)).sum();
            assert!(round <= Duration::from_secs(5), "{managers}: {round:?}");
        }
    }
}
