//! Hosts on the simulated network, each with a state machine.
//!
//! ```text
//!   Network ── Delivery ──► Machine::handle_arrival ─┐
//!   clock ──── wake ──────► Machine::handle_timeout ─┴─► poll_action ──► Network, events, wake
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Carrier, Delivery, Network};

/// A protocol core: what a shell with sockets and a clock would drive.
pub trait Machine {
    /// What it tells.
    type Event;

    /// Takes what has arrived.
    fn handle_arrival(&mut self, arrival: Delivery<Vec<u8>>, now: Instant);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// What to do next; asked until it is [`Action::WakeAt`] or [`Action::Stop`].
    fn poll_action(&mut self, now: Instant) -> Action<Self::Event>;
}

/// What a machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<E> {
    /// Send these bytes.
    Send {
        /// To whom.
        to: SocketAddr,
        /// How.
        carrier: Carrier,
        /// What.
        bytes: Vec<u8>,
    },
    /// Tell this.
    Tell(E),
    /// Nothing until then, or until something arrives.
    WakeAt(Instant),
    /// Nothing ever again.
    Stop,
}

/// All hosts and their network.
pub struct Hosts<M: Machine> {
    /// What is between them.
    pub net: Network<Vec<u8>>,
    list: Vec<Host<M>>,
    /// Only looked up in: its order decides nothing.
    by_address: HashMap<SocketAddr, usize>,
    wakes: BTreeSet<(Instant, usize)>,
}

struct Host<M: Machine> {
    address: SocketAddr,
    machine: Option<M>,
    events: Vec<(Duration, M::Event)>,
    wake: Option<Instant>,
}

impl<M: Machine> Hosts<M> {
    /// Hosts at these addresses, numbered from 0, on which nothing runs.
    pub fn new(net: Network<Vec<u8>>, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let host = |address| Host { address, machine: None, events: Vec::new(), wake: None };
        let list: Vec<_> = addresses.into_iter().map(host).collect();
        let by_address = list.iter().enumerate().map(|(index, h)| (h.address, index)).collect();
        Self { net, list, by_address, wakes: BTreeSet::new() }
    }

    /// Where a host is.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.list[index].address
    }

    /// Gives a host another address. What is under way to the old one is lost.
    pub fn move_to(&mut self, index: usize, address: SocketAddr) {
        self.by_address.remove(&self.list[index].address);
        self.by_address.insert(address, index);
        self.list[index].address = address;
    }

    /// Puts a machine on a host, in place of what ran there, and does what it wants done.
    pub fn start(&mut self, index: usize, machine: M) {
        self.list[index].machine = Some(machine);
        self.act(index);
    }

    /// Takes the machine off its host. It can be put back by [`start`](Self::start).
    ///
    /// # Panics
    /// When nothing runs there.
    pub fn stop(&mut self, index: usize) -> M {
        self.set_wake(index, None);
        self.list[index].machine.take().expect("the host runs")
    }

    /// The machine on a host.
    ///
    /// # Panics
    /// When nothing runs there.
    pub fn machine(&self, index: usize) -> &M {
        self.list[index].machine.as_ref().expect("the host runs")
    }

    /// Does something to a machine, then what it wants done.
    ///
    /// # Panics
    /// When nothing runs there.
    pub fn with<R>(&mut self, index: usize, act: impl FnOnce(&mut M, Instant) -> R) -> R {
        let now = self.net.now();
        let result = act(self.list[index].machine.as_mut().expect("the host runs"), now);
        self.act(index);
        result
    }

    /// The hosts on which something runs.
    pub fn running(&self) -> Vec<usize> {
        (0..self.list.len()).filter(|index| self.list[*index].machine.is_some()).collect()
    }

    /// What was told: by which host, how long after the network's start, what. Hosts in order, and
    /// what each told in order.
    pub fn events(&self) -> impl Iterator<Item = (usize, Duration, &M::Event)> + '_ {
        self.list.iter().enumerate().flat_map(|(index, host)| {
            host.events.iter().map(move |(at, event)| (index, *at, event))
        })
    }

    /// Forgets what was told so far.
    pub fn forget_events(&mut self) {
        for host in &mut self.list {
            host.events.clear();
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.net.now() + time;
        while self.net.now() < end {
            self.step(end);
        }
    }

    /// Goes to the next thing that happens, but not beyond `limit`.
    fn step(&mut self, limit: Instant) {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let next = [wake, self.net.next_delivery()].into_iter().flatten().min();
        self.net.advance_to(next.map_or(limit, |next| next.min(limit)));
        let now = self.net.now();
        while let Some(delivery) = self.net.poll() {
            let Some(index) = self.by_address.get(&delivery.to).copied() else { continue };
            if let Some(machine) = self.list[index].machine.as_mut() {
                machine.handle_arrival(delivery, now);
                self.act(index);
            }
        }
        while let Some((_, index)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.with(index, M::handle_timeout);
        }
    }

    fn act(&mut self, index: usize) {
        let (now, elapsed) = (self.net.now(), self.net.elapsed());
        let host = &mut self.list[index];
        let Some(machine) = host.machine.as_mut() else { return };
        let wake = loop {
            match machine.poll_action(now) {
                Action::Send { to, carrier: Carrier::Datagram, bytes } => {
                    self.net.send(host.address, to, bytes);
                }
                Action::Send { to, carrier: Carrier::Stream, bytes } => {
                    self.net.send_reliable(host.address, to, bytes);
                }
                Action::Tell(event) => host.events.push((elapsed, event)),
                Action::WakeAt(at) => break Some(at),
                Action::Stop => break None,
            }
        };
        self.set_wake(index, wake);
    }

    fn set_wake(&mut self, index: usize, wake: Option<Instant>) {
        let old = std::mem::replace(&mut self.list[index].wake, wake);
        if old == wake {
            return;
        }
        if let Some(old) = old {
            self.wakes.remove(&(old, index));
        }
        self.wakes.extend(wake.map(|at| (at, index)));
    }
}
