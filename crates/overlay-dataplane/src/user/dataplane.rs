//! The switch behind the trait: operations become ports, associations and tables.

use core::net::IpAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use overlay_types::{EndpointId, NetworkId};

use super::{
    Switch, SwitchConfig,
    engine::{NetworkTable, PortBinding, PortId, Tables},
    ports::{
        MemoryPort, Port, Tap, TapConfig,
        tap::{Gone, adapt},
    },
};
use crate::{
    Error,
    api::{Dataplane, Observed, Op},
    desired::{LocalEndpoint, PortKind, Settings},
    state::State,
};

/// Announcements at a time: while they are made, nothing else is forwarded.
const ANNOUNCEMENTS: usize = 1024;

/// A node's dataplane in user space.
#[derive(Debug)]
pub struct UserDataplane {
    switch: Switch,
    /// It has the port of plain networks.
    carries_plain: bool,
    /// It has a socket for ESP.
    carries_encrypted: bool,
    state: State,
    tables: BTreeMap<NetworkId, Arc<NetworkTable>>,
    ports: BTreeMap<EndpointId, PortBinding>,
    memory: BTreeMap<EndpointId, MemoryPort>,
    /// Whether the TAP devices of endpoints are gone.
    gone: BTreeMap<EndpointId, Gone>,
    /// Numbers of ports that were unplugged, to be used again: tables are indexed by them.
    free: Vec<PortId>,
    /// Numbers that the switch's tables still know. Used again before these are swapped, a number
    /// would show one endpoint the frames of another.
    released: Vec<PortId>,
}

impl UserDataplane {
    /// Opens the sockets of `config` and starts the switch.
    pub fn start(config: SwitchConfig) -> Result<Self, Error> {
        Ok(Self {
            carries_plain: config.vxlan_port.is_some(),
            carries_encrypted: config.esp.is_some(),
            switch: Switch::start(config)?,
            state: State::default(),
            tables: BTreeMap::new(),
            ports: BTreeMap::new(),
            memory: BTreeMap::new(),
            gone: BTreeMap::new(),
            free: Vec::new(),
            released: Vec::new(),
        })
    }

    /// The switch: its counters, and what is on the wire.
    pub const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The endpoint's side of a memory port. There is one; `None` when it was taken.
    pub fn take_memory_port(&mut self, endpoint: EndpointId) -> Option<MemoryPort> {
        self.memory.remove(&endpoint)
    }

    fn apply_one(&mut self, op: Op, changed: &mut BTreeSet<NetworkId>) -> Result<(), Error> {
        match op.clone() {
            Op::AddInboundSa(sa) => self.switch.with_sas(move |sas| sas.add_inbound(&sa))??,
            Op::SetOutboundSa { sa, greet } => {
                let peer = sa.id.peer;
                let is_new = self.switch.with_sas(move |sas| sas.set_outbound(&sa))?;
                if greet && is_new {
                    self.switch.greet(peer)?;
                }
            }
            Op::RemoveInboundSa(id) => {
                self.switch.with_sas(move |sas| sas.remove_inbound(id))?;
            }
            Op::RemoveOutboundSa(peer) => {
                self.switch.with_sas(move |sas| sas.remove_outbound(peer))?;
            }
            Op::RemoveNetwork(id) => {
                let gone = self.state.0.networks.get(&id);
                let endpoints: Vec<_> =
                    gone.iter().flat_map(|n| n.locals.keys()).copied().collect();
                endpoints.into_iter().try_for_each(|endpoint| self.unplug(endpoint))?;
                changed.insert(id);
            }
            Op::PutLocal(id, endpoint, local) => {
                // The state refuses first what it would refuse later: no port is made in vain.
                self.state.apply(op)?;
                changed.insert(id);
                return self.plug(id, endpoint, &local).inspect_err(|_| {
                    // Removing what was just put cannot fail.
                    let _ = self.state.apply(Op::RemoveLocal(id, endpoint));
                });
            }
            Op::RemoveLocal(id, endpoint) => {
                self.unplug(endpoint)?;
                changed.insert(id);
            }
            Op::PutNetwork(_, settings) if !settings.encrypted && !self.carries_plain => {
                return Err(Error::Unsupported(
                    "carry plain networks: their port was left to another dataplane",
                ));
            }
            Op::PutNetwork(_, settings) if settings.encrypted && !self.carries_encrypted => {
                return Err(Error::Unsupported("seal frames: it was given no socket for ESP"));
            }
            Op::PutNetwork(id, settings) => {
                self.follow(id, &settings);
                changed.insert(id);
            }
            Op::SetMembers(id, _)
            | Op::PutRemote(id, ..)
            | Op::RemoveRemote(id, _)
            | Op::PutService(id, ..)
            | Op::RemoveService(id, _) => drop(changed.insert(id)),
        }
        self.state.apply(op)
    }

    fn plug(
        &mut self,
        network: NetworkId,
        endpoint: EndpointId,
        local: &LocalEndpoint,
    ) -> Result<(), Error> {
        if self.ports.contains_key(&endpoint) {
            return Ok(());
        }
        let taken = self.ports.len() + self.released.len();
        let id = self.free.pop().unwrap_or(PortId(taken as u32));
        let plugged = match &local.port {
            PortKind::Memory => self.switch.add_memory_port(id).map(|port| {
                self.memory.insert(endpoint, port);
                false
            }),
            PortKind::Tap { name, netns } => {
                let known = self.state.0.networks.get(&network);
                let config = known.map(|n| tap_config((name, netns), &n.settings, local));
                let config = config.ok_or(Error::UnknownNetwork(network));
                config.and_then(|config| Tap::create(&config)).and_then(|tap| {
                    self.gone.insert(endpoint, tap.gone());
                    self.switch.add_port(id, Port::Tap(tap)).map(|()| true)
                })
            }
            PortKind::Veth { .. } => {
                Err(Error::Unsupported("make veth pairs; it makes TAP devices"))
            }
        };
        match plugged {
            Ok(offload) => drop(self.ports.insert(endpoint, PortBinding { port: id, offload })),
            Err(error) => {
                self.free.push(id);
                return Err(error);
            }
        }
        Ok(())
    }

    fn unplug(&mut self, endpoint: EndpointId) -> Result<(), Error> {
        self.memory.remove(&endpoint);
        self.gone.remove(&endpoint);
        if let Some(binding) = self.ports.get(&endpoint).copied() {
            self.switch.remove_port(binding.port)?;
            self.ports.remove(&endpoint);
            self.released.push(binding.port);
        }
        Ok(())
    }

    /// Unplugs endpoints whose devices are gone, so that what is observed says so.
    fn unplug_gone(&mut self) -> Result<(), Error> {
        let gone = self.gone.iter().filter(|(_, gone)| gone.is_so());
        let gone: BTreeSet<EndpointId> = gone.map(|(endpoint, _)| *endpoint).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let mut changed = BTreeSet::new();
        for (id, network) in &mut self.state.0.networks {
            let before = network.locals.len();
            network.locals.retain(|endpoint, _| !gone.contains(endpoint));
            if network.locals.len() < before {
                changed.insert(*id);
            }
        }
        gone.into_iter().try_for_each(|endpoint| self.unplug(endpoint))?;
        self.swap(changed)
    }

    /// Has the devices of a network carry packets of its MTU, and reach all of its subnets. One that cannot
    /// says so in the log: its network goes on all the same.
    fn follow(&self, id: NetworkId, settings: &Settings) {
        let Some(network) = self.state.0.networks.get(&id) else { return };
        let before = &network.settings;
        if before.mtu == settings.mtu && before.subnets == settings.subnets {
            return;
        }
        for (endpoint, local) in &network.locals {
            let PortKind::Tap { name, netns } = &local.port else { continue };
            if let Err(error) = adapt(&tap_config((name, netns), settings, local)) {
                tracing::warn!(%endpoint, %error, "the interface does not follow its network");
            }
        }
    }

    /// Builds the tables of the networks that changed and gives the switch all of them.
    fn swap(&mut self, changed: BTreeSet<NetworkId>) -> Result<(), Error> {
        let mut told = Vec::new();
        for id in changed {
            match self.state.0.networks.get(&id) {
                Some(network) => {
                    let table = NetworkTable::build(network, |e| self.ports.get(&e).copied());
                    let table = Arc::new(table);
                    let before = self.tables.insert(id, Arc::clone(&table));
                    told.extend(before.iter().flat_map(|before| table.announcements(before)));
                }
                None => drop(self.tables.remove(&id)),
            }
        }
        self.switch.swap(Arc::new(Tables::new(self.tables.values().cloned())))?;
        told.truncate(ANNOUNCEMENTS);
        if !told.is_empty() {
            self.switch.announce(told)?;
        }
        if !self.released.is_empty() {
            // Devices that were unplugged are gone when this ends: others may want their names.
            self.switch.barrier()?;
        }
        self.free.append(&mut self.released);
        Ok(())
    }
}

/// The device of an endpoint.
fn tap_config(
    (name, netns): (&str, &Option<PathBuf>),
    settings: &Settings,
    local: &LocalEndpoint,
) -> TapConfig {
    TapConfig {
        name: name.to_owned(),
        netns: netns.clone(),
        mac: local.mac,
        addresses: prefixed(settings, local),
        routes: settings.subnets_beyond(&local.addresses).collect(),
        mtu: settings.mtu,
    }
}

/// The endpoint's addresses, each with the length of its subnet's prefix.
fn prefixed(settings: &Settings, local: &LocalEndpoint) -> Vec<(IpAddr, u8)> {
    let subnets = &settings.subnets;
    let length = |address: IpAddr| {
        let subnet = subnets.iter().find(|s| s.subnet.contains(address));
        subnet.map_or(if address.is_ipv4() { 32 } else { 128 }, |s| s.subnet.prefix_len())
    };
    local.addresses.iter().map(|address| (address, length(address))).collect()
}

impl Dataplane for UserDataplane {
    fn observe(&mut self) -> Result<Observed, Error> {
        // What is commanded is in effect only once the thread has taken it.
        self.switch.barrier()?;
        self.unplug_gone()?;
        Ok(self.state.0.clone())
    }

    fn apply(&mut self, ops: Vec<Op>) -> Vec<Result<(), Error>> {
        let mut changed = BTreeSet::new();
        let mut results: Vec<_> =
            ops.into_iter().map(|op| self.apply_one(op, &mut changed)).collect();
        if !changed.is_empty()
            && let Err(error) = self.swap(changed)
            && let Some(last) = results.last_mut()
        {
            *last = Err(error);
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    #[test]
    fn d04_user_dataplane_passes_the_conformance_suite() {
        // Each on a loopback address of its own: the ports are the real ones.
        let next = AtomicU8::new(1);
        crate::conformance::check(|| {
            let address = IpAddr::from([127, 77, 1, next.fetch_add(1, Ordering::Relaxed)]);
            let dataplane = UserDataplane::start(SwitchConfig::new(address, 0)).unwrap();
            crate::conformance::Candidate::new(dataplane)
        });
    }

    #[test]
    fn d03_a_switch_of_encrypted_networks_leaves_the_port_of_plain_ones_to_another() {
        let address = IpAddr::from([127, 77, 5, 1]);
        let _other = std::net::UdpSocket::bind((address, 4789)).unwrap();
        let config = SwitchConfig { vxlan_port: None, ..SwitchConfig::new(address, 0) };
        let mut dataplane = UserDataplane::start(config).unwrap();
        for (id, network) in crate::conformance::sample().networks {
            let encrypted = network.settings.encrypted;
            let result = dataplane.apply(vec![Op::PutNetwork(id, network.settings)]);
            assert_eq!(result[0].is_ok(), encrypted, "{result:?}");
        }
        assert_eq!(dataplane.observe().unwrap().networks.len(), 1);
    }

    /// The tables that the switch has until the end of `apply` must not lead to a new endpoint.
    #[test]
    fn n08_a_port_number_is_not_used_again_before_the_tables_are_swapped() {
        let config = SwitchConfig::new(IpAddr::from([127, 77, 4, 1]), 0);
        let mut dataplane = UserDataplane::start(config).unwrap();
        let desired = crate::conformance::sample();
        let ops = crate::diff(&desired, &dataplane.observe().unwrap());
        assert!(dataplane.apply(ops).iter().all(Result::is_ok));
        let (id, network) = desired.networks.first_key_value().unwrap();
        let (old, local) = network.locals.first_key_value().unwrap();
        let before = dataplane.ports[old].port;
        let new = EndpointId::from_u128(99);
        let ops = vec![Op::RemoveLocal(*id, *old), Op::PutLocal(*id, new, local.clone())];
        assert!(dataplane.apply(ops).iter().all(Result::is_ok));
        assert_ne!(dataplane.ports[&new].port, before);
        let again = EndpointId::from_u128(98);
        dataplane.apply(vec![Op::PutLocal(*id, again, local.clone())]);
        assert_eq!(dataplane.ports[&again].port, before, "after the swap it is free");
    }
}
