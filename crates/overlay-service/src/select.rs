//! Which backend takes a flow, and that it keeps it.
//!
//! ```text
//! flow ──► pinned to a backend that is still there? ──yes──► that one
//!                        │ no
//!                        └──► highest score of (flow, backend) ──► pinned
//! ```
//!
//! Rendezvous hashing (Thaler, Ravishankar 1998): without pins, a backend that leaves moves only
//! its own flows, and one that comes takes 1/n of all. Pins keep also those where they were, and
//! on a backend that drains, which gets no new ones.
//!
//! ```
//! # use core::{hash::BuildHasher, num::NonZeroUsize, time::Duration};
//! # use std::{collections::{BTreeSet, hash_map::RandomState}, time::Instant};
//! # use overlay_service::{FlowHash, FlowPins, virtual_services};
//! # use overlay_types::{ServiceId, View};
//! # let (view, dead, web) = (View::default(), BTreeSet::new(), ServiceId::from_u128(1));
//! # let (client, vip): (std::net::SocketAddr, std::net::SocketAddr) =
//! #     ("10.0.1.9:40000".parse()?, "10.0.1.2:80".parse()?);
//! # let now = Instant::now();
//! let key = RandomState::new();
//! let mut pins = FlowPins::new(NonZeroUsize::new(65_536).unwrap(), Duration::from_secs(900), now);
//! // Again after each change of the view:
//! let services = virtual_services(&view, &dead, web);
//! // For each packet to a virtual address:
//! if let Some(service) = services.iter().find(|s| s.virtual_addresses.contains(vip.ip())) {
//!     let flow = FlowHash(key.hash_one(("tcp", client, vip)));
//!     let backend = pins.select(flow, service, vip.ip(), now);
//! }
//! # Ok::<_, std::net::AddrParseError>(())
//! ```

use core::{net::IpAddr, num::NonZeroUsize, time::Duration};
use std::{collections::HashMap, time::Instant};

use overlay_types::EndpointId;

use crate::{
    shuffle::mix,
    table::{Backend, VirtualService},
};

/// Names a flow: a hash of its addresses, protocol and ports under a key that peers do not know.
///
/// Flows with the same value share a backend, which does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// The backend of `service` for a new flow to its virtual address `to`: the one with the
    /// highest score among those with an address of that family that take new flows. Looks at each
    /// backend once.
    fn choose(self, service: &VirtualService, to: IpAddr) -> Option<&Backend> {
        let able = |b: &&Backend| !b.draining && b.address_like(to).is_some();
        let able = service.backends.iter().filter(able);
        able.max_by_key(|b| self.score(b.endpoint))
    }

    fn score(self, endpoint: EndpointId) -> u64 {
        let id = endpoint.to_u128();
        mix(mix(self.0 ^ (id >> 64) as u64).wrapping_add(id as u64))
    }
}

/// Backends that flows were given, for [`FlowPins::select`].
///
/// Two generations: a pin that is used moves to the young one; when that is full or old enough it
/// becomes the former one, and what was left there is forgotten. So memory is bounded, each step
/// takes constant time, and a pin lasts at least one idle time unless more flows than fit come.
#[derive(Clone, Debug)]
pub struct FlowPins {
    young: HashMap<FlowHash, EndpointId>,
    former: HashMap<FlowHash, EndpointId>,
    /// Most pins of a generation.
    half: usize,
    idle: Duration,
    turned_at: Instant,
}

impl FlowPins {
    /// Holds at most `capacity` pins, rounded up to an even number, of flows that were silent for
    /// less than `idle`; some stay up to twice as long.
    pub fn new(capacity: NonZeroUsize, idle: Duration, now: Instant) -> Self {
        Self {
            young: HashMap::new(),
            former: HashMap::new(),
            half: capacity.get().div_ceil(2),
            idle,
            turned_at: now,
        }
    }

    /// Number of pins.
    pub fn len(&self) -> usize {
        self.young.len() + self.former.len()
    }

    /// Whether no flow is pinned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The backend for a packet of `flow` to the virtual address `to` of `service`.
    ///
    /// `None` if no backend that may take it has an address of that family.
    pub fn select<'a>(
        &mut self,
        flow: FlowHash,
        service: &'a VirtualService,
        to: IpAddr,
        now: Instant,
    ) -> Option<&'a Backend> {
        self.turn(now);
        let pinned = self.young.get(&flow).or_else(|| self.former.get(&flow)).copied();
        let backend = pinned
            .and_then(|id| service.backends.binary_search_by_key(&id, |b| b.endpoint).ok())
            .map(|place| &service.backends[place])
            .filter(|backend| backend.address_like(to).is_some())
            .or_else(|| flow.choose(service, to));
        self.former.remove(&flow);
        match backend {
            Some(backend) => self.pin(flow, backend.endpoint),
            None => drop(self.young.remove(&flow)),
        }
        backend
    }

    fn pin(&mut self, flow: FlowHash, backend: EndpointId) {
        if self.young.len() >= self.half && !self.young.contains_key(&flow) {
            self.former = core::mem::take(&mut self.young);
        }
        self.young.insert(flow, backend);
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.turned_at);
        if age < self.idle {
            return;
        }
        self.former = core::mem::take(&mut self.young);
        if age >= self.idle * 2 {
            self.former.clear();
        }
        self.turned_at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use overlay_types::{NetworkId, NodeId, ServiceId};
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::addresses;

    const VIP: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2));
    const IDLE: Duration = Duration::from_mins(1);

    fn with(backends: impl IntoIterator<Item = u128>) -> VirtualService {
        let backends = backends.into_iter().map(|id| Backend {
            endpoint: EndpointId::from_u128(id),
            node: NodeId::from_u128(1),
            addresses: addresses(&["10.0.0.9"]),
            draining: false,
        });
        VirtualService {
            network: NetworkId::from_u128(1),
            service: ServiceId::from_u128(1),
            virtual_addresses: addresses(&["10.0.0.2"]),
            backends: backends.collect(),
        }
    }

    fn chosen(flow: u64, service: &VirtualService) -> u128 {
        FlowHash(flow).choose(service, VIP).unwrap().endpoint.to_u128()
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn pins(capacity: usize) -> (FlowPins, Instant) {
        let now = Instant::now();
        (FlowPins::new(NonZeroUsize::new(capacity).unwrap(), IDLE, now), now)
    }

    #[test]
    fn s01_flows_spread_evenly() {
        let service = with(0..10);
        let mut flows: BTreeMap<u128, u32> = BTreeMap::new();
        (0..100_000).for_each(|flow| *flows.entry(chosen(flow, &service)).or_default() += 1);
        // Standard deviation is 95.
        assert!(flows.values().all(|n| (9_500..10_500).contains(n)), "{flows:?}");
    }

    #[test]
    fn s01_a_backend_that_leaves_moves_only_its_own_flows() {
        let (all, fewer) = (with(0..10), with((0..10).filter(|id| *id != 4)));
        for flow in 0..10_000 {
            let before = chosen(flow, &all);
            assert!(before == 4 || chosen(flow, &fewer) == before);
        }
    }

    #[test]
    fn s01_pinned_flows_stay_through_scaling() {
        let (mut pins, now) = pins(2000);
        let mut backend = |flow, service: &VirtualService| {
            pins.select(FlowHash(flow), service, VIP, now).unwrap().endpoint
        };
        let (few, many) = (with(0..3), with(0..30));
        let before: Vec<_> = (0..1000).map(|flow| backend(flow, &few)).collect();
        let after: Vec<_> = (0..1000).map(|flow| backend(flow, &many)).collect();
        assert_eq!(before, after);
        // A flow whose backend is gone moves, and then stays.
        let moved = backend(0, &with(3..30));
        assert_eq!(backend(0, &many), moved);
    }

    #[test]
    fn c06_a_backend_that_drains_keeps_its_flows_and_gets_no_new_ones() {
        let (mut pins, now) = pins(2000);
        let mut service = with(0..3);
        let mut backend = |flow, service: &VirtualService| {
            pins.select(FlowHash(flow), service, VIP, now).map(|b| b.endpoint.to_u128())
        };
        let before: Vec<_> = (0..300).map(|flow| backend(flow, &service)).collect();
        assert!(before.contains(&Some(1)));
        service.backends[1].draining = true;
        let after: Vec<_> = (0..300).map(|flow| backend(flow, &service)).collect();
        assert_eq!(before, after);
        assert!((300..600).all(|flow| backend(flow, &service) != Some(1)));
        service.backends.iter_mut().for_each(|backend| backend.draining = true);
        assert_eq!(backend(600, &service), None);
    }

    #[test]
    fn an_idle_flow_is_forgotten_and_a_busy_one_is_not() {
        let (mut pins, mut now) = pins(10);
        let service = with(0..3);
        pins.select(FlowHash(1), &service, VIP, now);
        for _ in 0..10 {
            now += IDLE / 2;
            pins.select(FlowHash(2), &service, VIP, now);
        }
        assert_eq!(pins.len(), 1);
        pins.select(FlowHash(3), &service, VIP, now + IDLE * 2);
        assert_eq!(pins.len(), 1);
    }

    #[test]
    fn no_backend_of_the_family() {
        let (mut pins, now) = pins(10);
        let to = "fd00::2".parse().unwrap();
        assert_eq!(pins.select(FlowHash(1), &with(0..3), to, now), None);
        assert_eq!(pins.select(FlowHash(1), &with([]), VIP, now), None);
        assert!(pins.is_empty());
    }

    proptest! {
        #[test]
        fn pins_are_bounded(
            flows in prop::collection::vec((0_u64..200, 0_u64..90), 0..500),
            capacity in 1_usize..50,
        ) {
            let (mut pins, mut now) = pins(capacity);
            let service = with(0..5);
            for (flow, seconds) in flows {
                now += Duration::from_secs(seconds);
                prop_assert!(pins.select(FlowHash(flow), &service, VIP, now).is_some());
                prop_assert!(pins.len() <= capacity.next_multiple_of(2));
            }
        }
    }
}
