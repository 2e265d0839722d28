//! What of the state concerns a node: its networks, with their endpoints and services.

use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{
    Change, Endpoint, EndpointId, Network, NetworkId, NodeId, Object, ObjectKey, Service, View,
};

/// What one subscriber wants to know.
///
/// The cluster, nodes, key epochs and public keys concern everyone. A network concerns a node
/// while it has an endpoint there; so do the network's endpoints and the services on it.
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
    local: BTreeMap<EndpointId, NetworkId>,
    networks: BTreeSet<NetworkId>,
}

impl Interest {
    /// What concerns `node`, as things stand in `view`.
    pub fn of_node(node: NodeId, view: &View) -> Self {
        let local: BTreeMap<_, _> = view
            .endpoints()
            .values()
            .filter(|endpoint| endpoint.node == node)
            .map(|endpoint| (endpoint.id, endpoint.network))
            .collect();
        let networks = local.values().copied().collect();
        Self::Node(NodeInterest { node, local, networks })
    }

    /// Every object of `view` that concerns the subscriber.
    pub fn snapshot<'a>(&'a self, view: &'a View) -> impl Iterator<Item = Object> + 'a {
        view.objects().filter(|object| self.concerns(object))
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
        let Self::Node(interest) = self else {
            return changes.iter().filter(|c| !is_secret(c)).cloned().collect();
        };
        let before = interest.networks.clone();
        interest.follow(changes);
        let gained: Vec<_> = interest.networks.difference(&before).copied().collect();
        let lost: Vec<_> = before.difference(&interest.networks).copied().collect();

        let mut told: Vec<Change> =
            changes.iter().filter_map(|change| self.narrow_one(change)).collect();
        told.extend(gained.into_iter().flat_map(|id| whole_network(view, id)).map(Change::Put));
        for network in lost {
            told.extend(self.forget_network(view, network));
        }
        told
    }

    fn narrow_one(&self, change: &Change) -> Option<Change> {
        match change {
            Change::Put(object) if self.concerns(object) => Some(change.clone()),
            // It may have left a network that concerns the node. Endpoints never change their network or node.
            Change::Put(Object::Service(service)) => {
                Some(Change::Delete(ObjectKey::Service(service.id)))
            }
            Change::Put(_) => None,
            // The key does not say which network it was on; deleting what is unknown is harmless.
            Change::Delete(_) => Some(change.clone()),
        }
    }

    fn concerns(&self, object: &Object) -> bool {
        let networks = match self {
            Self::Everything => return !matches!(object, Object::GossipKeys(_)),
            Self::Node(interest) => &interest.networks,
        };
        match object {
            Object::Network(Network { id, .. })
            | Object::Endpoint(Endpoint { network: id, .. }) => networks.contains(id),
            Object::Service(service) => networks_of(service).any(|id| networks.contains(&id)),
            Object::Cluster(_)
            | Object::Node(_)
            | Object::KeyEpoch(_)
            | Object::NodeKey(_)
            | Object::GossipKeys(_) => true,
        }
    }

    fn forget_network(&self, view: &View, network: NetworkId) -> Vec<Change> {
        let endpoints = view.endpoints_on(network).map(|e| ObjectKey::Endpoint(e.id));
        let services = view
            .services()
            .values()
            .filter(|s| networks_of(s).any(|id| id == network))
            .filter(|s| !self.concerns(&Object::Service((*s).clone())))
            .map(|s| ObjectKey::Service(s.id));
        endpoints.chain(services).chain([ObjectKey::Network(network)]).map(Change::Delete).collect()
    }
}

impl NodeInterest {
    /// The node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(Object::Endpoint(e)) if e.node == self.node => {
                    self.local.insert(e.id, e.network);
                }
                Change::Put(Object::Endpoint(Endpoint { id, .. }))
                | Change::Delete(ObjectKey::Endpoint(id)) => {
                    self.local.remove(id);
                }
                _ => {}
            }
        }
        self.networks = self.local.values().copied().collect();
    }
}

fn is_secret(change: &Change) -> bool {
    matches!(change, Change::Put(Object::GossipKeys(_)))
}

fn networks_of(service: &Service) -> impl Iterator<Item = NetworkId> {
    let asked = service.spec.networks.iter().map(|n| n.network);
    asked.chain(service.vips.keys().copied())
}

fn whole_network(view: &View, id: NetworkId) -> impl Iterator<Item = Object> {
    let network = view.networks().get(&id).cloned().map(Object::Network);
    let services =
        view.services().values().filter(move |s| networks_of(s).any(|network| network == id));
    network
        .into_iter()
        .chain(services.cloned().map(Object::Service))
        .chain(view.endpoints_on(id).cloned().map(Object::Endpoint))
}

#[cfg(test)]
mod tests;
