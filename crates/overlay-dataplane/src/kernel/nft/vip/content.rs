//! What an endpoint's table says, as a value.

use core::net::IpAddr;
use std::collections::BTreeMap;

use overlay_types::{Addresses, EndpointId, ServiceId};

use crate::desired::{Backend, Service};

/// Services and their virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::kernel) struct Content {
    services: BTreeMap<ServiceId, Addresses>,
    faces: BTreeMap<IpAddr, Face>,
    /// Virtual addresses in each map of turns.
    shards: BTreeMap<String, usize>,
}

/// What one virtual address leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::kernel) struct Face {
    /// Whose it is. Nobody's any more: its flows are to be cut.
    pub(in crate::kernel) service: Option<ServiceId>,
    /// Backends that get new flows, in turn.
    pub(in crate::kernel) turns: Vec<Target>,
    /// Backends that keep the flows that they have, or keep them until they are cut.
    pub(in crate::kernel) parked: Vec<Target>,
}

/// One backend on one version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kernel) struct Target {
    pub(in crate::kernel) address: IpAddr,
    pub(in crate::kernel) endpoint: EndpointId,
}

/// A part of a content that becomes another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::kernel) struct Delta {
    /// Services whose virtual addresses, or the turns of these, change; `None` is gone.
    pub(in crate::kernel) services: BTreeMap<ServiceId, Option<Addresses>>,
    /// Virtual addresses that change; `None` is gone.
    pub(in crate::kernel) faces: BTreeMap<IpAddr, Option<Face>>,
}

impl Face {
    /// All backends that have, or may have, flows.
    pub(in crate::kernel) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.turns.iter().chain(&self.parked)
    }
}

impl Content {
    pub(in crate::kernel) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.faces.is_empty()
    }

    pub(in crate::kernel) const fn services(&self) -> &BTreeMap<ServiceId, Addresses> {
        &self.services
    }

    pub(in crate::kernel) const fn faces(&self) -> &BTreeMap<IpAddr, Face> {
        &self.faces
    }

    /// Virtual addresses in a map of turns.
    pub(super) fn in_shard(&self, name: &str) -> usize {
        self.shards.get(name).copied().unwrap_or(0)
    }

    /// Those of some virtual addresses that backends get new flows of, and how many.
    pub(super) fn lots(&self, vips: impl Iterator<Item = IpAddr>) -> Vec<(IpAddr, usize)> {
        lots(vips, |vip| self.faces.get(vip))
    }

    /// The same after a change.
    pub(super) fn lots_after(
        &self,
        delta: &Delta,
        vips: impl Iterator<Item = IpAddr>,
    ) -> Vec<(IpAddr, usize)> {
        lots(vips, |vip| match delta.faces.get(vip) {
            Some(face) => face.as_ref(),
            None => self.faces.get(vip),
        })
    }

    /// Makes a change.
    pub(in crate::kernel) fn patch(&mut self, delta: Delta) {
        for (service, vips) in delta.services {
            match vips {
                Some(vips) => drop(self.services.insert(service, vips)),
                None => drop(self.services.remove(&service)),
            }
        }
        for (vip, face) in delta.faces {
            let before = self.faces.contains_key(&vip);
            let count = self.shards.entry(super::shard(vip)).or_default();
            *count = *count + usize::from(face.is_some()) - usize::from(before);
            match face {
                Some(face) => drop(self.faces.insert(vip, face)),
                None => drop(self.faces.remove(&vip)),
            }
        }
        self.shards.retain(|_, count| *count > 0);
    }

    pub(super) fn add_service(&mut self, service: Option<ServiceId>) {
        if let Some(service) = service {
            self.services.entry(service).or_default();
        }
    }

    pub(super) fn add_vip(&mut self, vip: IpAddr, service: Option<ServiceId>) {
        let Some(vips) = service.and_then(|service| self.services.get_mut(&service)) else {
            return;
        };
        vips.set(vip);
        self.face(vip).service = service;
    }

    pub(super) fn add_backend(&mut self, vip: IpAddr, is_parked: bool, target: Target) {
        let face = self.face(vip);
        if is_parked { &mut face.parked } else { &mut face.turns }.push(target);
    }

    fn face(&mut self, vip: IpAddr) -> &mut Face {
        self.faces.entry(vip).or_insert_with(|| {
            *self.shards.entry(super::shard(vip)).or_default() += 1;
            Face::default()
        })
    }

    /// The services that it says, as far as it does.
    pub(in crate::kernel) fn as_services(&self) -> BTreeMap<ServiceId, Service> {
        let all = self.services.iter().map(|(id, vips)| {
            let mut service = Service { vips: *vips, ..Service::default() };
            for face in vips.iter().filter_map(|vip| self.faces.get(&vip)) {
                for (draining, targets) in [(false, &face.turns), (true, &face.parked)] {
                    for target in targets {
                        let new = Backend { addresses: Addresses::default(), draining };
                        let backend = service.backends.entry(target.endpoint).or_insert(new);
                        backend.addresses.set(target.address);
                    }
                }
            }
            (*id, service)
        });
        all.collect()
    }
}

fn lots<'a>(
    vips: impl Iterator<Item = IpAddr>,
    face: impl Fn(&IpAddr) -> Option<&'a Face>,
) -> Vec<(IpAddr, usize)> {
    let turns = vips.map(|vip| (vip, face(&vip).map_or(0, |face| face.turns.len())));
    turns.filter(|(_, turns)| *turns > 0).collect()
}
