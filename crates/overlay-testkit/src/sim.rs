//! A simulated network in virtual time: loss, delay, duplication, reordering, cuts.
//!
//! ```text
//!              send / send_reliable             poll (due at `now`)
//!   host A ─────────────► fate ─► queue by time ─────────────► host B
//!                          │ link(A, B), cut(A → B), seed
//!                          └► lost
//! ```
//!
//! Pure: no sockets, no threads, and the clock moves only by [`Network::advance_to`]. All chance
//! comes from one seed, so a run replays. When a test panics, the network prints its seed and
//! the last things that crossed it.
//!
//! [`Hosts`] puts a state machine on each host and runs them all.

mod hosts;
mod link;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

pub use self::{
    hosts::{Action, Hosts, Machine},
    link::Link,
};

/// Lines of the log that a failing test prints; enough to see a probe cycle of a few hosts.
const LOG_LINES: usize = 60;

/// First wait of the modelled stream before it sends again (RFC 6298 allows 1 s, Linux does 200 ms).
const RETRANSMIT_FIRST: Duration = Duration::from_millis(200);

/// Retransmissions after which a modelled stream gives up; 15 is Linux's `tcp_retries2`, and no
/// reader of this crate waits for the minutes that would take.
const RETRANSMIT_MAX: u32 = 7;

/// How a payload was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// May be lost, doubled, overtaken.
    Datagram,
    /// Arrives once, later for each loss, or never.
    Stream,
}

/// Something that arrives now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<P> {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// How.
    pub carrier: Carrier,
    /// What.
    pub payload: P,
}

/// What happened to everything that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Payloads handed to the network.
    pub sent: u64,
    /// Copies handed out by [`Network::poll`].
    pub delivered: u64,
    /// Payloads that the link lost.
    pub lost: u64,
    /// Payloads that met a cut, when sent or while under way.
    pub cut: u64,
}

/// The network: links between hosts, what is under way, and the clock.
pub struct Network<P> {
    seed: u64,
    rng: Xoshiro256PlusPlus,
    start: Instant,
    now: Instant,
    default_link: Link,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    queue: BinaryHeap<Reverse<UnderWay<P>>>,
    sequence: u64,
    tally: Tally,
    log: VecDeque<LogLine>,
}

impl<P: Clone> Network<P> {
    /// A network without hosts, where every pair is joined by `link`.
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other constructor; only differences to this origin are used"
    )]
    pub fn new(seed: u64, link: Link) -> Self {
        let start = Instant::now();
        Self {
            seed,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            start,
            now: start,
            default_link: link,
            links: BTreeMap::new(),
            cuts: BTreeSet::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            tally: Tally::default(),
            log: VecDeque::with_capacity(LOG_LINES),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// A number from the network's seed, for whoever needs chance of his own.
    pub fn draw(&mut self) -> u64 {
        self.rng.random()
    }

    /// An index below `len`, from the network's seed.
    ///
    /// # Panics
    /// When `len` is 0.
    pub fn pick(&mut self, len: usize) -> usize {
        self.rng.random_range(0..len)
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Joins every pair that has no link of its own by `link`.
    pub fn set_default_link(&mut self, link: Link) {
        self.default_link = link;
    }

    /// Joins `from` to `to`, in this direction, by `link`.
    pub fn set_link(&mut self, from: IpAddr, to: IpAddr, link: Link) {
        self.links.insert((from, to), link);
    }

    /// From now on nothing gets from any of `from` to any of `to`, what is under way included. The
    /// other direction stays.
    pub fn cut_one_way(&mut self, from: &[IpAddr], to: &[IpAddr]) {
        self.cuts.extend(from.iter().flat_map(|a| to.iter().map(|b| (*a, *b))));
    }

    /// Cuts both directions between the two groups.
    pub fn partition(&mut self, one: &[IpAddr], other: &[IpAddr]) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Removes all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Sends a datagram.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: P) {
        self.tally.sent += 1;
        let link = self.link(from, to);
        if self.is_cut(from, to) {
            self.tally.cut += 1;
            self.note(Fate::Cut, Carrier::Datagram, from, to);
            return;
        }
        if self.chance(link.loss) {
            self.tally.lost += 1;
            self.note(Fate::Lost, Carrier::Datagram, from, to);
            return;
        }
        let copies = if self.chance(link.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.delay(&link);
            if self.chance(link.reordering) {
                delay += link.delay.end().mul_f64(self.rng.random_range(0.0..10.0));
            }
            self.enqueue(delay, Carrier::Datagram, from, to, payload.clone());
        }
    }

    /// Sends a message over a stream of its own: a handshake and the message, each loss of either
    /// costs a retransmission timeout that doubles. A cut swallows it.
    pub fn send_reliable(&mut self, from: SocketAddr, to: SocketAddr, payload: P) {
        self.tally.sent += 1;
        if self.is_cut(from, to) || self.is_cut(to, from) {
            self.tally.cut += 1;
            self.note(Fate::Cut, Carrier::Stream, from, to);
            return;
        }
        let (there, back) = (self.link(from, to), self.link(to, from));
        let mut delay = Duration::ZERO;
        for crossed in [&there, &back, &there] {
            delay += self.delay(crossed);
            let mut retransmissions = 0;
            while self.chance(crossed.stream_loss) {
                if retransmissions == RETRANSMIT_MAX {
                    self.tally.lost += 1;
                    self.note(Fate::Lost, Carrier::Stream, from, to);
                    return;
                }
                delay += RETRANSMIT_FIRST * 2_u32.pow(retransmissions);
                retransmissions += 1;
            }
        }
        self.enqueue(delay, Carrier::Stream, from, to, payload);
    }

    /// When the next payload arrives.
    pub fn next_delivery(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(first)| first.at)
    }

    /// Moves the clock; never back.
    pub fn advance_to(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The next payload that has arrived by now.
    pub fn poll(&mut self) -> Option<Delivery<P>> {
        while self.next_delivery().is_some_and(|at| at <= self.now) {
            let Reverse(UnderWay { delivery, .. }) = self.queue.pop()?;
            let (from, to, carrier) = (delivery.from, delivery.to, delivery.carrier);
            if self.is_cut(from, to) {
                self.tally.cut += 1;
                self.note(Fate::Cut, carrier, from, to);
                continue;
            }
            self.tally.delivered += 1;
            self.note(Fate::Delivered, carrier, from, to);
            return Some(delivery);
        }
        None
    }

    fn link(&self, from: SocketAddr, to: SocketAddr) -> Link {
        self.links.get(&(from.ip(), to.ip())).unwrap_or(&self.default_link).clone()
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cuts.contains(&(from.ip(), to.ip()))
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share.min(1.0))
    }

    fn delay(&mut self, link: &Link) -> Duration {
        self.rng.random_range(link.delay.clone())
    }

    fn enqueue(
        &mut self,
        delay: Duration,
        carrier: Carrier,
        from: SocketAddr,
        to: SocketAddr,
        payload: P,
    ) {
        self.sequence += 1;
        self.queue.push(Reverse(UnderWay {
            at: self.now + delay,
            sequence: self.sequence,
            delivery: Delivery { from, to, carrier, payload },
        }));
    }

    fn note(&mut self, fate: Fate, carrier: Carrier, from: SocketAddr, to: SocketAddr) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(LogLine { at: self.now - self.start, fate, carrier, from, to });
    }
}

impl<P> fmt::Debug for Network<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("seed", &self.seed)
            .field("elapsed", &(self.now - self.start))
            .field("under_way", &self.queue.len())
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl<P> Drop for Network<P> {
    #[expect(clippy::print_stderr, reason = "this is how a failing test says how to replay it")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("simulation failed: seed {}, after {:?}", self.seed, self.now - self.start);
        for LogLine { at, fate, carrier, from, to } in &self.log {
            eprintln!("  {at:>12.3?} {carrier:?} {from} -> {to} {fate:?}");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Delivered,
    Lost,
    Cut,
}

struct LogLine {
    at: Duration,
    fate: Fate,
    carrier: Carrier,
    from: SocketAddr,
    to: SocketAddr,
}

struct UnderWay<P> {
    at: Instant,
    sequence: u64,
    delivery: Delivery<P>,
}

impl<P> PartialEq for UnderWay<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for UnderWay<P> {}

impl<P> PartialOrd for UnderWay<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for UnderWay<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[cfg(test)]
mod tests;
