//! How many joins are looked at. Each costs a signature and, if it is refused, nothing to whoever
//! sent it.
//!
//! A bucket holds `burst` joins and gets a new one each `interval`; one bucket is everyone's, and
//! each source has one of its own. A bucket is kept as the time at which it is full again (GCRA, as
//! in ATM's I.371): one instant, and no timer.

use core::{net::IpAddr, time::Duration};
use std::{collections::BTreeMap, time::Instant};

use crate::ca::tls::source_of;

/// Sources that are remembered. All together refill one of them in less than the time that it takes
/// to come from as many others, so only clocks that stand still fill the table.
const MAX_SOURCES: usize = 4096;

/// How fast one bucket empties and fills.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinRate {
    /// Joins at once.
    pub burst: u32,
    /// Time until one more.
    pub interval: Duration,
}

/// Limits of joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinLimits {
    /// From one host (IPv6: one /64). Default: 256 at once and 64 a second, for a rack behind one
    /// address that is switched on.
    pub per_source: JoinRate,
    /// From all. Default: 1024 at once and 256 a second: each costs some 0.3 ms of a processor.
    pub total: JoinRate,
}

impl Default for JoinLimits {
    fn default() -> Self {
        let rate =
            |burst, per_second| JoinRate { burst, interval: Duration::from_secs(1) / per_second };
        Self { per_source: rate(256, 64), total: rate(1024, 256) }
    }
}

/// Too many joins; the next one is looked at after `wait`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyJoins {
    /// All of them together were too many, not those of this source.
    pub total: bool,
    /// When it makes sense to try again.
    pub wait: Duration,
}

/// Counts of joins by what the limiter said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JoinCounts {
    /// Looked at.
    pub passed: u64,
    /// Turned away because of the source.
    pub limited_source: u64,
    /// Turned away because of all sources together.
    pub limited_total: u64,
}

/// Decides which joins are looked at.
#[derive(Clone, Debug)]
pub struct JoinLimiter {
    limits: JoinLimits,
    /// When each bucket is full again; one that is full is forgotten.
    sources: BTreeMap<IpAddr, Instant>,
    total: Option<Instant>,
    counts: JoinCounts,
}

impl JoinLimiter {
    /// Full buckets.
    pub fn new(limits: JoinLimits) -> Self {
        Self { limits, sources: BTreeMap::new(), total: None, counts: JoinCounts::default() }
    }

    /// Lets a join of `source` pass at `now`, or says when to come again. What is turned away is
    /// charged to nobody.
    pub fn handle_join(&mut self, source: IpAddr, now: Instant) -> Result<(), TooManyJoins> {
        let source = source_of(source);
        let JoinLimits { per_source, total } = self.limits;
        let own = per_source.take(self.sources.get(&source).copied(), now).map_err(|wait| {
            self.counts.limited_source += 1;
            TooManyJoins { total: false, wait }
        })?;
        let all = total.take(self.total, now).and_then(|all| {
            if self.has_room(source, now) { Ok(all) } else { Err(per_source.interval) }
        });
        let all = all.map_err(|wait| {
            self.counts.limited_total += 1;
            TooManyJoins { total: true, wait }
        })?;
        self.sources.insert(source, own);
        self.total = Some(all);
        self.counts.passed += 1;
        Ok(())
    }

    /// The counts so far.
    pub const fn counts(&self) -> JoinCounts {
        self.counts
    }

    fn has_room(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, full_at| *full_at > now);
        }
        self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source)
    }
}

impl JoinRate {
    /// When the bucket that is full again at `full_at` would be so after one more join, or how long
    /// to wait for that join.
    fn take(self, full_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let next = full_at.map_or(now, |at| at.max(now)) + self.interval;
        let over = next.duration_since(now).saturating_sub(self.interval * self.burst);
        if over.is_zero() { Ok(next) } else { Err(over) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> JoinLimiter {
        JoinLimiter::new(JoinLimits {
            per_source: JoinRate { burst: 2, interval: Duration::from_secs(10) },
            total: JoinRate { burst: 3, interval: Duration::from_secs(1) },
        })
    }

    /// `second source outcome`, where the outcome is `ok`, or who is full and for how many seconds.
    #[test]
    fn c02_joins_are_limited_by_source_and_in_total() {
        let table = "\
            0 192.0.2.1 ok
            0 192.0.2.1 ok
            0 192.0.2.1 source 10
            4 192.0.2.1 source 6
            10 192.0.2.1 ok
            10 192.0.2.1 source 10
            10 192.0.2.2 ok
            10 192.0.2.3 ok
            10 192.0.2.4 total 1
            11 192.0.2.4 ok
            11 ::ffff:192.0.2.1 source 9
            100 2001:db8::1 ok
            100 2001:db8::2 ok
            100 2001:db8::3 source 10
            100 2001:db8:0:1::3 ok
            100 2001:db8:0:2::3 total 1";
        let start = tokio::time::Instant::now().into_std();
        let mut limiter = limiter();
        for line in table.lines() {
            let mut columns = line.split_whitespace();
            let mut column = || columns.next().unwrap();
            let now = start + Duration::from_secs(column().parse().unwrap());
            let found = match limiter.handle_join(column().parse().unwrap(), now) {
                Ok(()) => "ok".to_owned(),
                Err(TooManyJoins { total: false, wait }) => format!("source {}", wait.as_secs()),
                Err(TooManyJoins { total: true, wait }) => format!("total {}", wait.as_secs()),
            };
            assert!(line.ends_with(&format!(" {found}")), "{line}: {found}");
        }
        let counts = JoinCounts { passed: 9, limited_source: 5, limited_total: 2 };
        assert_eq!(limiter.counts(), counts);
    }

    #[test]
    fn c02_the_table_of_sources_is_bounded() {
        let start = tokio::time::Instant::now().into_std();
        let mut limits = JoinLimits::default();
        limits.total.burst = u32::MAX;
        limits.total.interval = Duration::ZERO;
        let mut limiter = JoinLimiter::new(limits);
        let source = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..MAX_SOURCES as u32 {
            limiter.handle_join(source(n), start).unwrap();
        }
        let wait = limits.per_source.interval;
        let next = limiter.handle_join(source(u32::MAX), start);
        assert_eq!(next, Err(TooManyJoins { total: true, wait }));
        // Who is known is not turned away, and buckets that are full again make room.
        limiter.handle_join(source(0), start).unwrap();
        limiter.handle_join(source(u32::MAX), start + wait).unwrap();
        assert_eq!(limiter.sources.len(), 2);
    }
}
