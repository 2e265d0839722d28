//! The task that drives the core.

use std::{net::SocketAddr, time::Instant};

use overlay_types::NodeId;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    Addresses, Command, Members,
    stream::{self, Arrival},
};
use crate::{
    config::MAX_DATAGRAM,
    core::{Event, Gossip, Output},
    counters::DropReason,
    identity::MemberState,
};

/// Datagrams that are read before timers and commands get their turn.
const READ_BATCH: usize = 64;

pub(super) struct Task {
    gossip: Gossip,
    udp: UdpSocket,
    local: SocketAddr,
    members: watch::Sender<Members>,
    addresses: watch::Sender<Addresses>,
    events: broadcast::Sender<Event>,
    /// Messages being written; bounded, and aborted with the task.
    writers: JoinSet<Result<(), DropReason>>,
    /// What makes no event, as it was last published.
    published: (usize, u128),
}

/// What is known about all members, this node included.
pub(super) fn snapshot(gossip: &Gossip) -> Members {
    let mut members: Members = gossip.members().map(|(id, state)| (id.node, state)).collect();
    let me: NodeId = gossip.identity().node;
    members.insert(me, if gossip.is_gone() { MemberState::Left } else { MemberState::Alive });
    members
}

/// How many members are known, and who is suspected: other numbers where these are others.
fn silent_news(gossip: &Gossip) -> (usize, u128) {
    gossip.members().fold((0, 0), |(count, suspected), (id, state)| {
        let is_suspect = state == MemberState::Suspect;
        (count + 1, suspected ^ if is_suspect { id.node.to_u128() } else { 0 })
    })
}

/// Where the other members are that are not dead.
fn addresses(gossip: &Gossip) -> Addresses {
    let active = gossip.members().filter(|(_, state)| state.is_active());
    active.map(|(id, _)| (id.node, id.address)).collect()
}

impl Task {
    pub(super) fn new(
        gossip: Gossip,
        udp: UdpSocket,
        local: SocketAddr,
        (members, addresses): (watch::Sender<Members>, watch::Sender<Addresses>),
        events: broadcast::Sender<Event>,
    ) -> Self {
        let writers = JoinSet::new();
        Self { gossip, udp, local, members, addresses, events, writers, published: (0, 0) }
    }

    /// Runs until the node has left or its handle is gone.
    pub(super) async fn run(mut self, tcp: TcpListener, mut commands: mpsc::Receiver<Command>) {
        let (arrivals, mut arrived) = mpsc::channel(stream::WAITING);
        let mut listener = JoinSet::new();
        listener.spawn(stream::accept(tcp, arrivals));
        let mut buffer = [0; MAX_DATAGRAM + 1];
        while let Some(wake) = self.act() {
            tokio::select! {
                _ = self.udp.readable() => self.read_datagrams(&mut buffer),
                Some(arrival) = arrived.recv() => self.take_arrival(arrival),
                Some(written) = self.writers.join_next() => {
                    if let Ok(Err(reason)) = written {
                        self.gossip.count_drops(reason, 1);
                    }
                }
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = sleep_until(wake.into()) => self.gossip.handle_timeout(Instant::now()),
            }
        }
    }

    /// Does what the core wants done; says when it wants to be woken, if ever.
    fn act(&mut self) -> Option<Instant> {
        let mut changed = false;
        let wake = loop {
            match self.gossip.poll_output(Instant::now()) {
                Output::SendDatagram { to, bytes } => {
                    // A full socket buffer loses the datagram; the protocol lives with loss.
                    if self.udp.try_send_to(&bytes, to).is_err() {
                        self.gossip.count_drops(DropReason::SendFailed, 1);
                    }
                }
                Output::SendStream { to, bytes } => {
                    if self.writers.len() < stream::MAX_OUTGOING {
                        self.writers.spawn(stream::send_message(self.local.ip(), to, bytes));
                    } else {
                        self.gossip.count_drops(DropReason::TooManyStreams, 1);
                    }
                }
                Output::Event(event) => {
                    tracing::debug!(?event, "gossip");
                    changed = true;
                    // Without a subscriber there is nobody to tell.
                    let _ = self.events.send(event);
                }
                Output::WakeAt(at) => break Some(at),
                Output::Gone => break None,
            }
        };
        // The dead that were only heard of make no event, nor do suspicions, but are known.
        let known = silent_news(&self.gossip);
        if changed || known != self.published {
            self.published = known;
            self.members.send_replace(snapshot(&self.gossip));
            let addresses = addresses(&self.gossip);
            self.addresses.send_if_modified(|known| {
                let differ = *known != addresses;
                *known = addresses;
                differ
            });
        }
        wake
    }

    fn read_datagrams(&mut self, buffer: &mut [u8]) {
        for _ in 0..READ_BATCH {
            match self.udp.try_recv_from(buffer) {
                Ok((length, from)) => {
                    self.gossip.handle_datagram(from, &buffer[..length], Instant::now());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // A port that was unreachable for an earlier datagram; the next read goes on.
                Err(error) => tracing::trace!(%error, "gossip receive"),
            }
        }
    }

    fn take_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message { from, bytes } => {
                self.gossip.handle_stream_message(from, &bytes, Instant::now());
            }
            Arrival::Dropped(reason) => self.gossip.count_drops(reason, 1),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Announce(seeds) => self.gossip.announce(seeds),
            Command::MembersHint(addresses) => self.gossip.set_members_hint(addresses),
            Command::Keys(keys) => self.gossip.set_keys(keys),
            Command::Removed(nodes, answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.gossip.set_removed(nodes, Instant::now()));
            }
            Command::Counters(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(*self.gossip.counters());
            }
            Command::Leave => self.gossip.leave(Instant::now()),
        }
    }
}
