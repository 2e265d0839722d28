//! Later fragments of translated packets: they have no ports, so the first one's flow is kept.

use core::{net::IpAddr, time::Duration};
use std::{collections::VecDeque, time::Instant};

use overlay_types::Vni;

use super::{rewrite::End, transit::Packet};

/// Packets whose later fragments are awaited. Fragments follow one another closely, so the oldest
/// of these is out of date under any load that a table of this size could matter for.
const MAX_PENDING: usize = 256;

/// How long later fragments are awaited: the reassembly time of Linux.
const LIFETIME: Duration = Duration::from_secs(30);

/// What the fragments of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FragmentKey {
    vni: Vni,
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    protocol: u8,
}

impl FragmentKey {
    /// The key of `packet`, if it is a fragment.
    pub(super) fn of(vni: Vni, packet: &Packet<'_>) -> Option<Self> {
        let seen = &packet.seen;
        let (identification, _) = seen.fragment?;
        let (source, destination) = (seen.source, seen.destination);
        let protocol = seen.protocol;
        Some(Self { vni, source, destination, identification, protocol })
    }
}

/// What the first fragment was translated to.
#[derive(Debug, Clone, Copy)]
pub(super) struct FragmentFate {
    pub(super) source: End,
    pub(super) destination: End,
}

/// Fates by fragment key, oldest first.
#[derive(Debug, Default)]
pub(super) struct FragmentTable(VecDeque<(FragmentKey, FragmentFate, Instant)>);

impl FragmentTable {
    pub(super) fn insert(&mut self, key: FragmentKey, fate: FragmentFate, now: Instant) {
        while self.0.len() >= MAX_PENDING
            || self.0.front().is_some_and(|(_, _, since)| now.duration_since(*since) > LIFETIME)
        {
            self.0.pop_front();
        }
        self.0.push_back((key, fate, now));
    }

    pub(super) fn find(&self, key: &FragmentKey, now: Instant) -> Option<FragmentFate> {
        let alive = |since: &Instant| now.duration_since(*since) <= LIFETIME;
        let mut newest_first = self.0.iter().rev();
        newest_first.find(|(k, _, since)| k == key && alive(since)).map(|(_, fate, _)| *fate)
    }
}
