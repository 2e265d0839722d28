//! Reading back what the kernel has, in the words of operations.
//!
//! What is not as an operation leaves it is shown as something that nobody wants, so that
//! the comparison puts it again: a network with no MTU, an endpoint without addresses or on no node,
//! members with one that is none, also for a fence that is not whole.

use core::net::IpAddr;
use std::collections::BTreeSet;

use overlay_types::{Addresses, EndpointId};

use super::{
    address::{self, Assigned},
    dataplane::KernelDataplane,
    directory::NetworkFile,
    fence::Fenced,
    inside::KEPT,
    link::{self, Link},
    members::Members,
    neighbor::{self, Entry},
    netlink::RouteSocket,
    port::Board,
    programmed::Programmed,
    scaffold,
    stations::{NOWHERE, Stations},
};
use crate::{Error, desired::Network};

impl KernelDataplane {
    /// Reads everything anew.
    pub(super) fn read(&mut self) -> Result<(), Error> {
        let members = self.filter.observe()?;
        if let Some(protection) = &mut self.protection {
            protection.observe()?;
            self.enforced = protection.is_enforced()?;
            self.state.0.inbound = protection.inbound();
            self.state.0.outbound = protection.outbound();
        }
        let mut known = core::mem::take(&mut self.state.0.networks);
        let mut programmed_before = core::mem::take(&mut self.programmed);
        let mut endpoints = BTreeSet::new();
        for file in self.directory.list()? {
            let id = file.network;
            let before = known.remove(&id).or_else(|| self.state.0.networks.remove(&id));
            let programmed = programmed_before.remove(&id).unwrap_or_default();
            let (mut network, mut programmed) =
                self.read_network(&file, before.as_ref(), programmed)?;
            if self.programmed.len() >= KEPT {
                programmed.inside = None;
                programmed.fence.close();
            }
            network.members = shown_members(&network, &programmed, members.as_ref());
            keep_order(&mut network, before.as_ref());
            self.read_services(&mut network, before.as_ref());
            endpoints.extend(network.locals.keys().copied());
            self.state.0.networks.insert(id, network);
            self.programmed.insert(id, programmed);
        }
        self.services.keep(&endpoints);
        self.relax()
    }

    fn read_services(&mut self, network: &mut Network, before: Option<&Network>) {
        network.services = self.services.read(network, before);
        for (endpoint, local) in &mut network.locals {
            if !self.services.is_right(*endpoint, &network.services) {
                local.addresses = Addresses::default();
            }
        }
    }

    fn read_network(
        &mut self,
        file: &NetworkFile,
        before: Option<&Network>,
        programmed_before: Programmed,
    ) -> Result<(Network, Programmed), Error> {
        let broken = || (Network::new(scaffold::broken(file.vni)), Programmed::default());
        // The file is there and the namespace is not: it was never mounted, or is not any more.
        let Some(netns) = file.find()? else { return Ok(broken()) };
        let Programmed { fence: fence_before, inside: mut kept, .. } = programmed_before;
        let sockets = file.inside(&netns, &mut kept)?;
        let inside = &sockets.route;
        let read = |source| Error::Kernel {
            step: "read",
            subject: format!("network {}", file.network),
            source,
        };
        let links = inside.dump(link::list(), Link::parse).map_err(read)?;
        let addresses = inside.dump(address::list(), Assigned::parse).map_err(read)?;
        // The device's port tells whether the network is encrypted.
        let read_as = |encrypted| {
            let wanted = self.vxlan(file.vni, encrypted)?;
            scaffold::read(&links, &addresses, wanted, encrypted)
        };
        let found = read_as(false).or_else(|| read_as(true).filter(|_| self.enforced));
        let Some(found) = found else {
            // Ports that are there are shown as they are, to be unplugged or put again.
            let (mut network, mut programmed) = broken();
            let board = Board { inside, bridge: 0, settings: &network.settings.clone() };
            let ports = read_ports(&board, &links, &mut network, &mut Stations::default(), None)?;
            programmed.fence.extend(ports);
            programmed.inside = kept;
            return Ok((network, programmed));
        };
        let mut network = Network::new(found.settings.clone());
        let mut stations = Stations::read(found.devices, list_entries(inside).map_err(read)?);
        let board = Board { inside, bridge: found.bridge, settings: &found.settings };
        let ports = read_ports(&board, &links, &mut network, &mut stations, before)?;
        for (id, remote) in before.iter().flat_map(|before| &before.remotes) {
            network.remotes.extend(stations.claim_remote(*id, remote).map(|found| (*id, found)));
        }
        network.remotes.extend(stations.unclaimed());
        let mut fence = Fenced::default();
        fence.extend(ports);
        let (vxlan, shortens) = (found.devices.vxlan, self.short_way.exists());
        let wanted = fence.wanted(&fence_before, &network, vxlan, shortens);
        fence.read(sockets, wanted, fence_before)?;
        let (bridge, devices) = (found.bridge, found.devices);
        Ok((network, Programmed { bridge, devices, stations, fence, inside: kept }))
    }
}

fn read_ports(
    board: &Board<'_>,
    links: &[Link],
    network: &mut Network,
    stations: &mut Stations,
    before: Option<&Network>,
) -> Result<Vec<(EndpointId, u32)>, Error> {
    let mut ports = Vec::new();
    let known = |endpoint| Some(before?.locals.get(&endpoint)?.addresses);
    for link in links {
        let Some(mut port) = board.read(link, known)? else { continue };
        if !stations.claim_local(port.endpoint, &port.local, port.index) {
            port.local.addresses = Addresses::default();
        }
        ports.push((port.endpoint, port.index));
        network.locals.insert(port.endpoint, port.local);
    }
    Ok(ports)
}

fn list_entries(inside: &RouteSocket) -> Result<Vec<Entry>, super::netlink::Refusal> {
    let mut entries = inside.dump(neighbor::list_forwarding(), Entry::parse)?;
    for request in neighbor::list_neighbors() {
        entries.extend(inside.dump(request, Entry::parse)?);
    }
    Ok(entries)
}

/// Members as they are enforced, if group frames go to the same nodes.
fn shown_members(
    network: &Network,
    programmed: &Programmed,
    enforced: Option<&Members>,
) -> BTreeSet<IpAddr> {
    let flooded = programmed.stations.flooded();
    let mut members =
        enforced.and_then(|all| all.get(&network.settings.vni)).cloned().unwrap_or_default();
    let agree = if network.settings.multicast { flooded == members } else { flooded.is_empty() };
    if enforced.is_none() || !agree || !programmed.fence.is_whole() {
        members.insert(NOWHERE);
    }
    members
}

/// Addresses of a device have no order. Where they are the subnets that were asked for, they are
/// shown in the order that these were.
fn keep_order(network: &mut Network, before: Option<&Network>) {
    let Some(before) = before else { return };
    let (found, asked) = (&mut network.settings.subnets, &before.settings.subnets);
    if found.len() == asked.len() && asked.iter().all(|subnet| found.contains(subnet)) {
        found.clone_from(asked);
    }
}
