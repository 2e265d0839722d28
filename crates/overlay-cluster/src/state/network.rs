//! Networks: names, subnets, VNIs.

use core::fmt;

use overlay_ipam::{Family, NetworkIpam, Occupied, Owner, Pools, Request};
use overlay_types::{
    Change, Endpoint, Network, NetworkId, NetworkSpec, Object, ObjectKey, Revision, Service,
    Subnet, SubnetSpec, View, Vni,
};

use super::{
    Applied, Rejection, Response, State, Wanted,
    apply::{Context, MAX_NETWORKS, Outcome, check_room},
    cluster::check_fresh,
    command::MAX_HOST_ROUTES,
    index::{folded, owner_name},
    kind::Kind,
    rejection::some_of,
};

/// A network that can be created: nothing of it is in the state yet.
pub(super) struct PlannedNetwork {
    network: Network,
    ipam: NetworkIpam,
    /// Services that get on it, with their new virtual addresses.
    services: Vec<Service>,
}

impl State {
    pub(super) fn create_network(
        &mut self,
        context: Context,
        id: NetworkId,
        spec: &NetworkSpec,
        host_routes: &[Subnet],
    ) -> Outcome {
        let planned = self.plan_network(context, &self.pools, (id, spec), host_routes)?;
        Ok(self.adopt_network(planned))
    }

    /// Everything that can go wrong in creating a network.
    pub(super) fn plan_network(
        &self,
        context: Context,
        pools: &Pools,
        (id, spec): (NetworkId, &NetworkSpec),
        host_routes: &[Subnet],
    ) -> Result<PlannedNetwork, Rejection> {
        check_room(Kind::Network, self.view.networks().len(), MAX_NETWORKS)?;
        if self.view.networks().contains_key(&id) {
            return Err(Rejection::IdTaken { kind: Kind::Network, id: id.to_string() });
        }
        if let Some(holder) = self.index.networks.get(&folded(&spec.name)) {
            let (name, id) = (spec.name.clone(), holder.to_string());
            return Err(Rejection::NameTaken { kind: Kind::Network, name, id });
        }
        let ingress = self.index.ingress.and_then(|id| owner_name(&self.view, id));
        if let Some(name) = ingress.filter(|_| spec.ingress) {
            return Err(Rejection::IngressExists { name: name.clone() });
        }
        let vni = self.choose_vni(spec.vni)?;

        let mut specs = spec.subnets.clone();
        let mut requests: Vec<Request<Subnet>> =
            specs.iter().map(|s| Request::Exactly(s.subnet)).collect();
        for (wanted, family) in [(spec.ipv4, Family::V4), (spec.ipv6, Family::V6)] {
            if wanted && !specs.iter().any(|s| Family::of_subnet(s.subnet) == family) {
                requests.push(Request::Any(family));
            }
        }
        let subnets = self.claim(pools, &requests, host_routes)?;
        specs.extend(subnets[specs.len()..].iter().map(|subnet| SubnetSpec::new(*subnet)));
        let mut ipam = NetworkIpam::new(specs)?;
        let services = if spec.ingress {
            self.join_ingress(context, id, spec, &mut ipam)?
        } else {
            Vec::new()
        };
        let network = Network {
            id,
            meta: context.created(),
            spec: spec.clone(),
            vni,
            subnets: ipam.subnets().collect(),
        };
        Ok(PlannedNetwork { network, ipam, services })
    }

    pub(super) fn adopt_network(&mut self, planned: PlannedNetwork) -> Applied {
        let PlannedNetwork { network, ipam, services } = planned;
        if network.spec.vni.is_none() {
            self.vni_cursor = network.vni.get() + 1;
        }
        self.ipam.insert(network.id, ipam);
        let mut changes = vec![Change::Put(Object::Network(network.clone()))];
        changes.extend(services.into_iter().map(|s| Change::Put(Object::Service(s))));
        Applied { response: Response::Network(network), changes }
    }

    pub(super) fn update_network(
        &mut self,
        context: Context,
        (id, based_on): (NetworkId, Revision),
        spec: &NetworkSpec,
        host_routes: &[Subnet],
    ) -> Outcome {
        let old = self.network(id)?;
        check_fresh(Kind::Network, &old.spec.name, based_on, old.meta.changed_at)?;
        check_frozen(&old.spec, spec)?;
        if *spec == old.spec {
            return Ok(Applied::unchanged(Response::Network(old.clone())));
        }
        let added: Vec<&SubnetSpec> =
            spec.subnets.iter().filter(|s| !old.spec.subnets.contains(s)).collect();
        let requests: Vec<_> = added.iter().map(|s| Request::Exactly(s.subnet)).collect();
        self.claim(&self.pools, &requests, host_routes)?;
        // A copy, so that a subnet that is refused takes those before it along. Growing is rare.
        let mut ipam = self.ipam_of(id)?.clone();
        for subnet in added {
            ipam.add_subnet(subnet.clone())?;
        }
        let network = Network {
            id,
            meta: context.changed(old.meta),
            spec: spec.clone(),
            vni: old.vni,
            subnets: ipam.subnets().collect(),
        };
        self.ipam.insert(id, ipam);
        Ok(Applied::put(Response::Network(network.clone()), Object::Network(network)))
    }

    pub(super) fn remove_network(&mut self, context: Context, wanted: &Wanted) -> Outcome {
        let network = self.find_network(wanted.as_str())?;
        let id = network.id;
        // Nodes' places in the mesh are no users: they are there for the network.
        let (places, users): (Vec<&Endpoint>, Vec<&Endpoint>) =
            self.view.endpoints_on(id).partition(|endpoint| endpoint.is_mesh());
        let mut users = users.into_iter().map(|e| self.endpoint_label(e)).peekable();
        if users.peek().is_some() {
            return Err(Rejection::NetworkInUse {
                network: network.spec.name.clone(),
                users: some_of(users),
                remedy: "detach them first".into(),
            });
        }
        let services = self.index.services_on(id).filter_map(|s| self.view.services().get(&s));
        // A service that named no network and publishes nothing needs no ingress network (N07).
        let (leaving, holding): (Vec<&Service>, Vec<&Service>) = services
            .partition(|s| network.spec.ingress && !super::service::publishes(&s.spec.ports));
        if !holding.is_empty() {
            let users = holding.iter().map(|s| format!("service {}", s.spec.name));
            let remedy = if network.spec.ingress {
                "remove their published ports first"
            } else {
                "take it from the services first"
            };
            return Err(Rejection::NetworkInUse {
                network: network.spec.name.clone(),
                users: some_of(users),
                remedy: remedy.into(),
            });
        }
        let mut changes: Vec<Change> = leaving
            .into_iter()
            .map(|service| {
                let mut service = service.clone();
                service.vips.remove(&id);
                service.meta = context.changed(service.meta);
                Change::Put(Object::Service(service))
            })
            .collect();
        changes.extend(places.iter().map(|place| Change::Delete(ObjectKey::Endpoint(place.id))));
        changes.push(Change::Delete(ObjectKey::Network(id)));
        self.ipam.remove(&id);
        Ok(Applied { response: Response::Done, changes })
    }

    /// The requested VNI, or the next free one at or after the cursor.
    fn choose_vni(&self, requested: Option<Vni>) -> Result<Vni, Rejection> {
        let free = self.next_vni();
        let Some(vni) = requested else { return Ok(free) };
        match self.index.vnis.get(&vni).and_then(|id| owner_name(&self.view, *id)) {
            None => Ok(vni),
            Some(network) => Err(Rejection::VniTaken { vni, network: network.clone(), free }),
        }
    }

    /// There is one always: there are a thousand times more VNIs than networks.
    fn next_vni(&self) -> Vni {
        let cursor = self.vni_cursor.clamp(Vni::MIN_OVERLAY, Vni::MAX);
        let candidates = (cursor..=Vni::MAX).chain(Vni::MIN_OVERLAY..cursor);
        candidates
            .filter_map(Vni::new)
            .find(|vni| !self.index.vnis.contains_key(vni))
            .expect("MAX_NETWORKS is far below the number of VNIs")
    }

    fn claim(
        &self,
        pools: &Pools,
        requests: &[Request<Subnet>],
        host_routes: &[Subnet],
    ) -> Result<Vec<Subnet>, Rejection> {
        if host_routes.len() > MAX_HOST_ROUTES {
            let reason = format!("at most {MAX_HOST_ROUTES}; send the aggregates");
            return Err(Rejection::invalid("host_routes", host_routes.len(), reason));
        }
        // Most networks name no subnet. Each family is asked for once.
        let family = |request: &Request<Subnet>| match request {
            Request::Any(family) => Some(*family),
            Request::Exactly(_) => None,
        };
        let networks = self.index.subnets.keys().copied();
        let first_free = |family| pools.first_free(family, networks.clone(), host_routes);
        let free = requests.iter().map(|request| first_free(family(request)?));
        if let Some(free) = free.collect() {
            return Ok(free);
        }
        let routes: Vec<(Subnet, String)> =
            host_routes.iter().map(|route| (*route, route.to_string())).collect();
        let networks = self.index.subnets.iter().map(|(subnet, id)| {
            let owner = Owner::Network(NameOf { view: &self.view, network: *id });
            Occupied { subnet: *subnet, owner }
        });
        let routes = routes
            .iter()
            .map(|(subnet, text)| Occupied { subnet: *subnet, owner: Owner::HostRoute(text) });
        Ok(pools.claim(requests, networks.chain(routes))?)
    }
}

/// Finds a network's name, for those few that are told.
struct NameOf<'a> {
    view: &'a View,
    network: NetworkId,
}

impl fmt::Display for NameOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        owner_name(self.view, self.network).map_or(Ok(()), |name| name.fmt(f))
    }
}

/// Refuses a change of what cannot change (N11).
fn check_frozen(old: &NetworkSpec, new: &NetworkSpec) -> Result<(), Rejection> {
    let option = |value: Option<u32>| value.map_or_else(|| "default".to_owned(), |v| v.to_string());
    let differs = [
        ("name", old.name != new.name, new.name.to_string()),
        ("ipv4", old.ipv4 != new.ipv4, new.ipv4.to_string()),
        ("ipv6", old.ipv6 != new.ipv6, new.ipv6.to_string()),
        ("internal", old.internal != new.internal, new.internal.to_string()),
        ("attachable", old.attachable != new.attachable, new.attachable.to_string()),
        ("ingress", old.ingress != new.ingress, new.ingress.to_string()),
        ("encrypted", old.encrypted != new.encrypted, new.encrypted.to_string()),
        ("multicast", old.multicast != new.multicast, new.multicast.to_string()),
        ("mtu", old.mtu != new.mtu, option(new.mtu.map(Into::into))),
        ("vni", old.vni != new.vni, option(new.vni.map(Vni::get))),
    ];
    if let Some((field, _, value)) = differs.into_iter().find(|(_, differs, _)| *differs) {
        let reason = "it cannot change; only labels can, and subnets be added";
        return Err(Rejection::invalid(field, value, reason));
    }
    match old.subnets.iter().find(|s| !new.subnets.contains(s)) {
        None => Ok(()),
        Some(kept) => {
            let reason = "a subnet of a network cannot change or be removed, only added";
            Err(Rejection::invalid("subnet", kept.subnet, reason))
        }
    }
}
