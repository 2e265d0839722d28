//! The index that names are resolved in.
//!
//! ```text
//! View ──────► Directory ──► networks ──► Zone: names, addresses, services with their tasks
//! Change… ──►  (apply)   └─► endpoints, services   (what to take out when they change)
//! dead nodes ► (set_dead) ─► masks, looked at when a name is resolved; a change of a node says
//!                            whether it is drained
//! ```
//!
//! A directory is a value: cloning it shares everything, and a change copies only what it touches.
//! Whoever changes it publishes a clone (see [`SharedDirectory`]); readers take no lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use overlay_types::{
    Change, Endpoint, EndpointId, Network, NetworkId, NodeId, Object, ObjectKey, Service,
    ServiceId, View,
};

use crate::{cow_map::CowMap, scope::Scope};

mod node_set;
mod zone;

use node_set::NodeSet;
use zone::Task;
pub(crate) use zone::{Holder, ServiceEntry, Zone, is_dns_name};

/// Names, addresses, services and tasks of the networks of a view.
///
/// Equal views give directories that resolve equally, whatever the order of changes that led to
/// them: objects may arrive before those they refer to and leave after them.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    zones: CowMap<NetworkId, Arc<Zone>>,
    endpoints: CowMap<EndpointId, Arc<Endpoint>>,
    services: CowMap<ServiceId, Arc<Service>>,
    dead: Arc<NodeSet>,
    drained: Arc<NodeSet>,
}

impl Directory {
    /// The directory of a view, with all nodes alive.
    pub fn new(view: &View) -> Self {
        let drained = view.nodes().values().filter(|node| node.is_drained()).map(|node| node.id);
        let mut this = Self { drained: Arc::new(drained.collect()), ..Self::default() };
        view.networks().values().for_each(|n| this.put_network(n));
        view.services().values().for_each(|s| this.put_service(s));
        view.endpoints().values().for_each(|e| this.put_endpoint(e));
        this
    }

    /// Takes changes, as [`View::apply`] does. Costs in the size of the change.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        for change in changes {
            match change {
                Change::Put(Object::Network(network)) => self.put_network(network),
                Change::Put(Object::Service(service)) => self.put_service(service),
                Change::Put(Object::Endpoint(endpoint)) => self.put_endpoint(endpoint),
                Change::Put(Object::Node(node)) => self.set_drained(node.id, node.is_drained()),
                Change::Delete(ObjectKey::Network(id)) => self.remove_network(*id),
                Change::Delete(ObjectKey::Service(id)) => self.remove_service(*id),
                Change::Delete(ObjectKey::Endpoint(id)) => self.remove_endpoint(*id),
                Change::Delete(ObjectKey::Node(id)) => self.set_drained(*id, false),
                // Names do not depend on the other objects.
                Change::Put(
                    Object::Cluster(_)
                    | Object::KeyEpoch(_)
                    | Object::NodeKey(_)
                    | Object::GossipKeys(_),
                )
                | Change::Delete(
                    ObjectKey::Cluster
                    | ObjectKey::KeyEpoch(_)
                    | ObjectKey::NodeKey(..)
                    | ObjectKey::GossipKeys,
                ) => {}
            }
        }
    }

    /// Sets which nodes are dead: their endpoints are in no answer until they are alive again.
    pub fn set_dead(&mut self, dead: impl IntoIterator<Item = NodeId>) {
        self.dead = Arc::new(dead.into_iter().collect());
    }

    /// Whether any network of `scope` has a way out. Networks that the directory does not know
    /// have none.
    pub fn has_way_out(&self, scope: &Scope) -> bool {
        scope.networks().iter().filter_map(|id| self.zone(*id)).any(|zone| !zone.is_internal())
    }

    pub(crate) fn zone(&self, id: NetworkId) -> Option<&Zone> {
        self.zones.get(&id).map(Arc::as_ref).filter(|zone| zone.is_known())
    }

    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id).map(Arc::as_ref)
    }

    /// Whether the task is in answers: it is ready, and so is its node.
    pub(crate) fn takes_flows(&self, task: &Task) -> bool {
        task.ready && self.has_tasks(task.node)
    }

    /// Whether a task on the node is in answers: it lives, and is not drained.
    fn has_tasks(&self, node: NodeId) -> bool {
        !self.dead.contains(node) && !self.drained.contains(node)
    }

    /// Whether the endpoint is there for names. Draining a node takes its tasks away; what stands alone
    /// stays.
    pub(crate) fn is_reachable(&self, endpoint: &Endpoint) -> bool {
        match endpoint.service {
            Some(_) => self.has_tasks(endpoint.node),
            None => !self.dead.contains(endpoint.node),
        }
    }

    fn set_drained(&mut self, node: NodeId, drained: bool) {
        if self.drained.contains(node) != drained {
            self.drained = Arc::new(self.drained.with(node, drained));
        }
    }

    fn zone_mut(&mut self, id: NetworkId) -> &mut Zone {
        Arc::make_mut(self.zones.entry(id))
    }

    /// Forgets a zone that nothing refers to any more.
    fn sweep(&mut self, id: NetworkId) {
        if self.zones.get(&id).is_some_and(|zone| zone.is_empty()) {
            self.zones.remove(&id);
        }
    }

    fn put_network(&mut self, network: &Network) {
        self.zone_mut(network.id).set_network(Some(network));
    }

    fn remove_network(&mut self, id: NetworkId) {
        if let Some(zone) = self.zones.get_mut(&id) {
            Arc::make_mut(zone).set_network(None);
            self.sweep(id);
        }
    }

    fn put_service(&mut self, service: &Service) {
        self.remove_service(service.id);
        let service = Arc::new(service.clone());
        for network in service.vips.keys() {
            self.zone_mut(*network).add_service(&service, *network);
        }
        self.services.insert(service.id, service);
    }

    fn remove_service(&mut self, id: ServiceId) {
        let Some(service) = self.services.remove(&id) else { return };
        for network in service.vips.keys() {
            self.zone_mut(*network).remove_service(&service, *network);
            self.sweep(*network);
        }
    }

    fn put_endpoint(&mut self, endpoint: &Endpoint) {
        self.remove_endpoint(endpoint.id);
        self.zone_mut(endpoint.network).add_endpoint(endpoint);
        self.endpoints.insert(endpoint.id, Arc::new(endpoint.clone()));
    }

    fn remove_endpoint(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.remove(&id) else { return };
        self.zone_mut(endpoint.network).remove_endpoint(&endpoint);
        self.sweep(endpoint.network);
    }
}

/// The directory that readers see now. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SharedDirectory(Arc<ArcSwap<Directory>>);

impl SharedDirectory {
    /// Shares `directory`.
    pub fn new(directory: Directory) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(directory)))
    }

    /// Replaces what readers see.
    pub fn publish(&self, directory: Directory) {
        self.0.store(Arc::new(directory));
    }

    /// What was published last.
    pub fn current(&self) -> Arc<Directory> {
        self.0.load_full()
    }
}
