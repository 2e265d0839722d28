//! foca as its documentation shows it, with its settings for a local network.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut};
use foca::{
    AccumulatingRuntime, Codec, Config, Foca, Header, Identity, Message, NoCustomBroadcast,
    OwnedNotification, State, Timer,
};
use overlay_testkit::sim::{Action, Carrier, Delivery, Machine};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{MEMBERS, Protocol, address};

/// How often somebody who knows nobody announces himself; foca leaves this to its caller.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(1);

/// A member, and how often it came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    index: u32,
    returns: u16,
}

impl Identity for Peer {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Self { returns: self.returns + 1, ..*self })
    }

    fn addr(&self) -> u32 {
        self.index
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.returns > adversary.returns
    }
}

pub(crate) struct PlainFoca {
    foca: Foca<Peer, PeerCodec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Peer>,
    /// What is due when; the number keeps the order of those due at once.
    timers: BTreeMap<(Instant, u64), Timer<Peer>>,
    timers_set: u64,
    announce_at: Instant,
}

impl Protocol for PlainFoca {
    const NAME: &str = "foca";
    const TARGETS: [&str; 4] = [""; 4];

    fn start(index: usize, seed: u64, now: Instant) -> Self {
        let config = Config::new_lan(const { NonZeroU32::new(MEMBERS as u32).unwrap() });
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self {
            foca: Foca::new(Peer { index: index as u32, returns: 0 }, config, rng, PeerCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timers_set: 0,
            announce_at: now,
        }
    }

    fn active(&self) -> usize {
        self.foca.num_members()
    }

    fn dead(event: &Option<usize>) -> Option<usize> {
        *event
    }
}

impl Machine for PlainFoca {
    /// Who is dead, if that is what it is about.
    type Event = Option<usize>;

    fn handle_arrival(&mut self, arrival: Delivery<Vec<u8>>, _now: Instant) {
        // What foca refuses is as good as lost.
        let _ = self.foca.handle_data(&arrival.payload, &mut self.runtime);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.announce_at <= now {
            self.announce_at = now + ANNOUNCE_PERIOD;
            if self.foca.num_members() == 0 && self.foca.identity().index != 0 {
                let seed = Peer { index: 0, returns: 0 };
                self.foca.announce(seed, &mut self.runtime).expect("an announcement is encoded");
            }
        }
        while let Some(first) = self.timers.first_entry().filter(|t| t.key().0 <= now) {
            // An incomplete probe is repaired by foca itself.
            let _ = self.foca.handle_timer(first.remove(), &mut self.runtime);
        }
    }

    fn poll_action(&mut self, now: Instant) -> Action<Option<usize>> {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers_set += 1;
            self.timers.insert((now + after, self.timers_set), timer);
        }
        if let Some((to, bytes)) = self.runtime.to_send() {
            let to = address(to.index as usize);
            return Action::Send { to, carrier: Carrier::Datagram, bytes: bytes.to_vec() };
        }
        match self.runtime.to_notify() {
            Some(OwnedNotification::MemberDown(peer)) => Action::Tell(Some(peer.index as usize)),
            Some(_) => Action::Tell(None),
            None => {
                let first = self.timers.first_key_value().map(|((at, _), _)| *at);
                Action::WakeAt(first.map_or(self.announce_at, |at| at.min(self.announce_at)))
            }
        }
    }
}

/// Peers and messages in as few bytes as they need.
struct PeerCodec;

#[derive(Debug, thiserror::Error)]
#[error("does not fit, or ends too early")]
struct WrongLength;

const PEER_LEN: usize = 4 + 2;
const MEMBER_LEN: usize = PEER_LEN + 2 + 1;

fn put_peer(peer: Peer, buf: &mut impl BufMut) {
    buf.put_u32(peer.index);
    buf.put_u16(peer.returns);
}

fn get_peer(buf: &mut impl Buf) -> Result<Peer, WrongLength> {
    let index = buf.try_get_u32().map_err(|_| WrongLength)?;
    Ok(Peer { index, returns: buf.try_get_u16().map_err(|_| WrongLength)? })
}

impl Codec<Peer> for PeerCodec {
    type Error = WrongLength;

    fn encode_header(
        &mut self,
        header: &Header<Peer>,
        mut buf: impl BufMut,
    ) -> Result<(), WrongLength> {
        let (tag, probe, third) = match header.message {
            Message::Ping(probe) => (0, probe, None),
            Message::Ack(probe) => (1, probe, None),
            Message::PingReq { target, probe_number } => (2, probe_number, Some(target)),
            Message::IndirectPing { origin, probe_number } => (3, probe_number, Some(origin)),
            Message::IndirectAck { target, probe_number } => (4, probe_number, Some(target)),
            Message::ForwardedAck { origin, probe_number } => (5, probe_number, Some(origin)),
            Message::Announce => (6, 0, None),
            Message::Feed => (7, 0, None),
            Message::Gossip => (8, 0, None),
            Message::Broadcast => (9, 0, None),
            Message::TurnUndead => (10, 0, None),
        };
        put_peer(header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_peer(header.dst, &mut buf);
        buf.put_u8(tag);
        buf.put_u8(probe);
        put_peer(third.unwrap_or(header.src), &mut buf);
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Peer>, WrongLength> {
        let src = get_peer(&mut buf)?;
        let src_incarnation = buf.try_get_u16().map_err(|_| WrongLength)?;
        let dst = get_peer(&mut buf)?;
        let tag = buf.try_get_u8().map_err(|_| WrongLength)?;
        let probe_number = buf.try_get_u8().map_err(|_| WrongLength)?;
        let third = get_peer(&mut buf)?;
        let message = match tag {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: third, probe_number },
            3 => Message::IndirectPing { origin: third, probe_number },
            4 => Message::IndirectAck { target: third, probe_number },
            5 => Message::ForwardedAck { origin: third, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<Peer>,
        mut buf: impl BufMut,
    ) -> Result<(), WrongLength> {
        if buf.remaining_mut() < MEMBER_LEN {
            return Err(WrongLength);
        }
        put_peer(*member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<foca::Member<Peer>, WrongLength> {
        let peer = get_peer(&mut buf)?;
        let refutations = buf.try_get_u16().map_err(|_| WrongLength)?;
        let state = match buf.try_get_u8().map_err(|_| WrongLength)? {
            0 => State::Alive,
            1 => State::Suspect,
            _ => State::Down,
        };
        Ok(foca::Member::new(peer, refutations, state))
    }
}
