//! Published ports of services: who may have them on this host, and where they lead.

use core::net::IpAddr;
use std::collections::BTreeMap;

use overlay_types::{EndpointId, PortSpec, PublishMode};

use super::{
    super::nft::{
        publish::{HostPort, Ports, Target},
        reservation::Reservation,
    },
    Concerned, Found, KernelMesh, MeshOutcome,
    addresses::Numbers,
};
use crate::{
    Error,
    desired::{Backend, Mesh, MeshPort, MeshService},
};

impl KernelMesh {
    /// Takes the ports that are not taken yet, so that nobody else can have them.
    pub(super) fn reserve(&mut self, mesh: &Mesh, outcome: &mut MeshOutcome) {
        let wanted = mesh
            .services
            .iter()
            .flat_map(|(id, service)| service.ports.iter().map(|port| (host_port(port), *id)));
        let missing: Vec<_> = wanted.filter(|(port, _)| !self.held.contains_key(port)).collect();
        if missing.is_empty() {
            return;
        }
        let take = || {
            let taken = missing.into_iter().map(|(port, who)| (port, who, Reservation::take(port)));
            Ok(taken.collect::<Vec<_>>())
        };
        for (port, service, taken) in self.netns.enter(take).unwrap_or_default() {
            match taken {
                Ok(reservation) => drop(self.held.insert(port, reservation)),
                // The address is another node's.
                Err(error) if error.source.kind() == std::io::ErrorKind::AddrNotAvailable => {}
                Err(error) => {
                    outcome.refused.push((Concerned::Service(service), error.into()));
                }
            }
        }
    }

    /// Where published ports lead, of those that this process holds.
    pub(super) fn ports(
        &self,
        mesh: &Mesh,
        found: &Found,
        numbers: &Numbers,
        outcome: &mut MeshOutcome,
    ) -> Ports {
        let has = found.has();
        let mut ports = Ports::new();
        for (id, service) in &mesh.services {
            let Some(number) = numbers.get(id) else { continue };
            let addresses = found.cable.addresses(*number, has);
            for port in &service.ports {
                let host = host_port(port);
                if !self.held.contains_key(&host) {
                    continue;
                }
                let answers = |on: IpAddr| has[usize::from(on.is_ipv6())];
                if host.address.is_none_or(answers) {
                    ports.entry(host).or_insert(Target { addresses, port: port.target });
                } else if let Some(port) = spec(port) {
                    let reason = "the ingress network has no addresses of that version of IP";
                    let error = Error::Publish { port, reason };
                    outcome.refused.push((Concerned::Service(*id), error));
                }
            }
        }
        ports
    }
}

/// Backends that get new flows, and those that keep what they have.
pub(super) fn backends(service: &MeshService, mesh: &Mesh) -> BTreeMap<EndpointId, Backend> {
    let mut backends = service.backends.clone();
    let is_here = |id: &EndpointId| mesh.tasks.contains_key(id);
    let has_own = backends.iter().any(|(id, backend)| is_here(id) && !backend.draining);
    if service.prefer_local && has_own {
        for (_, backend) in backends.iter_mut().filter(|(id, _)| !is_here(id)) {
            backend.draining = true;
        }
    }
    backends
}

const fn host_port(port: &MeshPort) -> HostPort {
    HostPort { protocol: port.protocol, address: port.bind, port: port.published }
}

/// The port as users know it.
fn spec(port: &MeshPort) -> Option<PortSpec> {
    Some(PortSpec {
        protocol: port.protocol,
        target: port.target.try_into().ok()?,
        published: Some(port.published.try_into().ok()?),
        mode: PublishMode::Ingress,
        host_ip: port.bind,
    })
}
