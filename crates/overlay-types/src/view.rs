//! The part of the replicated state that a node holds, and changes to it.
//!
//! ```text
//! manager ── snapshot, then Change… ──► View ──► names, dataplane, keys
//! ```

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Change, Cluster, Endpoint, EndpointId, Epoch, GossipKeys, KeyEpoch, Network, NetworkId, Node,
    NodeId, NodeKey, Object, ObjectKey, Revision, Service, ServiceId,
};

/// Replicated objects by key, with indexes of endpoints and services.
///
/// A manager holds all of them, an agent those that concern its node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    revision: Revision,
    cluster: Option<Cluster>,
    nodes: BTreeMap<NodeId, Node>,
    networks: BTreeMap<NetworkId, Network>,
    ingress: Option<NetworkId>,
    services: BTreeMap<ServiceId, Service>,
    /// Apart: a tree that changes at random keeps a third of its places empty, and an empty place
    /// should cost a pointer, not an endpoint. Shared with the indexes: whoever goes through the thousands
    /// of a network looks none of them up.
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    key_epochs: BTreeMap<Epoch, KeyEpoch>,
    node_keys: BTreeMap<(Epoch, NodeId), NodeKey>,
    gossip_keys: Option<GossipKeys>,
    by_network: Index<NetworkId, Arc<Endpoint>>,
    by_service: Index<ServiceId, Arc<Endpoint>>,
    by_node: Index<NodeId, Arc<Endpoint>>,
    services_by_network: Index<NetworkId, ServiceId>,
}

/// Objects by what they belong to, in the order of their ids. A vector each: endpoints are many,
/// and move seldom.
type Index<K, V> = BTreeMap<K, Vec<V>>;

/// What an index holds.
trait Entry {
    type Id: Ord;

    fn id(&self) -> Self::Id;
}

impl Entry for ServiceId {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

impl Entry for Arc<Endpoint> {
    type Id = EndpointId;

    fn id(&self) -> EndpointId {
        self.id
    }
}

fn add<K: Ord, V: Entry>(index: &mut Index<K, V>, key: K, entry: V) {
    let entries = index.entry(key).or_default();
    match entries.binary_search_by_key(&entry.id(), V::id) {
        Ok(place) => entries[place] = entry,
        Err(place) => entries.insert(place, entry),
    }
}

/// The endpoints that an index has for a key.
fn listed<K: Ord>(index: &Index<K, Arc<Endpoint>>, key: K) -> impl Iterator<Item = &Endpoint> {
    index.get(&key).into_iter().flatten().map(Arc::as_ref)
}

fn take_out<K: Ord, V: Entry>(index: &mut Index<K, V>, key: &K, id: &V::Id) {
    if let Some(entries) = index.get_mut(key)
        && let Ok(place) = entries.binary_search_by_key(id, V::id)
    {
        entries.remove(place);
        if entries.is_empty() {
            index.remove(key);
        }
    }
}

impl View {
    /// The view that a snapshot describes. Packs endpoints tighter than putting one after the
    /// other does: a node usually holds most of its endpoints from a snapshot.
    pub fn from_snapshot(revision: Revision, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut view = Self::default();
        let mut endpoints = Vec::new();
        for object in objects {
            match object {
                Object::Endpoint(endpoint) => endpoints.push((endpoint.id, Arc::new(endpoint))),
                other => view.put(other),
            }
        }
        // The tree is built from sorted leaves, all of them full. Of equal ids the last counts.
        view.endpoints = endpoints.into_iter().collect();
        for endpoint in view.endpoints.values() {
            view.by_network.entry(endpoint.network).or_default().push(Arc::clone(endpoint));
            view.by_node.entry(endpoint.node).or_default().push(Arc::clone(endpoint));
            if let Some(service) = endpoint.service {
                view.by_service.entry(service).or_default().push(Arc::clone(endpoint));
            }
        }
        view.by_network.values_mut().for_each(Vec::shrink_to_fit);
        view.by_node.values_mut().for_each(Vec::shrink_to_fit);
        view.by_service.values_mut().for_each(Vec::shrink_to_fit);
        view.revision = revision;
        view
    }

    /// Revision of the state that this is a part of.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The cluster object; `None` only before the first snapshot.
    pub const fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Nodes by id.
    pub const fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// Networks by id.
    pub const fn networks(&self) -> &BTreeMap<NetworkId, Network> {
        &self.networks
    }

    /// The network of the routing mesh, if there is one.
    pub fn ingress(&self) -> Option<&Network> {
        self.networks.get(&self.ingress?)
    }

    /// Services by id.
    pub const fn services(&self) -> &BTreeMap<ServiceId, Service> {
        &self.services
    }

    /// Endpoints by id.
    pub const fn endpoints(&self) -> &BTreeMap<EndpointId, Arc<Endpoint>> {
        &self.endpoints
    }

    /// Key epochs, oldest first.
    pub const fn key_epochs(&self) -> &BTreeMap<Epoch, KeyEpoch> {
        &self.key_epochs
    }

    /// Nodes' public keys.
    pub const fn node_keys(&self) -> &BTreeMap<(Epoch, NodeId), NodeKey> {
        &self.node_keys
    }

    /// The gossip ring; `None` only before the first snapshot.
    pub const fn gossip_keys(&self) -> Option<&GossipKeys> {
        self.gossip_keys.as_ref()
    }

    /// Endpoints on a network, in the order of their ids.
    pub fn endpoints_on(&self, network: NetworkId) -> impl Iterator<Item = &Endpoint> {
        listed(&self.by_network, network)
    }

    /// Endpoints that are tasks of a service, in the order of their ids.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Endpoint> {
        listed(&self.by_service, service)
    }

    /// Endpoints of a node, in the order of their ids.
    pub fn endpoints_at(&self, node: NodeId) -> impl Iterator<Item = &Endpoint> {
        listed(&self.by_node, node)
    }

    /// Services that are on a network or ask to be, in the order of their ids.
    pub fn services_on(&self, network: NetworkId) -> impl Iterator<Item = &Service> {
        let ids = self.services_by_network.get(&network).into_iter().flatten();
        ids.filter_map(|id| self.services.get(id))
    }

    /// Every object, in an order in which each comes after those it refers to.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        self.common_objects()
            .chain(self.networks.values().cloned().map(Object::Network))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.endpoints.values().map(|e| Object::Endpoint(Endpoint::clone(e))))
    }

    /// The objects that concern every node, in the same order.
    pub fn common_objects(&self) -> impl Iterator<Item = Object> {
        let single = self.cluster.iter().cloned().map(Object::Cluster);
        single
            .chain(self.gossip_keys.iter().cloned().map(Object::GossipKeys))
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.key_epochs.values().cloned().map(Object::KeyEpoch))
            .chain(self.node_keys.values().copied().map(Object::NodeKey))
    }

    /// The object with this key.
    pub fn get(&self, key: ObjectKey) -> Option<Object> {
        match key {
            ObjectKey::Cluster => self.cluster.clone().map(Object::Cluster),
            ObjectKey::Node(id) => self.nodes.get(&id).cloned().map(Object::Node),
            ObjectKey::Network(id) => self.networks.get(&id).cloned().map(Object::Network),
            ObjectKey::Service(id) => self.services.get(&id).cloned().map(Object::Service),
            ObjectKey::Endpoint(id) => {
                self.endpoints.get(&id).map(|e| Object::Endpoint(Endpoint::clone(e)))
            }
            ObjectKey::KeyEpoch(epoch) => {
                self.key_epochs.get(&epoch).cloned().map(Object::KeyEpoch)
            }
            ObjectKey::NodeKey(epoch, node) => {
                self.node_keys.get(&(epoch, node)).copied().map(Object::NodeKey)
            }
            ObjectKey::GossipKeys => self.gossip_keys.clone().map(Object::GossipKeys),
        }
    }

    /// Takes the changes that lead to `revision`.
    pub fn apply(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change>) {
        self.revision = revision;
        for change in changes {
            match change {
                Change::Put(object) => self.put(object),
                Change::Delete(key) => self.delete(key),
            }
        }
    }

    fn put(&mut self, object: Object) {
        match object {
            Object::Cluster(o) => self.cluster = Some(o),
            Object::Node(o) => drop(self.nodes.insert(o.id, o)),
            Object::Network(o) => self.put_network(o),
            Object::Service(o) => self.put_service(o),
            Object::Endpoint(o) => self.put_endpoint(o),
            Object::KeyEpoch(o) => drop(self.key_epochs.insert(o.epoch, o)),
            Object::NodeKey(o) => drop(self.node_keys.insert((o.epoch, o.node), o)),
            Object::GossipKeys(o) => self.gossip_keys = Some(o),
        }
    }

    fn put_network(&mut self, network: Network) {
        if network.spec.ingress {
            self.ingress = Some(network.id);
        }
        self.networks.insert(network.id, network);
    }

    fn remove_network(&mut self, id: NetworkId) {
        self.networks.remove(&id);
        self.ingress = self.ingress.filter(|ingress| *ingress != id);
    }

    fn put_service(&mut self, service: Service) {
        self.remove_service(service.id);
        for network in service.networks() {
            add(&mut self.services_by_network, network, service.id);
        }
        self.services.insert(service.id, service);
    }

    fn remove_service(&mut self, id: ServiceId) {
        if let Some(old) = self.services.remove(&id) {
            for network in old.networks() {
                take_out(&mut self.services_by_network, &network, &id);
            }
        }
    }

    fn put_endpoint(&mut self, endpoint: Endpoint) {
        self.remove_endpoint(endpoint.id);
        let endpoint = Arc::new(endpoint);
        add(&mut self.by_network, endpoint.network, Arc::clone(&endpoint));
        add(&mut self.by_node, endpoint.node, Arc::clone(&endpoint));
        if let Some(service) = endpoint.service {
            add(&mut self.by_service, service, Arc::clone(&endpoint));
        }
        self.endpoints.insert(endpoint.id, endpoint);
    }

    fn remove_endpoint(&mut self, id: EndpointId) {
        if let Some(old) = self.endpoints.remove(&id) {
            take_out(&mut self.by_network, &old.network, &id);
            take_out(&mut self.by_node, &old.node, &id);
            if let Some(service) = old.service {
                take_out(&mut self.by_service, &service, &id);
            }
        }
    }

    fn delete(&mut self, key: ObjectKey) {
        match key {
            ObjectKey::Cluster => self.cluster = None,
            ObjectKey::Node(id) => drop(self.nodes.remove(&id)),
            ObjectKey::Network(id) => self.remove_network(id),
            ObjectKey::Service(id) => self.remove_service(id),
            ObjectKey::Endpoint(id) => self.remove_endpoint(id),
            ObjectKey::KeyEpoch(epoch) => drop(self.key_epochs.remove(&epoch)),
            ObjectKey::NodeKey(epoch, node) => drop(self.node_keys.remove(&(epoch, node))),
            ObjectKey::GossipKeys => self.gossip_keys = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Addresses, MacAddr, Meta};

    fn endpoint(id: u8, network: u8, service: Option<u8>) -> Endpoint {
        Endpoint {
            id: EndpointId::from_u128(id.into()),
            meta: Meta::default(),
            network: NetworkId::from_u128(network.into()),
            node: NodeId::from_u128((id % 3).into()),
            service: service.map(|s| ServiceId::from_u128(s.into())),
            name: None,
            addresses: Addresses::default(),
            mac: MacAddr::default(),
            role: crate::EndpointRole::Workload,
            readiness: crate::Readiness::Ready,
            extras: None,
        }
    }

    proptest! {
        /// The indexes say what a walk over all endpoints says, after any sequence of changes.
        #[test]
        fn indexes_equal_a_full_walk(
            steps in prop::collection::vec((0_u8..8, 0_u8..3, prop::option::of(0_u8..3), any::<bool>()), 0..60)
        ) {
            let mut view = View::default();
            for (number, (id, network, service, put)) in steps.into_iter().enumerate() {
                let endpoint = endpoint(id, network, service);
                let change = if put {
                    Change::Put(Object::Endpoint(endpoint))
                } else {
                    Change::Delete(ObjectKey::Endpoint(endpoint.id))
                };
                view.apply(Revision::new(number as u64), [change]);
            }
            for number in 0..3 {
                let (network, service) = (NetworkId::from_u128(number), ServiceId::from_u128(number));
                let on: Vec<_> = view.endpoints().values().map(Arc::as_ref).filter(|e| e.network == network).collect();
                prop_assert_eq!(view.endpoints_on(network).collect::<Vec<_>>(), on);
                let of: Vec<_> = view.endpoints().values().map(Arc::as_ref).filter(|e| e.service == Some(service)).collect();
                prop_assert_eq!(view.tasks_of(service).collect::<Vec<_>>(), of);
                let node = NodeId::from_u128(number);
                let at: Vec<_> = view.endpoints().values().map(Arc::as_ref).filter(|e| e.node == node).collect();
                prop_assert_eq!(view.endpoints_at(node).collect::<Vec<_>>(), at);
            }
            let mut copy = View::default();
            copy.apply(view.revision(), view.objects().map(Change::Put));
            prop_assert_eq!(&copy, &view);
            // Of equal ids the last counts.
            let other = |e: &Arc<Endpoint>| {
                Object::Endpoint(Endpoint { network: NetworkId::from_u128(9), ..Endpoint::clone(e) })
            };
            let others: Vec<_> = view.endpoints().values().map(other).collect();
            let objects = others.into_iter().chain(view.objects());
            prop_assert_eq!(View::from_snapshot(view.revision(), objects), view);
        }
    }
}
