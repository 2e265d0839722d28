//! Numbered datagrams at a steady rate, each of which is to come back once.

use core::{net::Ipv4Addr, time::Duration};
use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;
use smoltcp::{
    iface::SocketHandle,
    socket::udp,
    wire::{IpAddress, IpEndpoint},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{ECHO_PORT, Guest, stack::udp_socket};

/// How long answers may take after the last datagram was sent.
const LINGER: Duration = Duration::from_secs(2);

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    /// Numbers that did not come back.
    pub(crate) lost: u64,
    /// Answers to a number that had been answered before, or was never sent.
    pub(crate) surplus: u64,
    /// Longest time between two answers.
    pub(crate) longest_gap: Duration,
}

/// A stream that runs until it is ended.
#[derive(Debug)]
pub(crate) struct Stream {
    end: watch::Sender<bool>,
    task: JoinHandle<Result<Report>>,
}

impl Stream {
    /// Starts to send a number from `guest` to the UDP echo port of `to`, one every `pace`.
    pub(crate) fn start(guest: &Arc<Guest>, to: Ipv4Addr, pace: Duration) -> Self {
        let end = watch::Sender::new(false);
        let task = tokio::spawn(run(Arc::clone(guest), to, pace, end.subscribe()));
        Self { end, task }
    }

    /// Stops sending, waits for the last answers.
    pub(crate) async fn end(self) -> Result<Report> {
        self.end.send_replace(true);
        self.task.await?
    }
}

async fn run(
    guest: Arc<Guest>,
    to: Ipv4Addr,
    pace: Duration,
    end: watch::Receiver<bool>,
) -> Result<Report> {
    let socket = guest.open(|stack| {
        let port = stack.next_port();
        Ok(stack.sockets.add(udp_socket(port)))
    })?;
    let mut numbers = Numbers::new();
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ended = None;
    loop {
        ticks.tick().await;
        let is_over = *end.borrow();
        numbers.tick(&guest, socket.handle, (!is_over).then_some(to));
        if is_over {
            let since = *ended.get_or_insert_with(Instant::now);
            if numbers.open.is_empty() || since.elapsed() > LINGER {
                return Ok(numbers.report());
            }
        }
    }
}

struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
    surplus: u64,
    last_answer: Instant,
    longest_gap: Duration,
}

impl Numbers {
    fn new() -> Self {
        Self {
            next: 0,
            open: BTreeSet::new(),
            surplus: 0,
            last_answer: Instant::now(),
            longest_gap: Duration::ZERO,
        }
    }

    /// Takes the answers that came, and sends the next number to `to`.
    fn tick(&mut self, guest: &Guest, handle: SocketHandle, to: Option<Ipv4Addr>) {
        let mut stack = guest.shared.stack();
        let socket = stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        while let Ok((bytes, _)) = socket.recv() {
            let number = bytes.try_into().map(u64::from_be_bytes);
            if number.is_ok_and(|number| self.open.remove(&number)) {
                self.longest_gap = self.longest_gap.max(self.last_answer.elapsed());
                self.last_answer = Instant::now();
            } else {
                self.surplus += 1;
            }
        }
        if let Some(to) = to {
            let to = IpEndpoint::new(IpAddress::Ipv4(to), ECHO_PORT);
            // One that finds no room counts as lost.
            let _ = socket.send_slice(&self.next.to_be_bytes(), to);
            self.open.insert(self.next);
            self.next += 1;
        }
        if stack.turn() {
            guest.shared.kick.notify_one();
        }
    }

    fn report(&self) -> Report {
        Report {
            sent: self.next,
            lost: self.open.len() as u64,
            surplus: self.surplus,
            longest_gap: self.longest_gap,
        }
    }
}
