//! Published ports: who may have which, and those that the cluster chooses.

use core::{num::NonZeroU16, ops::RangeInclusive};
use std::collections::BTreeSet;

use overlay_types::{EndpointId, NetworkId, NodeId, PortSpec, Protocol, PublishMode, ServiceId};

use super::{Rejection, State, index::PortUser};

/// First port that the cluster chooses (S08).
pub(super) const FIRST: u16 = 30_000;
/// Last port that the cluster chooses.
const LAST: u16 = 32_767;

/// Ports of a spec, all of them with a published port.
pub(super) struct Assigned {
    /// In the order of the spec.
    pub(super) ports: Vec<PortSpec>,
    /// Where the next search starts, if a port was chosen.
    cursor: Option<u16>,
}

impl State {
    /// Settles the ports of a service or endpoint: refuses those that others hold cluster-wide,
    /// and chooses those that were left open. An open port that `old` has already stays (S08).
    pub(super) fn assign_ports(
        &self,
        wanted: &[PortSpec],
        old: &[PortSpec],
        user: PortUser,
    ) -> Result<Assigned, Rejection> {
        let mut assigned = Assigned { ports: wanted.to_vec(), cursor: None };
        for port in wanted.iter().filter(|p| p.published.is_some()) {
            self.check_cluster_wide(port, user)?;
        }
        for at in 0..assigned.ports.len() {
            let port = assigned.ports[at];
            if port.published.is_some() {
                continue;
            }
            let same = |o: &&PortSpec| PortSpec { published: None, ..**o } == port;
            let kept = old.iter().find(same).and_then(|o| o.published);
            let taken = |candidate: NonZeroU16| {
                let mut others = assigned.ports.iter().filter(|p| p.protocol == port.protocol);
                others.any(|p| p.published == Some(candidate))
            };
            let published = if let Some(kept) = kept.filter(|port| !taken(*port)) {
                kept
            } else {
                let cursor = assigned.cursor.unwrap_or(self.port_cursor);
                let chosen = self.next_port(port.protocol, cursor, taken);
                let protocol = port.protocol.to_string();
                let chosen = chosen.ok_or(Rejection::NoFreePort { port, protocol })?;
                assigned.cursor = Some(chosen.get() + 1);
                chosen
            };
            assigned.ports[at].published = Some(published);
        }
        Ok(assigned)
    }

    /// Remembers where the next search starts. Once the command is sure to be accepted.
    pub(super) fn keep_port_cursor(&mut self, assigned: &Assigned) {
        self.port_cursor = assigned.cursor.unwrap_or(self.port_cursor);
    }

    /// Refuses host ports that somebody else on this node holds. `user` is a standalone endpoint,
    /// or the service of a task.
    pub(super) fn check_host_ports(
        &self,
        node: NodeId,
        ports: &[PortSpec],
        user: PortUser,
    ) -> Result<(), Rejection> {
        for port in ports.iter().filter(|p| is_on_host(p, user)) {
            let Some(published) = port.published else { continue };
            let holders = self.index.port_users(port.protocol, published.get());
            for holder in holders.filter(|holder| *holder != user) {
                if self.holds_on(node, holder, port) {
                    return Err(self.port_taken(*port, holder));
                }
            }
        }
        Ok(())
    }

    /// Refuses a second task of a service with host ports on one node.
    ///
    /// Endpoints on different networks may be one task, and share its ports. `joining` is where a
    /// task is about to be attached.
    pub(super) fn check_tasks_apart(
        &self,
        service: ServiceId,
        ports: &[PortSpec],
        joining: Option<(NodeId, NetworkId)>,
    ) -> Result<(), Rejection> {
        let Some(port) = ports.iter().find(|p| p.mode == PublishMode::Host) else {
            return Ok(());
        };
        let mut places: BTreeSet<(NodeId, NetworkId)> = joining.into_iter().collect();
        match self.view.tasks_of(service).find(|task| !places.insert((task.node, task.network))) {
            None => Ok(()),
            Some(task) => {
                Err(Rejection::PortTaken { port: *port, holder: self.endpoint_label(task) })
            }
        }
    }

    /// Whether `holder` holds this host port on this node.
    fn holds_on(&self, node: NodeId, holder: PortUser, port: &PortSpec) -> bool {
        match holder {
            PortUser::Endpoint(id) => {
                let endpoint = self.view.endpoints().get(&id).filter(|e| e.node == node);
                endpoint.is_some_and(|e| e.ports().iter().any(|p| p.is_same_socket(port)))
            }
            PortUser::Service(id) => {
                let here = || self.view.tasks_of(id).any(|task| task.node == node);
                self.service_ports(id)
                    .any(|p| p.is_same_socket(port) && (p.mode == PublishMode::Ingress || here()))
            }
        }
    }

    /// Refuses a port that is held on every node, or, by the mesh, that anybody holds anywhere.
    fn check_cluster_wide(&self, port: &PortSpec, user: PortUser) -> Result<(), Rejection> {
        let Some(published) = port.published else { return Ok(()) };
        let everywhere = !is_on_host(port, user);
        for holder in self.index.port_users(port.protocol, published.get()) {
            let held = match holder {
                _ if holder == user => false,
                PortUser::Service(id) => self.service_ports(id).any(|p| {
                    p.is_same_socket(port) && (everywhere || p.mode == PublishMode::Ingress)
                }),
                PortUser::Endpoint(id) => {
                    everywhere && self.endpoint_ports(id).any(|p| p.is_same_socket(port))
                }
            };
            if held {
                return Err(self.port_taken(*port, holder));
            }
        }
        Ok(())
    }

    fn service_ports(&self, id: ServiceId) -> impl Iterator<Item = &PortSpec> {
        self.view.services().get(&id).into_iter().flat_map(|s| s.spec.ports.iter())
    }

    fn endpoint_ports(&self, id: EndpointId) -> impl Iterator<Item = &PortSpec> {
        self.view.endpoints().get(&id).into_iter().flat_map(|e| e.ports().iter())
    }

    fn port_taken(&self, port: PortSpec, holder: PortUser) -> Rejection {
        let holder = match holder {
            PortUser::Service(id) => match self.view.services().get(&id) {
                Some(service) => format!("service {}", service.spec.name),
                None => format!("service {id}"),
            },
            PortUser::Endpoint(id) => match self.view.endpoints().get(&id) {
                Some(endpoint) => self.endpoint_label(endpoint),
                None => format!("endpoint {id}"),
            },
        };
        Rejection::PortTaken { port, holder }
    }

    /// The next port at or after `cursor` that nobody publishes, in any mode, on any node.
    fn next_port(
        &self,
        protocol: Protocol,
        cursor: u16,
        taken: impl Fn(NonZeroU16) -> bool,
    ) -> Option<NonZeroU16> {
        const RANGE: RangeInclusive<u16> = FIRST..=LAST;
        let cursor = if RANGE.contains(&cursor) { cursor } else { FIRST };
        let mut candidates = (cursor..=LAST).chain(FIRST..cursor).filter_map(NonZeroU16::new);
        candidates.find(|port| {
            self.index.port_users(protocol, port.get()).next().is_none() && !taken(*port)
        })
    }
}

/// Whether a port answers on the node of its task only. Ports of standalone endpoints always do.
fn is_on_host(port: &PortSpec, user: PortUser) -> bool {
    port.mode == PublishMode::Host || matches!(user, PortUser::Endpoint(_))
}
