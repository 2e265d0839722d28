//! A flow of VIP translation: which backend it has, until it ends.
//!
//! ```text
//!            client's first packet
//!                     │
//!                 ┌───▼───┐ reply   ┌─────────────┐ FIN, SHUTDOWN  ┌─────────┐
//!                 │opening├────────►│ established ├───────────────►│ closing │
//!                 └───┬───┘         └──────┬──────┘                └────┬────┘
//!                     │ RST, ABORT         │ RST, ABORT                 │ RST, second FIN
//!                     └──────────┬─────────┴────────────────────────────┘
//!                             ┌──▼───┐
//!                             │closed│   each state ends by idling for its time
//!                             └──────┘
//! ```

use core::{
    hash::{Hash, Hasher},
    net::IpAddr,
    time::Duration,
};
use std::time::Instant;

use overlay_types::{MacAddr, Vni};

use super::{hash::mix, rewrite::End, tables::address_bits};
use crate::wire::{
    protocol, sctp,
    tcp::{self, flag},
};

/// Idle times after which a flow is forgotten; those of Linux' connection tracking.
mod idle {
    use core::time::Duration;

    pub(super) const OPENING: Duration = Duration::from_mins(1);
    pub(super) const TCP: Duration = Duration::from_hours(5 * 24);
    pub(super) const UDP: Duration = Duration::from_mins(2);
    pub(super) const SCTP: Duration = Duration::from_hours(5 * 24);
    pub(super) const CLOSING: Duration = Duration::from_mins(2);
    pub(super) const CLOSED: Duration = Duration::from_secs(10);
}

/// What names the packets of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowKey {
    source: u128,
    destination: u128,
    ports: u32,
    vni_and_protocol: u32,
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(self.source);
        hasher.write_u128(self.destination);
        hasher.write_u64(u64::from(self.ports) << 32 | u64::from(self.vni_and_protocol));
    }
}

impl FlowKey {
    pub(super) fn new(vni: Vni, protocol: u8, source: End, destination: End) -> Self {
        Self {
            source: address_bits(source.0),
            destination: address_bits(destination.0),
            ports: u32::from(source.1) << 16 | u32::from(destination.1),
            vni_and_protocol: vni.get() << 8 | u32::from(protocol),
        }
    }

    /// A hash that is the same on every node and after every restart, for the backend's choice.
    pub(super) fn stable_hash(&self) -> u64 {
        let source = mix(self.source as u64, (self.source >> 64) as u64);
        let destination = mix(self.destination as u64, (self.destination >> 64) as u64);
        mix(
            mix(source, destination),
            u64::from(self.ports) << 32 | u64::from(self.vni_and_protocol),
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Established,
    /// One side has sent its FIN: the client, or not.
    Closing {
        by_client: bool,
    },
    Closed,
}

/// Which side of a flow a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// A flow from a client here to a backend anywhere.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// The client as it sees itself.
    pub(super) client: End,
    /// The virtual address and port that it talks to; the backend's own where the flow is kept only
    /// because the client's port is taken there.
    pub(super) vip: End,
    /// The client as the backend sees it.
    pub(super) seen_as: End,
    /// The backend.
    pub(super) backend: End,
    pub(super) backend_mac: MacAddr,
    /// Generation of the tables that the backend was last found in.
    pub(super) generation: u64,
    pub(super) protocol: u8,
    vni: Vni,
    state: State,
    pub(super) deadline: Instant,
    /// Number of this flow among all; tells it from a later one in its slot.
    pub(super) serial: u64,
}

/// What a new flow is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewFlow {
    pub(super) vni: Vni,
    pub(super) protocol: u8,
    pub(super) client: End,
    pub(super) vip: End,
    /// The address that the backend shall see: the client's, or the VIP where client and backend
    /// are one endpoint.
    pub(super) seen_as: IpAddr,
    pub(super) backend: IpAddr,
    pub(super) backend_mac: MacAddr,
    pub(super) generation: u64,
}

impl Flow {
    /// A flow whose client has sent its first packet.
    pub(super) fn new(new: NewFlow, serial: u64, now: Instant) -> Self {
        Self {
            client: new.client,
            vip: new.vip,
            seen_as: (new.seen_as, new.client.1),
            backend: (new.backend, new.vip.1),
            backend_mac: new.backend_mac,
            generation: new.generation,
            protocol: new.protocol,
            vni: new.vni,
            state: State::Opening,
            deadline: now + idle::OPENING,
            serial,
        }
    }

    pub(super) fn forward_key(&self) -> FlowKey {
        FlowKey::new(self.vni, self.protocol, self.client, self.vip)
    }

    pub(super) fn reverse_key(&self) -> FlowKey {
        FlowKey::new(self.vni, self.protocol, self.backend, self.seen_as)
    }

    pub(super) fn is_loop(&self) -> bool {
        self.client.0 == self.backend.0
    }

    pub(super) fn is_direct(&self) -> bool {
        self.vip == self.backend
    }

    /// Whether nobody has answered the client yet.
    pub(super) fn is_unanswered(&self) -> bool {
        self.state == State::Opening
    }

    /// Notes a packet of the flow.
    pub(super) fn touch(&mut self, side: Side, signal: Signal, now: Instant) {
        self.step(side, signal);
        self.deadline = now + self.idle_time();
    }

    /// Whether a packet with this signal starts a connection anew on the entry of one that ended.
    pub(super) fn is_over(&self, signal: Signal, now: Instant) -> bool {
        self.deadline <= now
            || (signal == Signal::Begin
                && matches!(self.state, State::Closing { .. } | State::Closed))
    }

    fn idle_time(&self) -> Duration {
        match (self.state, self.protocol) {
            (State::Closed, _) => idle::CLOSED,
            (State::Closing { .. }, _) => idle::CLOSING,
            (State::Opening, _) => idle::OPENING,
            (State::Established, protocol::TCP) => idle::TCP,
            (State::Established, protocol::SCTP) => idle::SCTP,
            (State::Established, _) => idle::UDP,
        }
    }

    fn step(&mut self, side: Side, signal: Signal) {
        self.state = match (self.state, signal) {
            (_, Signal::Abort) | (State::Closed, _) => State::Closed,
            (State::Closing { by_client }, Signal::End) if by_client != (side == Side::Client) => {
                State::Closed
            }
            (State::Opening | State::Established, Signal::End) => {
                State::Closing { by_client: side == Side::Client }
            }
            (State::Opening, _) if side == Side::Backend => State::Established,
            (state, _) => state,
        };
    }
}

/// What a packet says about the life of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// A new connection begins.
    Begin,
    /// Nothing.
    None,
    /// One side is done.
    End,
    /// The connection is over.
    Abort,
}

impl Signal {
    /// The signal in a packet of `protocol`, whose transport header starts `transport`.
    pub(super) fn of(protocol: u8, transport: &[u8]) -> Self {
        match protocol {
            protocol::TCP => match transport.get(tcp::FLAGS_AT) {
                Some(flags) if flags & flag::RST != 0 => Self::Abort,
                Some(flags) if flags & flag::FIN != 0 => Self::End,
                Some(flags) if flags & (flag::SYN | flag::ACK) == flag::SYN => Self::Begin,
                _ => Self::None,
            },
            protocol::SCTP => match transport.get(sctp::HEADER_LEN).copied() {
                Some(sctp::chunk::ABORT) => Self::Abort,
                Some(sctp::chunk::SHUTDOWN_COMPLETE) => Self::End,
                Some(sctp::chunk::INIT) => Self::Begin,
                _ => Self::None,
            },
            _ => Self::None,
        }
    }
}
