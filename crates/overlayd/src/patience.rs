//! How long the manager in use may be silent before the node leaves it.
//!
//! ```text
//!   SHORTEST ──left within STEADY──► twice as long ──► … ──► LONGEST
//!      ▲                                  │
//!      └──── a connection lasted STEADY ◄─┘
//! ```
//!
//! A manager that lost power says nothing more, and neither does one whose host has no time for it. Who
//! leaves the second kind costs the others a handshake and a view, and finds them slow too if it was not
//! alone. So a node that left twice in a short time was wrong at least once, and waits longer.

use core::time::Duration;

/// With the wait before another manager is asked, and the handshake, less than two seconds. A busy
/// manager answers within milliseconds; three retransmissions of TCP fit in, from 200 ms on.
const SHORTEST: Duration = Duration::from_millis(1400);
/// Gossip says sooner that a manager is dead.
const LONGEST: Duration = Duration::from_secs(10);
/// A connection that lasted this long was well.
pub(crate) const STEADY: Duration = Duration::from_mins(1);

/// What a node has learnt of its managers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Patience {
    /// The silence after which a new connection is given up; `draw` is between 0 and 1. Six sevenths
    /// of the time to all of it, so that the nodes of a manager neither ask it nor leave it together.
    pub(crate) fn limit(self, draw: f64) -> Duration {
        self.0.mul_f64((6.0 + draw.clamp(0.0, 1.0)) / 7.0)
    }

    /// Whether it waits longer than it should for good.
    pub(crate) fn is_long(self) -> bool {
        self.0 > SHORTEST
    }

    /// A connection was given up that had lasted this long.
    pub(crate) fn left(&mut self, lasted: Duration) {
        self.0 = if lasted < STEADY { self.0.saturating_mul(2).min(LONGEST) } else { SHORTEST };
    }

    /// A connection lasted, and is made anew.
    pub(crate) fn calm(&mut self) {
        self.0 = SHORTEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c10_who_leaves_again_and_again_waits_longer_until_a_connection_lasts() {
        let mut patience = Patience::default();
        let mut limits = Vec::new();
        for _ in 0..5 {
            limits.push(patience.limit(1.0).as_millis());
            patience.left(Duration::ZERO);
        }
        assert_eq!(limits, [1400, 2800, 5600, 10_000, 10_000]);
        assert!(patience.is_long());
        patience.left(STEADY);
        assert_eq!((patience, patience.is_long()), (Patience::default(), false));
        patience.left(Duration::ZERO);
        patience.calm();
        assert_eq!(patience, Patience::default());
    }

    #[test]
    fn c10_nodes_leave_at_different_times() {
        let limit = |draw| Patience::default().limit(draw).as_millis();
        assert_eq!((limit(0.0), limit(0.5), limit(1.0)), (1200, 1300, 1400));
        assert_eq!((limit(-7.0), limit(f64::INFINITY)), (1200, 1400));
    }
}
