//! Notices when the time of day jumps.

use core::{fmt, time::Duration};
use std::time::Instant;

use overlay_types::UnixMillis;

/// Less than this is the work of what keeps the clock right.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Holds the time of day against the clock that nobody sets.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    last: Option<(UnixMillis, Instant)>,
}

/// How far the time of day jumped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Jump {
    /// The clock was set forward, or the host was suspended.
    Ahead(Duration),
    /// The clock was set back.
    Back(Duration),
}

impl ClockWatch {
    /// How far the time of day jumped since the last look, if it did. It is `wall` at `now`.
    pub(crate) fn look(&mut self, wall: UnixMillis, now: Instant) -> Option<Jump> {
        let (last_wall, last) = self.last.replace((wall, now))?;
        let expected = last_wall.after(now.saturating_duration_since(last));
        let (ahead, back) = (wall.since(expected), expected.since(wall));
        if ahead > TOLERANCE {
            Some(Jump::Ahead(ahead))
        } else if back > TOLERANCE {
            Some(Jump::Back(back))
        } else {
            None
        }
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(f, "{} s ahead", by.as_secs()),
            Self::Back(by) => write!(f, "{} s back", by.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]

    use super::*;

    #[test]
    fn r07_a_clock_that_is_set_or_a_host_that_was_suspended_is_noticed_once() {
        let (mut watch, start) = (ClockWatch::default(), Instant::now());
        let mut look = |wall_s: u64, after_s: u64| {
            watch.look(UnixMillis(wall_s * 1000), start + Duration::from_secs(after_s))
        };
        assert_eq!(look(1_000_000, 0), None);
        assert_eq!(look(1_000_002, 2), None);
        assert_eq!(look(1_000_011, 4), None, "slewed");
        assert_eq!(look(1_003_613, 6), Some(Jump::Ahead(Duration::from_hours(1))));
        assert_eq!(look(1_003_615, 8), None);
        assert_eq!(look(917_217, 10), Some(Jump::Back(Duration::from_hours(24))));
        assert_eq!(look(917_219, 12), None);
    }
}
