//! The kernel behind the trait: operations become devices and entries.

use core::net::IpAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::ErrorKind,
    sync::{Mutex, PoisonError},
    thread,
};

use overlay_types::{EndpointId, NetworkId, Vni};

use super::{
    announce::Announcer,
    config::KernelConfig,
    directory::{Directory, NetworkFile},
    fence::ShortWay,
    link::Vxlan,
    members::MemberFilter,
    netlink::RouteSocket,
    port::{self, Board},
    programmed::Programmed,
    scaffold,
    services::{Services, Site},
    xfrm::Protection,
};
use crate::{
    Error,
    api::{Dataplane, Observed, Op},
    desired::{LocalEndpoint, Network, Settings},
    state::{State, check_vni},
};

/// Smallest MTU of a device that carries IPv6 (RFC 8200 §5).
const MIN_MTU_V6: u16 = 1280;

/// Threads that remove devices at once. They wait, they do not work.
const REMOVERS: usize = 16;

/// A node's dataplane in the Linux kernel.
#[derive(Debug)]
pub struct KernelDataplane {
    pub(super) config: KernelConfig,
    pub(super) directory: Directory,
    /// Speaks to the host's namespace, which underlay and data-path address are in.
    pub(super) host: RouteSocket,
    pub(super) filter: Box<dyn MemberFilter>,
    pub(super) protection: Option<Protection>,
    /// Nothing gets around IPsec, as of the last look.
    pub(super) enforced: bool,
    /// The file that tells of associations is there.
    traced: bool,
    announcer: Announcer,
    pub(super) short_way: ShortWay,
    pub(super) state: State,
    pub(super) programmed: BTreeMap<NetworkId, Programmed>,
    pub(super) services: Services,
}

impl KernelDataplane {
    /// A dataplane whose underlay is the calling thread's namespace. Changes nothing there; what
    /// a process before it left is taken over by the first comparison.
    pub fn start(config: KernelConfig, filter: Box<dyn MemberFilter>) -> Result<Self, Error> {
        let own = config.data_path;
        let holder = config.holder.clone();
        let protection = config.esp.map(|esp| Protection::start(own, esp, holder)).transpose()?;
        Ok(Self {
            protection,
            enforced: false,
            traced: false,
            directory: Directory::new(config.directory.clone()),
            host: RouteSocket::open().map_err(Error::unopened)?,
            config,
            filter,
            announcer: Announcer::start().map_err(Error::Runtime)?,
            short_way: ShortWay::default(),
            state: State::default(),
            programmed: BTreeMap::new(),
            services: Services::default(),
        })
    }

    /// The VXLAN device of a network. `None` for an encrypted one where the kernel seals nothing.
    pub(super) fn vxlan(&self, vni: Vni, encrypted: bool) -> Option<Vxlan> {
        let port = if encrypted { self.config.esp?.vxlan_port } else { self.config.port };
        Some(Vxlan { vni, local: self.config.data_path, port })
    }

    /// What the kernel's IPsec was heard and used for, as of the last look.
    pub const fn protection(&self) -> Option<&Protection> {
        self.protection.as_ref()
    }

    fn sealing(&mut self) -> Result<&mut Protection, Error> {
        let missing = Error::Unsupported("seal frames: the kernel has no ESP");
        let protection = self.protection.as_mut().ok_or(missing)?;
        if let Some(path) = self.config.trace.as_ref().filter(|_| !self.traced) {
            let failed = |source| Error::NamespaceFile { step: "make", path: path.clone(), source };
            File::create(path).map_err(failed)?;
            self.traced = true;
        }
        Ok(protection)
    }

    fn remove_trace(&mut self) -> Result<(), Error> {
        let Some(path) = &self.config.trace else { return Ok(()) };
        match fs::remove_file(path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::NamespaceFile { step: "remove", path: path.clone(), source })
            }
            _ => {
                self.traced = false;
                Ok(())
            }
        }
    }

    /// Has IPsec outlive this process while anything is sealed, and leaves nothing of it behind when
    /// nothing is any more.
    pub(super) fn relax(&mut self) -> Result<(), Error> {
        let mut networks = self.state.0.networks.values().map(|network| &network.settings);
        let Some(protection) = &mut self.protection else { return Ok(()) };
        if networks.clone().any(|settings| settings.encrypted) {
            protection.keep();
            return Ok(());
        }
        // Of one that is not whole nobody knows.
        if networks.any(|settings| settings.mtu == 0) {
            return Ok(());
        }
        let is_idle = protection.is_idle();
        if is_idle {
            self.enforced = false;
            protection.clear()?;
        }
        // Behind what it is there for.
        protection.release();
        if is_idle { self.remove_trace() } else { Ok(()) }
    }

    fn apply_one(&mut self, number: usize, op: Op) -> Result<(), Error> {
        match op {
            Op::PutNetwork(id, settings) => self.put_network(number, id, settings),
            Op::RemoveNetwork(id) => self.remove_network(id),
            Op::SetMembers(id, members) => self.set_members(number, id, members),
            Op::PutLocal(id, endpoint, local) => self.put_local(number, id, endpoint, local),
            Op::RemoveLocal(id, endpoint) => self.remove_local(number, id, endpoint),
            Op::PutRemote(id, endpoint, remote) => {
                let old = self.state.network(id)?.remotes.insert(endpoint, remote);
                let stations = &mut self.programmed.entry(id).or_default().stations;
                stations.put_remote(number, endpoint, old.as_ref(), &remote);
                Ok(())
            }
            Op::RemoveRemote(id, endpoint) => {
                let network = self.state.0.networks.get_mut(&id);
                let old = network.and_then(|network| network.remotes.remove(&endpoint));
                if let (Some(old), Some(programmed)) = (old, self.programmed.get_mut(&id)) {
                    programmed.stations.remove_remote(number, endpoint, &old);
                }
                Ok(())
            }
            Op::PutService(id, service, table) => {
                self.state.network(id)?.services.insert(service, table);
                self.services.touch(number, id, service);
                Ok(())
            }
            Op::RemoveService(id, service) => {
                let network = self.state.0.networks.get_mut(&id);
                if network.and_then(|network| network.services.remove(&service)).is_some() {
                    self.services.touch(number, id, service);
                }
                Ok(())
            }
            Op::AddInboundSa(sa) => self.sealing()?.add_inbound(&sa),
            Op::SetOutboundSa { sa, greet } => {
                let protection = self.sealing()?;
                if protection.set_outbound(&sa)? && greet {
                    protection.greet(sa.id.peer);
                }
                Ok(())
            }
            Op::RemoveInboundSa(id) => {
                self.protection.as_mut().map_or(Ok(()), |p| p.remove_inbound(id))
            }
            Op::RemoveOutboundSa(peer) => {
                self.protection.as_mut().map_or(Ok(()), |p| p.remove_outbound(peer))
            }
        }
    }

    fn put_network(
        &mut self,
        number: usize,
        id: NetworkId,
        settings: Settings,
    ) -> Result<(), Error> {
        let networks = &self.state.0.networks;
        check_vni(networks, id, settings.vni)?;
        let old = networks.get(&id).map(|network| &network.settings);
        if old == Some(&settings) {
            return Ok(());
        }
        if old.is_some_and(|old| old.encrypted != settings.encrypted && old.mtu != 0) {
            return Err(Error::Unsupported("turn encryption on or off; remove the network first"));
        }
        if old.is_some_and(|old| old.vni != settings.vni) {
            return Err(Error::Unsupported("change the VNI of a network; remove it first"));
        }
        let has_v6 = settings.subnets.iter().any(|subnet| !subnet.subnet.is_ipv4());
        if has_v6 && settings.mtu < MIN_MTU_V6 {
            return Err(Error::Unsupported("carry IPv6 with an MTU below 1280"));
        }
        let file = self.directory.file(id, settings.vni);
        // One that is there and was not observed is let be: it may carry traffic.
        let is_new = old.is_none() && file.find()?.is_none();
        if settings.encrypted {
            // Before there is a device whose frames could leave in clear.
            self.sealing()?.enforce()?;
            self.enforced = true;
        }
        if is_new {
            // Nobody may send into it before its members are known.
            self.filter.set(settings.vni, &BTreeSet::new())?;
        }
        self.scaffold(&file, &settings).inspect_err(|_| {
            if is_new {
                // It was not there before; what cannot be removed shows in the next comparison.
                let _ = self.remove_network(id);
            }
        })?;
        let network = self.state.0.networks.entry(id);
        let network = network.or_insert_with(|| Network::new(settings.clone()));
        network.settings = settings;
        let members = network.members.clone();
        let locals: Vec<_> = network.locals.clone().into_iter().collect();
        self.flood(number, id, &members);
        self.programmed.entry(id).or_default().fence.ask(number);
        // MTU, subnets and flooding are theirs, too. One that was found to be broken has its own
        // operation.
        let whole = locals.into_iter().filter(|(_, l)| l.addresses.iter().next().is_some());
        for (endpoint, local) in whole {
            self.plug(number, id, endpoint, Some(&local), &local)?;
        }
        Ok(())
    }

    fn scaffold(&mut self, file: &NetworkFile, settings: &Settings) -> Result<(), Error> {
        let netns = if let Some(netns) = file.find()? {
            netns
        } else {
            self.directory.make()?;
            file.create()?
        };
        let missing = || Error::Unsupported("seal frames: the kernel has no ESP");
        let wanted = self.vxlan(settings.vni, settings.encrypted).ok_or_else(missing)?;
        let programmed = self.programmed.entry(file.network).or_default();
        let inside = file.inside(&netns, &mut programmed.inside)?;
        let found = scaffold::ensure(&self.host, &netns, &inside.route, settings, wanted)?;
        (programmed.bridge, programmed.devices) = (found.bridge, found.devices);
        Ok(())
    }

    fn remove_network(&mut self, id: NetworkId) -> Result<(), Error> {
        let (files, others): (Vec<_>, Vec<_>) =
            self.directory.list()?.into_iter().partition(|file| file.network == id);
        let locals = self.state.0.networks.get(&id).map(|network| network.locals.clone());
        for (endpoint, local) in locals.unwrap_or_default() {
            self.withdraw(endpoint, &local)?;
        }
        let programmed = self.programmed.get_mut(&id);
        let mut kept = programmed.and_then(|programmed| programmed.inside.take());
        for file in files {
            if let Some(netns) = file.find()? {
                scaffold::remove(&file.inside(&netns, &mut kept)?.route, file.vni)?;
                // The namespace ends with its last socket.
                kept = None;
            }
            // Behind the device, which frames come in by, and before the file, which tells the VNI.
            if others.is_empty() {
                self.filter.clear()?;
            } else {
                self.filter.set(file.vni, &BTreeSet::new())?;
            }
            file.remove()?;
        }
        self.directory.remove_if_empty();
        self.programmed.remove(&id);
        self.state.0.networks.remove(&id);
        Ok(())
    }

    /// Removes the devices of networks that go together: the kernel waits at each removal, and for many
    /// not much longer than for one. What fails is tried again, and told of, by the operation itself.
    fn remove_devices_at_once(&mut self, ops: &[Op]) {
        let gone = ops.iter().filter_map(|op| match op {
            Op::RemoveNetwork(id) => Some(*id),
            _ => None,
        });
        let mut gone: BTreeSet<NetworkId> = gone.collect();
        if gone.len() < 2 {
            return;
        }
        gone.retain(|id| {
            let locals = self.state.0.networks.get(id).map(|network| network.locals.clone());
            let mut locals = locals.unwrap_or_default().into_iter();
            locals.all(|(endpoint, local)| self.withdraw(endpoint, &local).is_ok())
        });
        // Other threads' calls are not counted.
        let Ok(files) =
            super::call().map_err(drop).and_then(|()| self.directory.list().map_err(drop))
        else {
            return;
        };
        let files = Mutex::new(files.into_iter().filter(|file| gone.contains(&file.network)));
        let next = || files.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..REMOVERS.min(gone.len()) {
                scope.spawn(|| {
                    while let Some(file) = next() {
                        // The operation finds what is left.
                        let _ = file.remove_devices();
                    }
                });
            }
        });
    }

    fn set_members(
        &mut self,
        number: usize,
        id: NetworkId,
        members: BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        let network = self.state.network(id)?;
        self.filter.set(network.settings.vni, &members)?;
        network.members.clone_from(&members);
        self.flood(number, id, &members);
        // A fence that is not whole shows in the members.
        self.programmed.entry(id).or_default().fence.ask(number);
        Ok(())
    }

    /// Has group frames go to the members of a network that carries them.
    fn flood(&mut self, number: usize, id: NetworkId, members: &BTreeSet<IpAddr>) {
        let multicast = self.state.0.networks.get(&id).is_some_and(|n| n.settings.multicast);
        let nobody = BTreeSet::new();
        let stations = &mut self.programmed.entry(id).or_default().stations;
        stations.set_flooded(number, if multicast { members } else { &nobody });
    }

    fn put_local(
        &mut self,
        number: usize,
        id: NetworkId,
        endpoint: EndpointId,
        local: LocalEndpoint,
    ) -> Result<(), Error> {
        let old = self.state.network(id)?.locals.get(&endpoint).cloned();
        if old.as_ref() == Some(&local) {
            return Ok(());
        }
        port::veth(&local)?;
        if old.as_ref().is_some_and(|old| old.port != local.port) {
            return Err(Error::PortInUse(endpoint));
        }
        self.plug(number, id, endpoint, old.as_ref(), &local)?;
        self.state.network(id)?.locals.insert(endpoint, local);
        self.services.look_after(number, id, endpoint);
        Ok(())
    }

    fn plug(
        &mut self,
        number: usize,
        id: NetworkId,
        endpoint: EndpointId,
        old: Option<&LocalEndpoint>,
        local: &LocalEndpoint,
    ) -> Result<(), Error> {
        let settings = &self.state.network(id)?.settings;
        let programmed = self.programmed.entry(id).or_default();
        let file = self.directory.file(id, settings.vni);
        let inside = file.enter(&mut programmed.inside)?;
        let board = Board { inside: &inside.route, bridge: programmed.bridge, settings };
        let port = board.plug(endpoint, old, local)?;
        programmed.stations.put_local(number, endpoint, old, (local, port));
        programmed.fence.add_port(endpoint, port);
        programmed.fence.ask(number);
        Ok(())
    }

    fn remove_local(
        &mut self,
        number: usize,
        id: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), Error> {
        let Some(network) = self.state.0.networks.get(&id) else { return Ok(()) };
        let Some(old) = network.locals.get(&endpoint).cloned() else { return Ok(()) };
        let file = self.directory.file(id, network.settings.vni);
        // While the port tells where it is.
        self.withdraw(endpoint, &old)?;
        // Without the namespace there is no port either.
        let programmed = self.programmed.entry(id).or_default();
        if let Some(netns) = file.find()? {
            port::unplug(&file.inside(&netns, &mut programmed.inside)?.route, endpoint)?;
        }
        programmed.stations.remove_local(number, endpoint, &old);
        programmed.fence.remove_port(endpoint);
        programmed.fence.ask(number);
        self.state.network(id)?.locals.remove(&endpoint);
        Ok(())
    }

    /// Takes the services away that an endpoint reaches.
    fn withdraw(&mut self, endpoint: EndpointId, local: &LocalEndpoint) -> Result<(), Error> {
        Site::of(endpoint, local).map_or(Ok(()), |site| self.services.withdraw(&site))
    }

    /// Makes the changes that operations asked for, and says which of these failed.
    fn flush(&mut self) -> Vec<(usize, Error)> {
        let mut failed = Vec::new();
        for (id, programmed) in &mut self.programmed {
            let changes = programmed.stations.take_changes(programmed.devices);
            let asked = programmed.fence.take_asked();
            let Some(network) = self.state.0.networks.get(id) else { continue };
            let fence = asked.map(|op| {
                let (vxlan, shortens) = (programmed.devices.vxlan, self.short_way.exists());
                (op, programmed.fence.wanted(&programmed.fence, network, vxlan, shortens))
            });
            let fence = fence.filter(|(_, wanted)| !programmed.fence.is(wanted));
            if fence.is_none() && changes.is_empty() {
                continue;
            }
            let first = fence.as_ref().map(|(op, _)| *op).or(changes.first().map(|c| c.op));
            let file = self.directory.file(*id, network.settings.vni);
            let outcomes = programmed.change(*id, &file, fence.map(|(_, wanted)| wanted), &changes);
            let outcomes = outcomes.unwrap_or_else(|error| {
                failed.extend(first.map(|op| (op, error)));
                changes.iter().map(|_| Err(Error::UnknownNetwork(*id))).collect()
            });
            let mut newcomers = Vec::new();
            for (change, outcome) in changes.iter().zip(outcomes) {
                programmed.stations.made(change, outcome.is_ok());
                newcomers.extend(change.newcomer().filter(|_| outcome.is_ok()));
                failed.extend(outcome.err().map(|error| (change.op, error)));
            }
            programmed.announce(&self.announcer, &file, network, newcomers);
        }
        // Behind the backends that they lead to.
        failed.extend(self.services.flush(&self.state.0.networks));
        failed
    }
}

impl Dataplane for KernelDataplane {
    fn observe(&mut self) -> Result<Observed, Error> {
        self.read()?;
        Ok(self.state.0.clone())
    }

    fn apply(&mut self, ops: Vec<Op>) -> Vec<Result<(), Error>> {
        self.remove_devices_at_once(&ops);
        let numbered = ops.into_iter().enumerate();
        let mut results: Vec<_> = numbered.map(|(number, op)| self.apply_one(number, op)).collect();
        for (number, error) in self.flush() {
            if let Some(result) = results.get_mut(number).filter(|result| result.is_ok()) {
                *result = Err(error);
            }
        }
        if let Err(error) = self.relax() {
            tracing::error!(%error, "policies of encrypted networks stay behind");
        }
        results
    }
}
