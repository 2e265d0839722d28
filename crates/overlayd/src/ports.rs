//! How local endpoints are plugged in: known to the reconcile loop, kept on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use overlay_dataplane::desired::PortKind;
use overlay_types::{EndpointId, NodeId, View};

use crate::{NodeError, disk::Disk};

/// The ports of this node's endpoints.
#[derive(Debug)]
pub(crate) struct Ports {
    disk: Disk,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    kinds: BTreeMap<EndpointId, PortKind>,
    /// Endpoints that the cluster has heard of, so that one that a view lacks is detached, and not
    /// one whose attachment the view does not show yet.
    attached: BTreeSet<EndpointId>,
}

impl Ports {
    /// Those that the disk remembers. Their endpoints were attached when it was written.
    pub(crate) fn open(disk: Disk) -> Result<Self, NodeError> {
        let kinds = disk.ports()?;
        let attached = kinds.keys().copied().collect();
        Ok(Self { disk, known: Mutex::new(Known { kinds, attached }) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub(crate) fn kinds(&self) -> BTreeMap<EndpointId, PortKind> {
        self.known().kinds.clone()
    }

    /// The endpoint is plugged in like this from now on.
    pub(crate) fn put(&self, endpoint: EndpointId, kind: PortKind) -> Result<(), NodeError> {
        let in_memory = kind == PortKind::Memory;
        let before = self.known().kinds.insert(endpoint, kind);
        // The disk has no ports in memory, and may be full.
        if in_memory && before.is_none_or(|kind| kind == PortKind::Memory) {
            return Ok(());
        }
        self.keep()
    }

    /// The endpoint has no port any more.
    pub(crate) fn remove(&self, endpoint: EndpointId) -> Result<(), NodeError> {
        let mut known = self.known();
        known.attached.remove(&endpoint);
        if known.kinds.remove(&endpoint).is_none_or(|kind| kind == PortKind::Memory) {
            return Ok(());
        }
        drop(known);
        self.keep()
    }

    /// Forgets the ports of endpoints that were detached elsewhere. `view` must have come from a
    /// manager: one from the disk may be older than an attachment. True when something went, which
    /// is for [`keep`](Self::keep) to tell the disk.
    pub(crate) fn prune(&self, view: &View, own: NodeId) -> bool {
        let mut known = self.known();
        let Known { kinds, attached } = &mut *known;
        let before = kinds.len();
        kinds.retain(|id, _| {
            if view.endpoints().get(id).is_some_and(|endpoint| endpoint.node == own) {
                attached.insert(*id);
                return true;
            }
            !attached.remove(id)
        });
        kinds.len() < before
    }

    /// Has the disk remember what there is.
    pub(crate) fn keep(&self) -> Result<(), NodeError> {
        self.disk.keep_ports(|| self.kinds())
    }
}

#[cfg(test)]
mod tests {
    use overlay_types::{Addresses, Change, Endpoint, MacAddr, Meta, NetworkId, Object, Revision};

    use super::*;

    const OWN: NodeId = NodeId::from_u128(7);

    fn tap(name: &str) -> PortKind {
        PortKind::Tap { name: name.to_owned(), netns: None }
    }

    fn view(endpoints: &[u128]) -> View {
        let put = |id: &u128| {
            Change::Put(Object::Endpoint(Endpoint {
                id: EndpointId::from_u128(*id),
                meta: Meta::default(),
                network: NetworkId::from_u128(1),
                node: OWN,
                service: None,
                name: None,
                addresses: Addresses::default(),
                mac: MacAddr::default(),
                extras: None,
            }))
        };
        let mut view = View::default();
        view.apply(Revision::new(1), endpoints.iter().map(put));
        view
    }

    #[test]
    fn what_was_detached_elsewhere_is_forgotten_and_what_is_being_attached_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&folder.path().join("data")).unwrap();
        let ports = Ports::open(disk.clone()).unwrap();
        let [a, b] = [1, 2].map(EndpointId::from_u128);
        ports.put(a, tap("tap1")).unwrap();
        ports.put(b, tap("tap2")).unwrap();

        assert!(!ports.prune(&view(&[1]), OWN));
        assert_eq!(ports.kinds().keys().copied().collect::<Vec<_>>(), [a, b]);
        assert!(ports.prune(&view(&[]), OWN));
        ports.keep().unwrap();
        assert_eq!(ports.kinds(), BTreeMap::from([(b, tap("tap2"))]));
        assert_eq!(disk.ports().unwrap(), ports.kinds());

        // After a restart all that the disk remembers was attached.
        let ports = Ports::open(disk.clone()).unwrap();
        assert!(ports.prune(&view(&[]), OWN));
        assert_eq!(ports.kinds(), BTreeMap::new());
    }
}
