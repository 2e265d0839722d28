//! What of the state concerns a node: its networks, with their endpoints and services.

use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{
    Change, Endpoint, EndpointId, Network, NetworkId, NodeId, Object, ObjectKey, Service, View,
};

/// What one subscriber wants to know.
///
/// The cluster, nodes, key epochs and public keys concern everyone. A network concerns a node
/// while it has an endpoint there; so do the network's endpoints and the services on it. The ingress
/// network itself concerns everyone: a node that sees one gets a place in the routing mesh there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Interest {
    /// All there is, except secrets.
    Everything,
    /// What a node needs to carry its endpoints.
    Node(NodeInterest),
}

/// The networks that concern a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInterest {
    node: NodeId,
    /// The node's endpoints: what the key of one that is deleted does not say.
    local: BTreeMap<EndpointId, NetworkId>,
    /// Where they are.
    networks: BTreeSet<NetworkId>,
}

impl Interest {
    /// What concerns `node`, as things stand in `view`.
    pub fn of_node(node: NodeId, view: &View) -> Self {
        Self::Node(NodeInterest::new(node, view))
    }

    /// The same subscriber's, as things stand in `view`.
    pub(super) fn renew(&mut self, view: &View) {
        if let Self::Node(interest) = self {
            *interest = NodeInterest::new(interest.node, view);
        }
    }

    /// Every object of `view` that concerns the subscriber. Costs in the size of the answer: all
    /// nodes may come back at once.
    pub fn snapshot(&self, view: &View) -> Vec<Object> {
        match self {
            Self::Everything => view.objects().filter(|object| !is_gossip(object)).collect(),
            Self::Node(interest) => interest.snapshot(view),
        }
    }

    /// Whether `changes`, which led to the state that this interest was made of, certainly left the
    /// node's networks as they are. A deleted endpoint may have been the node's own.
    pub fn is_untouched_by(&self, changes: &[Change]) -> bool {
        let Self::Node(interest) = self else { return true };
        !changes.iter().any(|change| match change {
            Change::Put(Object::Endpoint(e)) => e.node == interest.node,
            Change::Delete(key) => matches!(key, ObjectKey::Endpoint(_)),
            Change::Put(_) => false,
        })
    }

    /// What the subscriber is told of `changes`, which led to `view` or to a state before it.
    ///
    /// A network that begins to concern the node comes whole; one that ceases to is deleted.
    pub fn narrow(&mut self, view: &View, changes: &[Change]) -> Vec<Change> {
        match self {
            Self::Everything => changes.iter().filter(|c| !is_secret(c)).cloned().collect(),
            Self::Node(interest) => interest.narrow(view, changes),
        }
    }
}

impl NodeInterest {
    fn new(node: NodeId, view: &View) -> Self {
        let local = view.endpoints_at(node);
        let local = local.map(|endpoint| (endpoint.id, endpoint.network)).collect();
        let mut interest = Self { node, local, networks: BTreeSet::new() };
        interest.networks = interest.local.values().copied().collect();
        interest
    }

    fn snapshot(&self, view: &View) -> Vec<Object> {
        let networks = || self.networks.iter();
        let services = networks().flat_map(|id| view.services_on(*id)).map(|service| service.id);
        let services: BTreeSet<_> = services.collect();
        let services = services.iter().filter_map(|id| view.services().get(id));
        let endpoints = networks().flat_map(|id| view.endpoints_on(*id));
        let elsewhere = view.ingress().filter(|network| !self.networks.contains(&network.id));
        let known = networks().filter_map(|id| view.networks().get(id)).chain(elsewhere);
        view.common_objects()
            .chain(known.cloned().map(Object::Network))
            .chain(services.cloned().map(Object::Service))
            .chain(endpoints.cloned().map(Object::Endpoint))
            .collect()
    }

    fn narrow(&mut self, view: &View, changes: &[Change]) -> Vec<Change> {
        let before = self.networks.clone();
        self.follow(changes);
        let gained = self.networks.difference(&before);
        let lost = before.difference(&self.networks);

        let mut told: Vec<Change> =
            changes.iter().filter_map(|change| self.narrow_one(change)).collect();
        told.extend(gained.flat_map(|id| whole_network(view, *id)).map(Change::Put));
        told.extend(lost.flat_map(|id| self.forget_network(view, *id)).map(Change::Delete));
        told
    }

    /// Keeps up with the node's endpoints, which never change their network or node.
    fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(Object::Endpoint(e)) if e.node == self.node => {
                    self.local.insert(e.id, e.network);
                }
                Change::Delete(ObjectKey::Endpoint(id)) => {
                    self.local.remove(id);
                }
                _ => {}
            }
        }
        self.networks = self.local.values().copied().collect();
    }

    fn narrow_one(&self, change: &Change) -> Option<Change> {
        match change {
            Change::Put(object) if self.concerns(object) => Some(change.clone()),
            // It may have left a network that concerns the node.
            Change::Put(Object::Service(service)) => {
                Some(Change::Delete(ObjectKey::Service(service.id)))
            }
            Change::Put(_) => None,
            // The key does not say which network it was on, or whether it was the ingress network;
            // deleting what is unknown is harmless.
            Change::Delete(_) => Some(change.clone()),
        }
    }

    fn concerns(&self, object: &Object) -> bool {
        match object {
            Object::Network(Network { id, spec, .. }) => spec.ingress || self.networks.contains(id),
            Object::Endpoint(Endpoint { network, .. }) => self.networks.contains(network),
            Object::Service(service) => self.concerns_service(service),
            Object::Cluster(_)
            | Object::Node(_)
            | Object::KeyEpoch(_)
            | Object::NodeKey(_)
            | Object::GossipKeys(_) => true,
        }
    }

    fn concerns_service(&self, service: &Service) -> bool {
        service.networks().any(|id| self.networks.contains(&id))
    }

    /// What was told because of the network, and is not because of another one.
    fn forget_network(&self, view: &View, id: NetworkId) -> impl Iterator<Item = ObjectKey> {
        let endpoints = view.endpoints_on(id).map(|endpoint| ObjectKey::Endpoint(endpoint.id));
        let services = view.services_on(id).filter(|service| !self.concerns_service(service));
        let services = services.map(|service| ObjectKey::Service(service.id));
        let known_to_all = view.networks().get(&id).is_some_and(|network| network.spec.ingress);
        let network = (!known_to_all).then_some(ObjectKey::Network(id));
        endpoints.chain(services).chain(network)
    }
}

fn is_secret(change: &Change) -> bool {
    matches!(change, Change::Put(object) if is_gossip(object))
}

const fn is_gossip(object: &Object) -> bool {
    matches!(object, Object::GossipKeys(_))
}

fn whole_network(view: &View, id: NetworkId) -> impl Iterator<Item = Object> {
    let network = view.networks().get(&id).cloned().map(Object::Network);
    let services = view.services_on(id).cloned().map(Object::Service);
    let endpoints = view.endpoints_on(id).cloned().map(Object::Endpoint);
    network.into_iter().chain(services).chain(endpoints)
}

#[cfg(test)]
mod tests;
