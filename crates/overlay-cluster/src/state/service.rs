//! Services: names, networks, virtual addresses.

use std::collections::{BTreeMap, BTreeSet};

use overlay_ipam::{Family, IpamError, NetworkIpam};
use overlay_types::{
    Addresses, EndpointMode, FeatureLevel, NetworkId, NetworkSpec, NodeId, Object, ObjectKey,
    PortSpec, PublishMode, Revision, Service, ServiceId, ServiceSpec,
};

use super::{
    Applied, Rejection, Response, State, Wanted,
    apply::{Context, MAX_SERVICES, Outcome, check_room},
    cluster::check_fresh,
    index::{PortUser, folded},
    kind::Kind,
    port::Assigned,
    rejection::some_of,
};

/// Whether a port goes through the routing mesh.
pub(super) fn publishes(ports: &[PortSpec]) -> bool {
    ports.iter().any(|p| p.mode == PublishMode::Ingress)
}

impl State {
    pub(super) fn create_service(
        &mut self,
        context: Context,
        id: ServiceId,
        spec: &ServiceSpec,
    ) -> Outcome {
        check_room(Kind::Service, self.view.services().len(), MAX_SERVICES)?;
        if self.view.services().contains_key(&id) {
            return Err(Rejection::IdTaken { kind: Kind::Service, id: id.to_string() });
        }
        if let Some(holder) = self.index.services.get(&folded(&spec.name)) {
            let (name, id) = (spec.name.clone(), holder.to_string());
            return Err(Rejection::NameTaken { kind: Kind::Service, name, id });
        }
        let networks = self.networks_of(spec)?;
        let ports = self.assign_ports(&spec.ports, &[], PortUser::Service(id))?;
        let spec = with_ports(spec, &ports)?;
        let vips = self.replace_vips(&BTreeMap::new(), &networks, spec.mode)?;
        self.keep_port_cursor(&ports);
        let service = Service { id, meta: context.created(), spec, vips, previous: None };
        Ok(Applied::put(Response::Service(service.clone()), Object::Service(service)))
    }

    pub(super) fn update_service(
        &mut self,
        context: Context,
        (id, based_on): (ServiceId, Revision),
        spec: &ServiceSpec,
    ) -> Outcome {
        let old = self.service(id)?.clone();
        check_fresh(Kind::Service, &old.spec.name, based_on, old.meta.changed_at)?;
        if spec.name != old.spec.name {
            let reason = format!("a service keeps its name, here {}", old.spec.name);
            return Err(Rejection::invalid("name", &spec.name, reason));
        }
        let networks = self.networks_of(spec)?;
        let stranded = self.view.tasks_of(id).filter(|task| !networks.contains(&task.network));
        let mut stranded = stranded.map(|task| self.endpoint_label(task)).peekable();
        if stranded.peek().is_some() {
            let endpoints = some_of(stranded);
            return Err(Rejection::ServiceInUse { service: old.spec.name.clone(), endpoints });
        }
        drop(stranded);
        let ports = self.assign_ports(&spec.ports, &old.spec.ports, PortUser::Service(id))?;
        self.check_tasks_apart(id, &ports.ports, None)?;
        let nodes: BTreeSet<NodeId> = self.view.tasks_of(id).map(|task| task.node).collect();
        for node in nodes {
            self.check_host_ports(node, &ports.ports, PortUser::Service(id))?;
        }
        let spec = with_ports(spec, &ports)?;
        let vips = self.replace_vips(&old.vips, &networks, spec.mode)?;
        self.keep_port_cursor(&ports);
        let service = Service { spec, vips, ..old.clone() };
        if service == old {
            return Ok(Applied::unchanged(Response::Service(service)));
        }
        // Older managers would not read it.
        let keeps = self.view.cluster().is_some_and(|c| c.level >= FeatureLevel::SECOND);
        let previous = (keeps && service.spec != old.spec).then(|| Box::new(old.spec));
        let (meta, previous) = (context.changed(old.meta), previous.or(old.previous));
        let service = Service { meta, previous, ..service };
        Ok(Applied::put(Response::Service(service.clone()), Object::Service(service)))
    }

    pub(super) fn remove_service(&mut self, wanted: &Wanted) -> Outcome {
        let service = self.find_service(wanted.as_str())?;
        let id = service.id;
        let mut tasks = self.view.tasks_of(id).map(|task| self.endpoint_label(task)).peekable();
        if tasks.peek().is_some() {
            let endpoints = some_of(tasks);
            return Err(Rejection::ServiceInUse { service: service.spec.name.clone(), endpoints });
        }
        drop(tasks);
        let vips = service.vips.clone();
        self.release_vips(&vips);
        Ok(Applied::deleted(ObjectKey::Service(id)))
    }

    /// Services without networks of their own, on a new ingress network (S17).
    pub(super) fn join_ingress(
        &self,
        context: Context,
        id: NetworkId,
        spec: &NetworkSpec,
        ipam: &mut NetworkIpam,
    ) -> Result<Vec<Service>, Rejection> {
        let mut joined = Vec::new();
        for service in self.view.services().values().filter(|s| s.spec.networks.is_empty()) {
            let mut service = service.clone();
            let mut addresses = Addresses::default();
            if service.spec.mode == EndpointMode::Vip {
                for family in families(spec) {
                    addresses.set(ipam.allocate(family)?);
                }
            }
            service.vips.insert(id, addresses);
            service.meta = context.changed(service.meta);
            joined.push(service);
        }
        Ok(joined)
    }

    /// The networks that a service of this spec is on: those it names, and the ingress network if
    /// it names none (S17) or publishes through the mesh.
    fn networks_of(&self, spec: &ServiceSpec) -> Result<Vec<NetworkId>, Rejection> {
        let mut networks = Vec::with_capacity(spec.networks.len() + 1);
        for attachment in &spec.networks {
            let network = self.network(attachment.network)?;
            if network.spec.ingress {
                let reason = "a service gets on the ingress network by publishing a port, or by \
                              naming no network";
                return Err(Rejection::invalid("network", &network.spec.name, reason));
            }
            networks.push(network.id);
        }
        let published = spec.ports.iter().find(|p| p.mode == PublishMode::Ingress);
        match (self.index.ingress, published) {
            (Some(ingress), Some(_)) => networks.push(ingress),
            (Some(ingress), None) if networks.is_empty() => networks.push(ingress),
            (None, Some(port)) => return Err(Rejection::NoIngress { port: *port }),
            (_, None) => {}
        }
        Ok(networks)
    }

    /// Addresses on `networks` in this mode: `old` ones stay, the others are allocated or released.
    /// For all of them or, with an error, for none.
    fn replace_vips(
        &mut self,
        old: &BTreeMap<NetworkId, Addresses>,
        networks: &[NetworkId],
        mode: EndpointMode,
    ) -> Result<BTreeMap<NetworkId, Addresses>, Rejection> {
        let mut vips = BTreeMap::new();
        let mut missing = Vec::new();
        for id in networks {
            let kept = old.get(id).copied().filter(|_| mode == EndpointMode::Vip);
            let mut addresses = Addresses::default();
            if mode == EndpointMode::Vip {
                addresses = kept.unwrap_or_default();
                for family in families(&self.network(*id)?.spec) {
                    if !addresses.iter().any(|a| Family::of(a) == family) {
                        check_available(self.ipam_of(*id)?, family)?;
                        missing.push((*id, family));
                    }
                }
            }
            vips.insert(*id, addresses);
        }
        for (id, family) in missing {
            let ipam = self.ipam.get_mut(&id).expect("looked at above");
            let address = ipam.allocate(family).expect("one is available, as checked above");
            vips.entry(id).or_default().set(address);
        }
        let gone = |(id, addresses): (&NetworkId, &Addresses)| {
            let kept = vips.get(id).copied().unwrap_or_default();
            (*id, addresses.iter().filter(|a| !kept.contains(*a)).collect())
        };
        let gone: BTreeMap<NetworkId, Addresses> = old.iter().map(gone).collect();
        self.release_vips(&gone);
        Ok(vips)
    }

    fn release_vips(&mut self, vips: &BTreeMap<NetworkId, Addresses>) {
        for (id, addresses) in vips {
            for address in addresses.iter() {
                self.release(*id, address);
            }
        }
    }
}

/// Families of a network, IPv4 first.
pub(super) fn families(spec: &NetworkSpec) -> impl Iterator<Item = Family> + use<> {
    [(spec.ipv4, Family::V4), (spec.ipv6, Family::V6)]
        .into_iter()
        .filter_map(|(enabled, family)| enabled.then_some(family))
}

/// Refuses if a request for any address of this family would fail.
fn check_available(ipam: &NetworkIpam, family: Family) -> Result<(), Rejection> {
    let usage: Vec<_> =
        ipam.usage().filter(|usage| Family::of_subnet(usage.subnet) == family).collect();
    if usage.iter().any(|usage| usage.available > 0) {
        return Ok(());
    }
    Err(IpamError::Exhausted { family, usage }.into())
}

fn with_ports(spec: &ServiceSpec, assigned: &Assigned) -> Result<ServiceSpec, Rejection> {
    if spec.ports == assigned.ports {
        return Ok(spec.clone());
    }
    let mut draft = spec.clone().into_draft();
    draft.ports.clone_from(&assigned.ports);
    Ok(draft.try_into()?)
}
