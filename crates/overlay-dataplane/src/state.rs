//! What operations add up to, without a dataplane under it.

use std::collections::BTreeMap;

use overlay_types::{NetworkId, Vni};

use crate::{
    Error,
    api::{Observed, Op},
    desired::{Network, Settings},
};

/// The state that operations lead to. Dataplanes in this process keep theirs in one.
#[derive(Debug, Clone, Default)]
pub(crate) struct State(pub(crate) Observed);

impl State {
    /// Makes one change, or says why it cannot be and changes nothing.
    pub(crate) fn apply(&mut self, op: Op) -> Result<(), Error> {
        let state = &mut self.0;
        match op {
            Op::AddInboundSa(sa) => drop(state.inbound.insert(sa.id, sa.address)),
            Op::SetOutboundSa { sa, .. } => {
                state.outbound.insert(sa.id.peer, (sa.id, sa.address));
            }
            Op::RemoveInboundSa(id) => drop(state.inbound.remove(&id)),
            Op::RemoveOutboundSa(peer) => drop(state.outbound.remove(&peer)),
            Op::PutNetwork(id, settings) => return put_network(&mut state.networks, id, settings),
            Op::RemoveNetwork(id) => drop(state.networks.remove(&id)),
            Op::SetMembers(id, members) => self.network(id)?.members = members,
            Op::PutLocal(id, endpoint, local) => {
                let network = self.network(id)?;
                if network.locals.get(&endpoint).is_some_and(|old| old.port != local.port) {
                    return Err(Error::PortInUse(endpoint));
                }
                network.locals.insert(endpoint, local);
            }
            Op::PutRemote(id, endpoint, remote) => {
                self.network(id)?.remotes.insert(endpoint, remote);
            }
            Op::PutService(id, service, table) => {
                self.network(id)?.services.insert(service, table);
            }
            // Of what is not there, nothing has to be removed.
            Op::RemoveLocal(id, endpoint) => {
                state.networks.get_mut(&id).map(|n| n.locals.remove(&endpoint));
            }
            Op::RemoveRemote(id, endpoint) => {
                state.networks.get_mut(&id).map(|n| n.remotes.remove(&endpoint));
            }
            Op::RemoveService(id, service) => {
                state.networks.get_mut(&id).map(|n| n.services.remove(&service));
            }
        }
        Ok(())
    }

    pub(crate) fn network(&mut self, id: NetworkId) -> Result<&mut Network, Error> {
        self.0.networks.get_mut(&id).ok_or(Error::UnknownNetwork(id))
    }
}

fn put_network(
    networks: &mut BTreeMap<NetworkId, Network>,
    id: NetworkId,
    settings: Settings,
) -> Result<(), Error> {
    check_vni(networks, id, settings.vni)?;
    match networks.get_mut(&id) {
        Some(network) => network.settings = settings,
        None => drop(networks.insert(id, Network::new(settings))),
    }
    Ok(())
}

/// Refuses a VNI that another network has.
pub(crate) fn check_vni(
    networks: &BTreeMap<NetworkId, Network>,
    id: NetworkId,
    vni: Vni,
) -> Result<(), Error> {
    let holder = networks.iter().find(|(other, n)| **other != id && n.settings.vni == vni);
    match holder {
        Some((other, _)) => Err(Error::VniInUse { vni, network: id, other: *other }),
        None => Ok(()),
    }
}
