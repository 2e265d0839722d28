//! What is looked up by something other than an id. Follows from the view alone.

use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{
    Change, EndpointId, MacAddr, Name, NetworkId, Object, ObjectKey, PortSpec, Protocol, ServiceId,
    Subnet, View, Vni,
};

/// Who publishes a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum PortUser {
    Service(ServiceId),
    Endpoint(EndpointId),
}

/// Indexes of a [`View`].
///
/// Names are keyed in lower case: DNS does not see case, so two names that differ only in it would
/// be one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Index {
    pub(super) networks: BTreeMap<String, NetworkId>,
    pub(super) services: BTreeMap<String, ServiceId>,
    pub(super) vnis: BTreeMap<Vni, NetworkId>,
    pub(super) subnets: BTreeMap<Subnet, NetworkId>,
    pub(super) macs: BTreeMap<(NetworkId, MacAddr), EndpointId>,
    pub(super) ingress: Option<NetworkId>,
    services_on: BTreeSet<(NetworkId, ServiceId)>,
    ports: BTreeSet<(Protocol, u16, PortUser)>,
}

/// A name as the index has it.
pub(super) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl Index {
    /// The indexes of `view`.
    pub(super) fn of(view: &View) -> Self {
        let mut index = Self::default();
        for object in view.objects() {
            index.put(&object);
        }
        index
    }

    /// Takes the changes that `view` is about to take.
    pub(super) fn update(&mut self, view: &View, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(object) => {
                    self.remove(view, object.key());
                    self.put(object);
                }
                Change::Delete(key) => self.remove(view, *key),
            }
        }
    }

    /// Services on a network, in the order of their ids.
    pub(super) fn services_on(&self, network: NetworkId) -> impl Iterator<Item = ServiceId> {
        let last = ServiceId::from_u128(u128::MAX);
        let range = (network, ServiceId::default())..=(network, last);
        self.services_on.range(range).map(|(_, service)| *service)
    }

    /// Who publishes this port.
    pub(super) fn port_users(
        &self,
        protocol: Protocol,
        port: u16,
    ) -> impl Iterator<Item = PortUser> {
        let first = PortUser::Service(ServiceId::default());
        let last = PortUser::Endpoint(EndpointId::from_u128(u128::MAX));
        self.ports.range((protocol, port, first)..=(protocol, port, last)).map(|(_, _, user)| *user)
    }

    fn put(&mut self, object: &Object) {
        match object {
            Object::Network(network) => {
                self.networks.insert(folded(&network.spec.name), network.id);
                self.vnis.insert(network.vni, network.id);
                self.subnets.extend(network.subnets.iter().map(|s| (s.subnet, network.id)));
                if network.spec.ingress {
                    self.ingress = Some(network.id);
                }
            }
            Object::Service(service) => {
                self.services.insert(folded(&service.spec.name), service.id);
                self.services_on.extend(service.vips.keys().map(|network| (*network, service.id)));
                let user = PortUser::Service(service.id);
                self.ports.extend(keys(&service.spec.ports, user));
            }
            Object::Endpoint(endpoint) => {
                self.macs.insert((endpoint.network, endpoint.mac), endpoint.id);
                let user = PortUser::Endpoint(endpoint.id);
                self.ports.extend(keys(endpoint.ports(), user));
            }
            Object::Cluster(_)
            | Object::Node(_)
            | Object::KeyEpoch(_)
            | Object::NodeKey(_)
            | Object::GossipKeys(_) => {}
        }
    }

    fn remove(&mut self, view: &View, key: ObjectKey) {
        match key {
            ObjectKey::Network(id) => {
                let Some(network) = view.networks().get(&id) else { return };
                self.networks.remove(&folded(&network.spec.name));
                self.vnis.remove(&network.vni);
                for subnet in &network.subnets {
                    self.subnets.remove(&subnet.subnet);
                }
                self.ingress = self.ingress.filter(|ingress| *ingress != id);
            }
            ObjectKey::Service(id) => {
                let Some(service) = view.services().get(&id) else { return };
                self.services.remove(&folded(&service.spec.name));
                for network in service.vips.keys() {
                    self.services_on.remove(&(*network, id));
                }
                for key in keys(&service.spec.ports, PortUser::Service(id)) {
                    self.ports.remove(&key);
                }
            }
            ObjectKey::Endpoint(id) => {
                let Some(endpoint) = view.endpoints().get(&id) else { return };
                self.macs.remove(&(endpoint.network, endpoint.mac));
                for key in keys(endpoint.ports(), PortUser::Endpoint(id)) {
                    self.ports.remove(&key);
                }
            }
            ObjectKey::Cluster
            | ObjectKey::Node(_)
            | ObjectKey::KeyEpoch(_)
            | ObjectKey::NodeKey(..)
            | ObjectKey::GossipKeys => {}
        }
    }
}

/// The index entries of published ports.
fn keys(ports: &[PortSpec], user: PortUser) -> impl Iterator<Item = (Protocol, u16, PortUser)> {
    ports.iter().filter_map(move |p| Some((p.protocol, p.published?.get(), user)))
}

/// The name with the case that its owner gave it.
pub(super) fn owner_name(view: &View, network: NetworkId) -> Option<&Name> {
    view.networks().get(&network).map(|n| &n.spec.name)
}
