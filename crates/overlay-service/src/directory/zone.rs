//! Names, addresses and services of one network.

use core::net::IpAddr;
use std::sync::Arc;

use overlay_types::{
    Addresses, Endpoint, EndpointId, EndpointMode, Name, Network, NetworkId, NodeId, Service,
    ServiceId, Subnet,
};

use crate::cow_map::CowMap;

/// Who has a name or an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Holder {
    /// A service: its virtual address, or its tasks.
    Service(ServiceId),
    /// An endpoint.
    Endpoint(EndpointId),
}

/// All who share a name or an address, in order. One is the rule, and costs no allocation.
///
/// That each holder stands for itself is what keeps an alias alive while anyone has it.
#[derive(Clone, Debug, Default)]
pub(crate) enum Holders {
    #[default]
    None,
    One(Holder),
    Many(Vec<Holder>),
}

impl Holders {
    pub(crate) fn as_slice(&self) -> &[Holder] {
        match self {
            Self::None => &[],
            Self::One(holder) => core::slice::from_ref(holder),
            Self::Many(holders) => holders,
        }
    }

    fn add(&mut self, holder: Holder) {
        let Err(place) = self.as_slice().binary_search(&holder) else { return };
        match self {
            Self::None => *self = Self::One(holder),
            Self::One(other) => {
                let mut holders = vec![*other];
                holders.insert(place, holder);
                *self = Self::Many(holders);
            }
            Self::Many(holders) => holders.insert(place, holder),
        }
    }

    fn remove(&mut self, holder: Holder) {
        match self {
            Self::One(other) if *other == holder => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(holders) => {
                holders.retain(|other| *other != holder);
                if let [last] = holders[..] {
                    *self = Self::One(last);
                }
            }
        }
    }
}

/// A task of a service, with what an answer needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) endpoint: EndpointId,
    pub(crate) node: NodeId,
    pub(crate) addresses: Addresses,
    pub(crate) ready: bool,
}

/// A service on one network. Tasks can be known before their service is.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceEntry {
    pub(crate) service: Option<Arc<Service>>,
    /// Its mode and its virtual addresses here, none in dnsrr mode: copies, so that the most
    /// frequent answers need not look at the service.
    pub(crate) mode: EndpointMode,
    pub(crate) vip: Addresses,
    /// In the order of endpoint ids.
    pub(crate) tasks: Vec<Task>,
}

/// What the zone needs of its network.
#[derive(Clone, Debug)]
struct Info {
    /// Lower case; `None` if the name cannot be part of a DNS name.
    suffix: Option<Box<str>>,
    name: Name,
    internal: bool,
    ingress: bool,
    subnets: Box<[Subnet]>,
}

/// Names, addresses and services of one network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    /// `None` while the network itself is unknown: then it answers nothing.
    info: Option<Info>,
    /// Keys are lower case.
    names: CowMap<Box<str>, Holders>,
    addresses: CowMap<IpAddr, Holders>,
    services: CowMap<ServiceId, Arc<ServiceEntry>>,
}

impl Zone {
    pub(crate) fn is_known(&self) -> bool {
        self.info.is_some()
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.info.as_ref().is_none_or(|info| info.internal)
    }

    pub(crate) fn is_ingress(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.ingress)
    }

    /// The network's name in lower case, if it can be part of a DNS name.
    pub(crate) fn suffix(&self) -> Option<&str> {
        self.info.as_ref()?.suffix.as_deref()
    }

    /// The name under which `name` is found from everywhere: `name.network.`
    pub(crate) fn qualify(&self, name: &str) -> String {
        let network = self.info.as_ref().filter(|info| info.suffix.is_some());
        let parts = [name, ".", network.map_or("", |n| &n.name), network.map_or("", |_| ".")];
        parts.concat()
    }

    /// Whether `address` lies in a subnet of the network.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.info.iter().flat_map(|info| &info.subnets).any(|s| s.contains(address))
    }

    /// Who has the name, which is in lower case.
    pub(crate) fn holders(&self, name: &str) -> &[Holder] {
        self.names.get(name).map_or(&[], Holders::as_slice)
    }

    /// Who has the address.
    pub(crate) fn holders_of(&self, address: IpAddr) -> &[Holder] {
        self.addresses.get(&address).map_or(&[], Holders::as_slice)
    }

    pub(crate) fn service(&self, id: ServiceId) -> Option<&ServiceEntry> {
        self.services.get(&id).map(Arc::as_ref)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.info.is_none()
            && self.names.is_empty()
            && self.addresses.is_empty()
            && self.services.is_empty()
    }

    pub(super) fn set_network(&mut self, network: Option<&Network>) {
        self.info = network.map(|network| Info {
            suffix: dns_form(&network.spec.name),
            name: network.spec.name.clone(),
            internal: network.spec.internal,
            ingress: network.spec.ingress,
            subnets: network.subnets.iter().map(|s| s.subnet).collect(),
        });
    }

    pub(super) fn add_service(&mut self, service: &Arc<Service>, network: NetworkId) {
        let vip = virtual_addresses(service, network);
        let entry = self.entry(service.id);
        entry.service = Some(Arc::clone(service));
        entry.mode = service.spec.mode;
        entry.vip = vip;
        self.add(Holder::Service(service.id), service_names(service, network), vip);
    }

    pub(super) fn remove_service(&mut self, service: &Service, network: NetworkId) {
        let vip = virtual_addresses(service, network);
        self.entry(service.id).service = None;
        self.sweep(service.id);
        self.remove(Holder::Service(service.id), service_names(service, network), vip);
    }

    pub(super) fn add_endpoint(&mut self, endpoint: &Endpoint) {
        let Endpoint { id, node, addresses, .. } = *endpoint;
        if let Some(service) = endpoint.service {
            let tasks = &mut self.entry(service).tasks;
            if let Err(place) = tasks.binary_search_by_key(&id, |t| t.endpoint) {
                let ready = endpoint.is_ready();
                tasks.insert(place, Task { endpoint: id, node, addresses, ready });
            }
        }
        self.add(Holder::Endpoint(id), endpoint_names(endpoint), addresses);
    }

    pub(super) fn remove_endpoint(&mut self, endpoint: &Endpoint) {
        if let Some(service) = endpoint.service {
            let tasks = &mut self.entry(service).tasks;
            if let Ok(place) = tasks.binary_search_by_key(&endpoint.id, |t| t.endpoint) {
                tasks.remove(place);
            }
            self.sweep(service);
        }
        let holder = Holder::Endpoint(endpoint.id);
        self.remove(holder, endpoint_names(endpoint), endpoint.addresses);
    }

    fn entry(&mut self, id: ServiceId) -> &mut ServiceEntry {
        Arc::make_mut(self.services.entry(id))
    }

    /// Forgets a service that is unknown and has no tasks.
    fn sweep(&mut self, id: ServiceId) {
        if self.service(id).is_some_and(|e| e.service.is_none() && e.tasks.is_empty()) {
            self.services.remove(&id);
        }
    }

    fn add<'a>(
        &mut self,
        holder: Holder,
        names: impl Iterator<Item = &'a Name>,
        addresses: Addresses,
    ) {
        for name in names.filter_map(dns_form) {
            self.names.entry(name).add(holder);
        }
        for address in addresses.iter() {
            self.addresses.entry(address).add(holder);
        }
    }

    /// Undoes `add` with the same arguments. A name that was given twice is gone the first time.
    fn remove<'a>(
        &mut self,
        holder: Holder,
        names: impl Iterator<Item = &'a Name>,
        addresses: Addresses,
    ) {
        for name in names.filter_map(dns_form) {
            if let Some(holders) = self.names.get_mut(&name) {
                holders.remove(holder);
                if holders.as_slice().is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in addresses.iter() {
            if let Some(holders) = self.addresses.get_mut(&address) {
                holders.remove(holder);
                if holders.as_slice().is_empty() {
                    self.addresses.remove(&address);
                }
            }
        }
    }
}

/// Whether the name can be part of a DNS name: not with an empty label (`a..b`), which no question
/// can ask for.
pub(crate) fn is_dns_name(name: &Name) -> bool {
    !name.contains("..")
}

/// The name as it is looked up: lower case.
fn dns_form(name: &Name) -> Option<Box<str>> {
    is_dns_name(name).then(|| name.to_ascii_lowercase().into())
}

/// The mode decides, so that no address outlives a change to dnsrr.
fn virtual_addresses(service: &Service, network: NetworkId) -> Addresses {
    match service.spec.mode {
        EndpointMode::Vip => service.vips.get(&network).copied().unwrap_or_default(),
        EndpointMode::Dnsrr => Addresses::default(),
    }
}

fn service_names(service: &Service, network: NetworkId) -> impl Iterator<Item = &Name> {
    let attachment = service.spec.networks.iter().find(move |n| n.network == network);
    core::iter::once(&service.spec.name).chain(attachment.into_iter().flat_map(|n| &n.aliases))
}

fn endpoint_names(endpoint: &Endpoint) -> impl Iterator<Item = &Name> {
    endpoint.name.iter().chain(endpoint.aliases())
}
