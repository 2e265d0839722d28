//! The way from what a table says to what it shall say, in steps that a crash may part.
//!
//! ```text
//!  1. changes: who is to lose its flows gets no new ones, and is parked until they are cut
//!  2. the cut, in connection tracking
//!  3. ends: what was parked for it goes
//! ```

use core::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::DefaultHasher,
};

use overlay_types::{Addresses, EndpointId, ServiceId};

use super::content::{Content, Delta, Face, Target};
use crate::desired::Service;

/// A chain with its rules is as large as so many elements.
const CHAIN: usize = 25;

/// What is to be done.
#[derive(Debug, Default)]
pub(in crate::kernel) struct Plan {
    /// Changes before the cut, one service after the other.
    pub(in crate::kernel) changes: Vec<Delta>,
    /// Flows that are to end.
    pub(in crate::kernel) cut: Cut,
    /// Changes behind the cut.
    pub(in crate::kernel) ends: Vec<Delta>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub(in crate::kernel) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.ends.is_empty()
    }
}

/// Flows that are to end, by the virtual address that they began with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::kernel) struct Cut(BTreeMap<IpAddr, Lost>);

/// Which flows of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lost {
    /// All.
    All,
    /// Those to backends that are none any more.
    To(BTreeSet<IpAddr>),
    /// All but those to backends that it has.
    AllBut(BTreeSet<IpAddr>),
}

impl Cut {
    /// All flows of some virtual addresses.
    pub(in crate::kernel) fn all<'a>(vips: impl Iterator<Item = &'a IpAddr>) -> Self {
        Self(vips.map(|vip| (*vip, Lost::All)).collect())
    }

    pub(in crate::kernel) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their virtual addresses.
    pub(in crate::kernel) fn addresses(&self) -> Vec<IpAddr> {
        self.0.keys().copied().collect()
    }

    /// Whether a flow ends that began with `vip` and is answered by `backend`.
    pub(in crate::kernel) fn covers(&self, vip: IpAddr, backend: IpAddr) -> bool {
        match self.0.get(&vip) {
            None => false,
            Some(Lost::All) => true,
            Some(Lost::To(backends)) => backends.contains(&backend),
            // Echo is answered by the namespace itself.
            Some(Lost::AllBut(backends)) => !backend.is_loopback() && !backends.contains(&backend),
        }
    }
}

/// Stands for all that may be answered by somebody else than a backend: flows from before the
/// address was a virtual one.
const fn anybody(ipv6: bool) -> Target {
    let unspecified =
        if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    Target { address: unspecified, endpoint: EndpointId::from_u128(0) }
}

/// What is to be done for `services`: all of them, or those that are `touched`. Each endpoint has
/// its own order of backends, so that not all of them begin with the same one.
pub(in crate::kernel) fn plan(
    content: &Content,
    services: &BTreeMap<ServiceId, Service>,
    touched: Option<&BTreeSet<ServiceId>>,
    endpoint: EndpointId,
) -> Plan {
    let all = || content.services().keys().chain(services.keys()).copied().collect();
    let touched: BTreeSet<ServiceId> = touched.cloned().unwrap_or_else(all);
    let mut owned: BTreeMap<IpAddr, ServiceId> = BTreeMap::new();
    for (id, service) in touched.iter().filter_map(|id| services.get_key_value(id)) {
        for vip in service.vips.iter() {
            owned.entry(vip).or_insert(*id);
        }
    }
    let mut planner = Planner { content, plan: Plan::default() };
    for id in &touched {
        planner.take_away(*id, services.get(id), &owned);
    }
    planner.drop_orphans(&owned);
    for id in &touched {
        if let Some(service) = services.get(id) {
            planner.put(*id, service, &owned, endpoint);
        }
    }
    planner.plan
}

struct Planner<'a> {
    content: &'a Content,
    plan: Plan,
}

impl Planner<'_> {
    /// What a service has and shall have no more.
    fn take_away(
        &mut self,
        id: ServiceId,
        service: Option<&Service>,
        owned: &BTreeMap<IpAddr, ServiceId>,
    ) {
        let Some(vips) = self.content.services().get(&id) else { return };
        let gone = vips.iter().filter(|vip| !owned.contains_key(vip));
        let gone: Vec<_> = gone.filter(|vip| self.owner(vip) == Some(id)).collect();
        let (mut change, mut end) = (Delta::default(), Delta::default());
        for vip in gone {
            let face = self.content.faces().get(&vip).cloned().unwrap_or_default();
            change.faces.insert(vip, Some(Face { service: None, ..face }));
            end.faces.insert(vip, None);
            self.plan.cut.0.insert(vip, Lost::All);
        }
        if service.is_none() {
            if *vips != Addresses::default() {
                change.services.insert(id, Some(Addresses::default()));
            }
            end.services.insert(id, None);
        }
        self.change(change);
        self.end(end);
    }

    /// What a cut that was not finished has left.
    fn drop_orphans(&mut self, owned: &BTreeMap<IpAddr, ServiceId>) {
        let orphans = self.content.faces().iter().filter(|(_, face)| face.service.is_none());
        for (vip, _) in orphans.filter(|(vip, _)| !owned.contains_key(vip)) {
            self.plan.cut.0.insert(*vip, Lost::All);
            self.end(Delta { faces: [(*vip, None)].into(), ..Delta::default() });
        }
    }

    fn put(
        &mut self,
        id: ServiceId,
        service: &Service,
        owned: &BTreeMap<IpAddr, ServiceId>,
        endpoint: EndpointId,
    ) {
        let vips: Addresses =
            service.vips.iter().filter(|vip| owned.get(vip) == Some(&id)).collect();
        let (mut change, mut end) = (Delta::default(), Delta::default());
        for vip in vips.iter() {
            let old = self.content.faces().get(&vip);
            let (mid, last) = aim(id, service, vip, old, endpoint);
            if mid != last {
                self.plan.cut.0.insert(vip, lost(&mid, &last));
                end.faces.insert(vip, Some(last));
            }
            if old != Some(&mid) {
                change.faces.insert(vip, Some(mid));
            }
        }
        if !change.faces.is_empty() || self.content.services().get(&id) != Some(&vips) {
            change.services.insert(id, Some(vips));
        }
        self.change(change);
        self.end(end);
    }

    fn owner(&self, vip: &IpAddr) -> Option<ServiceId> {
        self.content.faces().get(vip)?.service
    }

    fn change(&mut self, delta: Delta) {
        self.plan.changes.extend((delta != Delta::default()).then_some(delta));
    }

    fn end(&mut self, delta: Delta) {
        self.plan.ends.extend((delta != Delta::default()).then_some(delta));
    }
}

/// Puts changes together, as many as `load` elements and no fewer than one: each is to be a transaction,
/// after which the kernel goes through all of the table.
pub(in crate::kernel) fn portions(deltas: Vec<Delta>, load: usize) -> Vec<Delta> {
    let mut portions: Vec<Delta> = Vec::new();
    let mut room = 0;
    for delta in deltas {
        let faces = delta.faces.values().flatten().map(|face| face.targets().count());
        let weight = CHAIN * (delta.services.len() + delta.faces.len()) + faces.sum::<usize>();
        if let Some(last) = portions.last_mut().filter(|_| weight <= room) {
            room -= weight;
            last.services.extend(delta.services);
            last.faces.extend(delta.faces);
        } else {
            room = load.saturating_sub(weight);
            portions.push(delta);
        }
    }
    portions
}

/// What a virtual address leads to before the cut, and behind it.
fn aim(
    id: ServiceId,
    service: &Service,
    vip: IpAddr,
    old: Option<&Face>,
    endpoint: EndpointId,
) -> (Face, Face) {
    let (mut turns, mut parked) = (BTreeSet::new(), BTreeSet::new());
    for (endpoint, backend) in &service.backends {
        let same = backend.addresses.iter().filter(|a| a.is_ipv6() == vip.is_ipv6());
        for address in same {
            let to = if backend.draining { &mut parked } else { &mut turns };
            to.insert(Target { address, endpoint: *endpoint });
        }
    }
    let none = Face::default();
    let before = old.unwrap_or(&none);
    let order = |target: &Target| {
        let mut hasher = DefaultHasher::new();
        (endpoint, target.endpoint).hash(&mut hasher);
        hasher.finish()
    };
    let kept: BTreeSet<_> = turns.iter().chain(&parked).map(|target| target.address).collect();
    let mut waiting = parked.clone();
    waiting.extend(before.targets().filter(|target| !kept.contains(&target.address)));
    if before.service.is_none() {
        waiting.insert(anybody(vip.is_ipv6()));
    }
    let mid = Face {
        service: Some(id),
        turns: rearrange(&before.turns, turns, order),
        parked: rearrange(&before.parked, waiting, order),
    };
    let last = Face { parked: rearrange(&mid.parked, parked, order), ..mid.clone() };
    (mid, last)
}

fn lost(mid: &Face, last: &Face) -> Lost {
    let kept: BTreeSet<_> = last.targets().map(|target| target.address).collect();
    let gone = mid.parked.iter().map(|target| target.address);
    let gone: BTreeSet<_> = gone.filter(|address| !kept.contains(address)).collect();
    if gone.iter().any(IpAddr::is_unspecified) { Lost::AllBut(kept) } else { Lost::To(gone) }
}

/// Has who stays at its place, as far as there are no gaps, and who comes in the gaps.
fn rearrange(
    old: &[Target],
    mut wanted: BTreeSet<Target>,
    order: impl Fn(&Target) -> u64,
) -> Vec<Target> {
    let places = wanted.len();
    let mut take = |place: usize| old.get(place).filter(|target| wanted.remove(target)).copied();
    let kept: Vec<_> = (0..places).map(&mut take).collect();
    let mut rest: Vec<_> = wanted.into_iter().collect();
    rest.sort_by_key(|target| order(target));
    let mut rest = rest.into_iter();
    kept.into_iter().filter_map(|kept| kept.or_else(|| rest.next())).collect()
}
