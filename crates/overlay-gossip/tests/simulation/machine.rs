//! Gossip as a machine on a simulated host. The bench of gossip has this file, too.

use std::time::Instant;

use overlay_gossip::{Event, Gossip, Output};
use overlay_testkit::sim::{Action, Carrier, Delivery, Machine};

/// A member on a simulated host.
pub(crate) struct Member(pub(crate) Gossip);

impl Machine for Member {
    type Event = Event;

    fn handle_arrival(&mut self, arrival: Delivery<Vec<u8>>, now: Instant) {
        let Delivery { from, carrier, payload, .. } = arrival;
        match carrier {
            Carrier::Datagram => self.0.handle_datagram(from, &payload, now),
            Carrier::Stream => self.0.handle_stream_message(from, &payload, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_action(&mut self, now: Instant) -> Action<Event> {
        match self.0.poll_output(now) {
            Output::SendDatagram { to, bytes } => {
                Action::Send { to, carrier: Carrier::Datagram, bytes }
            }
            Output::SendStream { to, bytes } => {
                Action::Send { to, carrier: Carrier::Stream, bytes }
            }
            Output::Event(event) => Action::Tell(event),
            Output::WakeAt(at) => Action::WakeAt(at),
            Output::Gone => Action::Stop,
        }
    }
}
