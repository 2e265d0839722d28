//! What the loop works with, and what it makes of the view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use overlay_dataplane::{
    Desired,
    desired::{self, Absence, Absences, Local, Mesh, PortKind, Uplinks},
    kernel::Tally,
    user::{
        engine::{Counters, DropReason},
        ports::MemoryPort,
    },
};
use overlay_types::{DataplaneKind, EndpointId, Network, NodeId, PortSpec, Revision, View};

use crate::{
    agent::Viewer,
    dataplane::{Carriers, NodeDataplane, NodeGateway, NodeMesh},
    keys::Keys,
    mesh_endpoint,
    ports::{Port, Ports},
    resolvers::Resolvers,
};

/// What the loop works with, shared with those that change it.
pub(crate) struct Shared {
    pub(crate) viewer: Viewer,
    pub(crate) node: NodeId,
    pub(crate) carriers: Carriers,
    underlay_mtu: AtomicU16,
    pub(crate) ports: Ports,
    pub(crate) resolvers: Resolvers,
    /// Nodes whose daemons are not heard.
    pub(crate) absent: Mutex<Absences>,
    /// Nodes that are known to run; of the others that are not dead nothing is known.
    pub(crate) running: Mutex<BTreeSet<NodeId>>,
    /// Those of the switch, to be read while a turn has the dataplane.
    pub(crate) counters: Arc<Counters>,
    dataplane: Mutex<NodeDataplane>,
    gateway: Mutex<NodeGateway>,
    mesh: Mutex<NodeMesh>,
    /// What the kernel dropped, on a node of its dataplane.
    tally: Option<Mutex<Tally>>,
}

/// What a turn makes.
pub(super) struct Wanted {
    pub(super) revision: Revision,
    pub(super) desired: Desired,
    pub(super) published: Published,
}

/// What is beside the dataplane.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) uplinks: Uplinks,
    pub(super) mesh: Option<Mesh>,
    /// Endpoints of users, and how they are plugged in.
    pub(super) plugged: BTreeMap<EndpointId, PortKind>,
}

impl Shared {
    pub(crate) fn new(
        viewer: Viewer,
        node: NodeId,
        carriers: Carriers,
        underlay_mtu: u16,
        ports: Ports,
        resolvers: Resolvers,
        (dataplane, gateway, mesh, tally): (NodeDataplane, NodeGateway, NodeMesh, Option<Tally>),
    ) -> Self {
        Self {
            viewer,
            node,
            carriers,
            underlay_mtu: AtomicU16::new(underlay_mtu),
            ports,
            resolvers,
            absent: Mutex::default(),
            running: Mutex::default(),
            counters: Arc::clone(dataplane.user().switch().counters()),
            dataplane: Mutex::new(dataplane),
            gateway: Mutex::new(gateway),
            mesh: Mutex::new(mesh),
            tally: tally.map(Mutex::new),
        }
    }

    pub(crate) fn dataplane(&self) -> MutexGuard<'_, NodeDataplane> {
        self.dataplane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gateway(&self) -> MutexGuard<'_, NodeGateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mesh(&self) -> MutexGuard<'_, NodeMesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_memory_port(&self, endpoint: EndpointId) -> Option<MemoryPort> {
        self.dataplane().user_mut().take_memory_port(endpoint)
    }

    /// Why this node cannot carry a network, or has no such ports on it, if that is so.
    pub(crate) fn refusal(&self, port: &Port, encrypted: bool) -> Option<String> {
        let esp = |view: &View| view.cluster().map(|cluster| cluster.esp);
        let esp = self.viewer.read(esp).unwrap_or_default();
        if encrypted && !self.carriers.carry(esp) {
            return Some(
                "ESP of this cluster travels as IP protocol 50, for which this node lacks CAP_NET_RAW; \
                 start overlayd with it"
                    .to_owned(),
            );
        }
        let kernel = self.carriers.of(encrypted) == DataplaneKind::Kernel;
        (kernel && *port == Port::Memory).then(|| {
            "interface \"\": the kernel carries this network on this node, and has no ports in memory; \
             name an interface, or start the node with --dataplane user"
                .to_owned()
        })
    }

    /// Why this node cannot publish these ports of an endpoint that is plugged in like this, if it cannot.
    pub(crate) fn publish_refusal(
        &self,
        port: &Port,
        published: &[PortSpec],
        network: &Network,
    ) -> Option<String> {
        let kind = port.clone().kind(self.carriers.of(network.spec.encrypted));
        self.gateway().refusal(published, network, &kind)
    }

    /// How often something was dropped, by the switch and by the kernel.
    pub(crate) async fn drops(self: &Arc<Self>) -> BTreeMap<DropReason, u64> {
        let mut drops: BTreeMap<_, _> = self.counters.drops().collect();
        let shared = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            let mut tally = shared.tally.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
            let looked = tally.look();
            looked
                .inspect_err(|error| tracing::warn!(%error, "the kernel's counters cannot be read"))
                .ok()
                .cloned()
        });
        for (reason, count) in looked.await.ok().flatten().unwrap_or_default() {
            *drops.entry(reason).or_default() += count;
        }
        drops
    }

    /// MTU of the data path, as the dataplane has it.
    pub(crate) fn underlay_mtu(&self) -> u16 {
        self.underlay_mtu.load(Ordering::Relaxed)
    }

    /// From the next turn on. Says whether it is another one.
    pub(crate) fn set_underlay_mtu(&self, mtu: u16) -> bool {
        self.underlay_mtu.swap(mtu, Ordering::Relaxed) != mtu
    }

    pub(super) fn prune_ports(&self) {
        let pruned = self.viewer.read_heard(|view| self.ports.prune(view, self.node));
        if pruned == Some(true)
            && let Err(error) = self.ports.keep()
        {
            tracing::error!(%error, "ports of endpoints that are gone stay on the disk");
        }
    }

    pub(super) fn wanted(&self, keys: &Keys, ports: BTreeMap<EndpointId, Port>) -> Wanted {
        let gate = self.gate();
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (node, absence) in &mut absent {
            if let Absence::Headless { encrypted } = absence {
                *encrypted &= keys.seals_for(*node);
            }
        }
        self.viewer.read(|view| {
            let kind = |(id, port): (EndpointId, Port)| {
                let network = view.networks().get(&view.endpoints().get(&id)?.network)?;
                Some((id, port.kind(self.carriers.of(network.spec.encrypted))))
            };
            let plugged: BTreeMap<_, _> = ports.into_iter().filter_map(kind).collect();
            let mut ports = plugged.clone();
            ports.extend(gate);
            let local = Local { node: self.node, ports, underlay_mtu: self.underlay_mtu() };
            let mut desired = desired::derive(view, &absent, &local);
            desired.sas = keys.sas().clone();
            // Another node has the peer's address: what is sealed for the one would go to the other.
            desired.sas.outbound.retain(|_, sa| !sa.address.is_unspecified());
            let uplinks = desired::uplinks(view, self.node, &plugged);
            let mesh = desired::derive_mesh(view, &absent, &local);
            let published = Published { uplinks, mesh, plugged };
            Wanted { revision: view.revision(), desired, published }
        })
    }

    /// How this node's place in the routing mesh is plugged in, if it has one that can be. May make a
    /// namespace, which nobody who writes the view shall wait for.
    fn gate(&self) -> Option<(EndpointId, PortKind)> {
        let place = |view: &View| {
            let place = mesh_endpoint::of(view, self.node)?;
            Some((place.id, view.networks().get(&place.network)?.spec.encrypted))
        };
        let (id, encrypted) = self.viewer.read(place)?;
        Some((id, self.mesh().gate(self.carriers.of(encrypted))?))
    }
}
