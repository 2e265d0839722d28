//! What was carried with each peer: the kernel's figures end with their association.

use std::collections::BTreeMap;

use overlay_types::NodeId;

use super::association::{Found, Place};
use crate::sa::PeerTraffic;

/// Sums over associations that came and went.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// What each association that is there has been counted with.
    counted: BTreeMap<Place, PeerTraffic>,
    of_peers: BTreeMap<NodeId, PeerTraffic>,
}

impl Traffic {
    /// Counts what came since the last time. Tells of each association its peer, what it shows, and
    /// whether it is opened with. What an association carried between the last look and its end is not
    /// counted.
    pub(super) fn count(&mut self, found: impl Iterator<Item = (NodeId, Found, bool)>) {
        let before = core::mem::take(&mut self.counted);
        let mut of_peers = BTreeMap::new();
        for (peer, found, inward) in found {
            let shown = shown(&found, inward);
            let since = before.get(&found.place).and_then(|before| since(&shown, before));
            let sum = of_peers.entry(peer);
            let sum = sum.or_insert_with(|| self.of_peers.get(&peer).copied().unwrap_or_default());
            // One that was made anew begins again.
            *sum += since.unwrap_or(shown);
            self.counted.insert(found.place, shown);
        }
        self.of_peers = of_peers;
    }

    pub(super) const fn of_peers(&self) -> &BTreeMap<NodeId, PeerTraffic> {
        &self.of_peers
    }
}

fn shown(found: &Found, inward: bool) -> PeerTraffic {
    let (packets, bytes) = (found.packets, found.octets);
    if !inward {
        return PeerTraffic { packets_out: packets, bytes_out: bytes, ..PeerTraffic::default() };
    }
    PeerTraffic {
        packets_in: packets,
        bytes_in: bytes,
        replays: found.replays.into(),
        bad_tags: found.bad_tags.into(),
        ..PeerTraffic::default()
    }
}

/// What came since `before`; `None` when it is less.
fn since(shown: &PeerTraffic, before: &PeerTraffic) -> Option<PeerTraffic> {
    Some(PeerTraffic {
        packets_in: shown.packets_in.checked_sub(before.packets_in)?,
        bytes_in: shown.bytes_in.checked_sub(before.bytes_in)?,
        packets_out: shown.packets_out.checked_sub(before.packets_out)?,
        bytes_out: shown.bytes_out.checked_sub(before.bytes_out)?,
        replays: shown.replays.checked_sub(before.replays)?,
        bad_tags: shown.bad_tags.checked_sub(before.bad_tags)?,
        unknown_spis: 0,
    })
}

#[cfg(test)]
mod tests {
    use overlay_types::Spi;

    use super::*;

    #[test]
    fn o04_sums_outlive_associations() {
        let peer = NodeId::from_u128(2);
        let found = |spi: u32, packets: u64, bad_tags: u32| {
            let place = Place { destination: [192, 0, 2, 1].into(), spi: Spi::new(spi).unwrap() };
            Found { packets, bad_tags, ..Found::fresh(place, [192, 0, 2, 2].into(), 0, 0) }
        };
        let mut traffic = Traffic::default();
        let of_peer = |traffic: &Traffic| {
            let sum = traffic.of_peers()[&peer];
            (sum.packets_in, sum.bad_tags)
        };
        for (found, sum) in [
            (found(300, 5, 0), (5, 0)),
            (found(300, 7, 1), (7, 1)),
            // Made anew by hand, and then another epoch.
            (found(300, 2, 0), (9, 1)),
            (found(400, 4, 2), (13, 3)),
        ] {
            traffic.count([(peer, found, true)].into_iter());
            assert_eq!(of_peer(&traffic), sum);
        }
        traffic.count(core::iter::empty());
        assert!(traffic.of_peers().is_empty(), "the peer is gone");
    }
}
