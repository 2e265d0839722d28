//! The routing mesh on the kernel: published ports of services answer on every node, and lead to a task
//! anywhere under the client's own address (S10, S11).
//!
//! ```text
//!  host                     gate's namespace          ingress network         task's namespace
//!  port 8080 ─ overlay_mesh ═ host0 ── ingress0 ═══ bridge, VXLAN ═══ eth0 ── port 80
//!     table: port → virtual    table: virtual address     (the dataplane's)    marks connections by
//!     address of the service   → backend, by turns                             their gate
//! ```
//!
//! Beside the dataplane, like the gateway: it is about the host, and its networks may be on either
//! dataplane. The daemon calls
//!
//! 1. [`KernelMesh::gate`], which makes the gate's namespace, and says how the node's endpoint on
//!    the ingress network is to be plugged in: as a [`Gate`](crate::desired::Role), by the dataplane that
//!    carries the network;
//! 2. the dataplane, as always;
//! 3. [`KernelMesh::reconcile`], after each change and from time to time. Before the gate is there it
//!    refuses with [`Error::NoGate`], and tries again the next time.
//!
//! Choosing backends, keeping flows with theirs, draining and ending them is what [`services`](super)
//! do with virtual addresses anyway: each service has one on this host, in a subnet that only the
//! cable between host and gate knows. The host's table leads published ports to it.
//!
//! The kernel holds the state: names and aliases say what is ours, the table in the gate's namespace
//! says which service has which virtual address, that of a task which gate has which number. Only ports are
//! held by this process, with sockets, so that nobody else can have them.
//!
//! - `addresses`: subnets of the cable, and virtual addresses; pure
//! - `cable`: host and gate; `answer`: tasks; `ports`: published ones; `flows`: what becomes of
//!   connections to those that go

mod addresses;
mod answer;
mod cable;
mod flows;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use overlay_types::{Addresses, EndpointId};

use self::addresses::Cable;
/// Name of the cable's end on the host.
pub(super) use self::cable::HOST_END as CABLE;
use super::{
    address::{self, Assigned},
    gateway::setting,
    inside::Inside,
    link::{self, Link},
    netlink::RouteSocket,
    netns::NetNs,
    nft::{
        Nft, NftError, Table, diff,
        forwarding::{self, Passage},
        mesh::{Gate, Host, table_id},
        publish::{HostPort, Ports},
        reservation::Reservation,
    },
    services::{self, Services},
};
pub use crate::mesh::{Concerned, IngressMode, MeshOutcome};
use crate::{
    Error,
    desired::{LocalEndpoint, Mesh, PortKind, Service},
};

/// Name of the gate's interface.
const GATE_INTERFACE: &str = "ingress0";
/// Name of the file that stands for the gate's namespace. Those of networks have a number in theirs.
const FILE: &str = "mesh";

/// How a node's part of the mesh is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// Directory of the gate's namespace; the dataplane's may be the same.
    pub directory: PathBuf,
    /// What this node's gate does to clients' addresses.
    pub mode: IngressMode,
}

/// A node's part of the routing mesh in the Linux kernel.
#[derive(Debug)]
pub struct KernelMesh {
    config: MeshConfig,
    /// The host's namespace.
    netns: NetNs,
    host: RouteSocket,
    nft: Nft,
    held: BTreeMap<HostPort, Reservation>,
    /// The table in the gate's namespace.
    services: Services,
    /// Sockets in the gate's namespace.
    inside: Option<Inside>,
    /// Tables as they agreed with what was wanted, and the generation of the rules then: the host's and
    /// the gate's.
    agreed: [Option<(u32, Table)>; 2],
    tasks: BTreeMap<EndpointId, Option<answer::Known>>,
    /// Endpoints were looked at for what a process before this one left.
    is_swept: bool,
    /// There may be connections to ports that are published no more.
    has_old_flows: bool,
}

/// The gate as it is found.
struct Found {
    netns: NetNs,
    /// Index of its interface on the ingress network.
    ingress: u32,
    addresses: Addresses,
    /// The cable as it shall be, and what there is of it.
    cable: Cable,
    there: Option<cable::Found>,
}

impl Found {
    /// Which versions of IP the ingress network has.
    const fn has(&self) -> [bool; 2] {
        [self.addresses.v4.is_some(), self.addresses.v6.is_some()]
    }
}

impl KernelMesh {
    /// The mesh's part on the host whose namespace the calling thread is in. Changes nothing there; what a
    /// process before it left is taken over by the first comparison.
    pub fn start(config: MeshConfig) -> Result<Self, Error> {
        Ok(Self {
            config,
            netns: NetNs::own().map_err(Error::unopened)?,
            host: RouteSocket::open().map_err(Error::unopened)?,
            nft: Nft::open()?,
            held: BTreeMap::new(),
            services: Services::default(),
            inside: None,
            agreed: [None, None],
            tasks: BTreeMap::new(),
            is_swept: false,
            has_old_flows: true,
        })
    }

    /// How the node's endpoint on the ingress network is to be plugged in. Makes the namespace if it is
    /// not there. On the user dataplane it is a TAP device of this name there.
    pub fn gate(&self) -> Result<PortKind, Error> {
        let path = self.path();
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| Error::NamespaceFile { step, path, source }
        };
        if NetNs::find(&path).map_err(failed("find network namespace", &path))?.is_none() {
            let directory = &self.config.directory;
            std::fs::create_dir_all(directory).map_err(failed("make directory", directory))?;
            NetNs::create(&path).map_err(failed("make network namespace", &path))?;
        }
        Ok(self.gate_port())
    }

    /// What [`gate`](Self::gate) says, which is always the same. Makes nothing.
    pub fn gate_port(&self) -> PortKind {
        PortKind::Veth { name: GATE_INTERFACE.to_owned(), netns: self.path() }
    }

    /// Whether something of this run or a former one is there. Anybody may ask.
    pub fn has_left(&self) -> Result<bool, Error> {
        Ok(self.path().exists() || cable::find(&self.host)?.is_some())
    }

    /// Compares what is with what shall be, and changes what differs. `plugged` are all endpoints of
    /// this node: those that are tasks no more lose what they got as such. Without any, those keep it
    /// that got it from a process before this one, until a comparison with some.
    pub fn reconcile(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
    ) -> MeshOutcome {
        let mut outcome = MeshOutcome::default();
        match mesh {
            Some(mesh) => {
                if let Err(error) = self.publish(mesh, &mut outcome) {
                    outcome.refused.push((Concerned::Everybody, error));
                }
            }
            None => {
                if let Err(error) = self.remove(&mut outcome) {
                    outcome.refused.push((Concerned::Everybody, error));
                }
            }
        }
        let none = BTreeMap::new();
        self.answer(mesh.map_or(&none, |mesh| &mesh.tasks), mesh, plugged, &mut outcome);
        outcome
    }

    /// As [`reconcile`](Self::reconcile), of tasks only, and of those that are in a namespace of their own:
    /// for a node that answers on no published port.
    pub fn reconcile_tasks(
        &mut self,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
    ) -> MeshOutcome {
        let mut outcome = MeshOutcome::default();
        let tasks = mesh.iter().flat_map(|mesh| &mesh.tasks);
        let housed = tasks.filter(|(_, task)| answer::Site::of(&task.port).is_some());
        let housed = housed.map(|(id, task)| (*id, task.clone())).collect();
        self.answer(&housed, mesh, plugged, &mut outcome);
        outcome
    }

    fn path(&self) -> PathBuf {
        self.config.directory.join(FILE)
    }

    fn publish(&mut self, mesh: &Mesh, outcome: &mut MeshOutcome) -> Result<(), Error> {
        let found = self.find_gate()?;
        // Before anything is forwarded.
        self.put_gate(mesh, &found, outcome)?;
        self.put_cable(&found, outcome)?;
        let numbers = self.put_services(mesh, &found, outcome)?;
        // Without knowing whose they are, the table stays as it is.
        self.reserve(mesh, outcome)?;
        let ports = self.ports(mesh, &found, &numbers, outcome);
        let host = Host { cable: cable::HOST_END.to_owned(), ports };
        self.put_host(&host, &found, outcome)?;
        // Behind the table, which leads there no more.
        self.held.retain(|port, _| host.ports.contains_key(port));
        Ok(())
    }

    /// The gate's interface, and the cable that there is or is to be.
    fn find_gate(&mut self) -> Result<Found, Error> {
        let path = self.path();
        let entering = |source| Error::Namespace { path: path.clone(), source };
        let missing = || Error::NoGate { interface: GATE_INTERFACE, path: path.clone() };
        let netns = NetNs::find(&path).map_err(entering)?.ok_or_else(missing)?;
        let inside = match self.inside.take().filter(|inside| inside.is_in(&netns)) {
            Some(inside) => inside,
            None => Inside::open(&netns).map_err(entering)??,
        };
        let failed = |source| Error::Kernel {
            step: "find",
            subject: format!("interface {GATE_INTERFACE}"),
            source,
        };
        let socket = &self.inside.insert(inside).route;
        let gate =
            socket.get(link::named(GATE_INTERFACE.as_bytes()), Link::parse).map_err(failed)?;
        let gate = gate.ok_or_else(missing)?;
        let all = socket.dump(address::list(), Assigned::parse).map_err(failed)?;
        let own = all.iter().filter(|a| a.link == gate.index && !a.is_link_local());
        let addresses: Addresses = own.map(|a| a.net.addr()).collect();
        let has_v6 = addresses.v6.is_some();
        let there = cable::read(&self.host, &netns, socket)?;
        let nets = there.as_ref().map_or(&[][..], |there| &there.nets);
        let whole = Cable::read(nets).filter(|known| !has_v6 || known.has_v6());
        let cable = if let Some(whole) = whole {
            whole
        } else {
            // But to virtual addresses of a cable that is gone.
            let mut used = cable::routed(&self.host)?;
            let beside = cable::routed(socket)?.into_iter();
            used.extend(beside.filter(|subnet| {
                addresses.iter().any(|own| subnet.contains(own)) || !Cable::may_have(*subnet)
            }));
            Cable::choose(nets, &used, has_v6)?
        };
        Ok(Found { netns, ingress: gate.index, addresses, cable, there })
    }

    fn put_cable(&self, found: &Found, outcome: &mut MeshOutcome) -> Result<(), Error> {
        let Some(inside) = &self.inside else { return Ok(()) };
        let sides = ((&self.netns, &self.host), (&found.netns, &inside.route));
        if cable::put(sides.0, sides.1, found.there.as_ref(), &found.cable, found.ingress)? {
            outcome.changes.push("have the cable to the gate".into());
        }
        for netns in [&found.netns, &self.netns] {
            let forwards = setting::read(netns)?.forwards;
            for (ipv6, needed) in [false, true].into_iter().zip(found.has()) {
                if needed && !forwards[usize::from(ipv6)] {
                    setting::forward(netns, ipv6)?;
                    outcome.changes.push(format!("forward IPv{}", if ipv6 { 6 } else { 4 }));
                }
            }
        }
        Ok(())
    }

    /// Has the table in the gate's namespace say where the virtual addresses lead.
    fn put_services(
        &mut self,
        mesh: &Mesh,
        found: &Found,
        outcome: &mut MeshOutcome,
    ) -> Result<addresses::Numbers, Error> {
        let site = services::Site::of_gate(mesh.endpoint, GATE_INTERFACE, &self.path());
        let before = self.services.addresses(&site)?;
        let before = before.into_iter();
        let known = before.filter_map(|(id, a)| Some((id, found.cable.number(a)?))).collect();
        let numbers = addresses::number(&known, mesh.services.keys().copied());
        let mut wanted = BTreeMap::new();
        for (id, service) in &mesh.services {
            let Some(number) = numbers.get(id) else {
                let error = Error::MeshFull(addresses::most_services());
                outcome.refused.push((Concerned::Service(*id), error));
                continue;
            };
            let vips = found.cable.addresses(*number, found.has());
            wanted.insert(*id, Service { vips, backends: mesh.backends(service) });
        }
        self.services.program(site, &wanted)?;
        Ok(numbers)
    }

    fn put_gate(
        &mut self,
        mesh: &Mesh,
        found: &Found,
        outcome: &mut MeshOutcome,
    ) -> Result<(), Error> {
        let table = Gate {
            interface: GATE_INTERFACE.to_owned(),
            cable: cable::GATE_END.to_owned(),
            subnets: mesh.subnets.clone(),
            host: found.cable.host(),
            masquerade: self.config.mode == IngressMode::Snat,
        };
        let Some(inside) = &mut self.inside else { return Ok(()) };
        if set_table(&mut inside.nft, Some(table.table()), &mut self.agreed[1])? {
            outcome.changes.push("set the table of the gate".into());
        }
        Ok(())
    }

    fn put_host(
        &mut self,
        host: &Host,
        found: &Found,
        outcome: &mut MeshOutcome,
    ) -> Result<(), Error> {
        if set_table(&mut self.nft, Some(host.table()), &mut self.agreed[0])? {
            outcome.changes.push("set the table of published ports".into());
            self.has_old_flows = true;
        }
        call()?;
        let passed = forwarding::reconcile(&mut self.nft, Passage::Mesh, Some(cable::HOST_END))?;
        outcome.changes.extend(passed);
        if self.has_old_flows {
            let subnets = found.cable.virtual_subnets();
            flows::end(&self.netns, &subnets, &host.ports)?;
            self.has_old_flows = false;
        }
        Ok(())
    }

    /// Leaves nothing of it on the host.
    fn remove(&mut self, outcome: &mut MeshOutcome) -> Result<(), Error> {
        if set_table(&mut self.nft, None, &mut self.agreed[0])? {
            outcome.changes.push("remove the table of published ports".into());
        }
        call()?;
        outcome.changes.extend(forwarding::reconcile(&mut self.nft, Passage::Mesh, None)?);
        self.held.clear();
        if let Some(link) = cable::find(&self.host)? {
            let nets = cable::nets(&self.host, &link)?;
            let subnets = Cable::read(&nets).map(|cable| cable.virtual_subnets());
            flows::end(&self.netns, &subnets.unwrap_or_default(), &Ports::new())?;
            cable::remove(&self.host)?;
            outcome.changes.push("remove the cable to the gate".into());
        }
        (self.inside, self.services, self.agreed[1]) = (None, Services::default(), None);
        self.has_old_flows = true;
        let path = self.path();
        if path.exists() {
            let failed = |source| Error::NamespaceFile {
                step: "remove network namespace",
                path: path.clone(),
                source,
            };
            NetNs::remove(&path).map_err(failed)?;
            // What is in it is a network, or somebody else's.
            let _ = std::fs::remove_dir(&self.config.directory);
            outcome.changes.push("remove the gate's namespace".into());
        }
        Ok(())
    }

    /// Has tasks know the way back, and nobody else.
    fn answer(
        &mut self,
        tasks: &BTreeMap<EndpointId, LocalEndpoint>,
        mesh: Option<&Mesh>,
        plugged: &BTreeMap<EndpointId, PortKind>,
        outcome: &mut MeshOutcome,
    ) {
        self.forget(tasks, plugged, outcome);
        let gates: BTreeSet<_> =
            mesh.iter().flat_map(|mesh| mesh.gates.values().copied()).collect();
        let host = self.netns.inode().unwrap_or(0);
        for (id, local) in tasks {
            let known = self.tasks.entry(*id).or_default();
            match answer::put(*id, local, &gates, host, known) {
                Ok(false) => {}
                Ok(true) => outcome.changes.push(format!("have the way back of task {id}")),
                Err(error) => outcome.refused.push((Concerned::Task(*id), error)),
            }
        }
    }

    /// Clears endpoints that are tasks no more, those of a process before this one included.
    fn forget(
        &mut self,
        tasks: &BTreeMap<EndpointId, LocalEndpoint>,
        plugged: &BTreeMap<EndpointId, PortKind>,
        outcome: &mut MeshOutcome,
    ) {
        let is_old = |id: &EndpointId| !tasks.contains_key(id);
        let mut old: BTreeMap<EndpointId, answer::Site> = BTreeMap::new();
        if !self.is_swept {
            let sites = plugged.iter().filter(|(id, _)| is_old(id));
            old.extend(sites.filter_map(|(id, port)| Some((*id, answer::Site::of(port)?))));
        }
        for (id, known) in &self.tasks {
            if let Some(known) = known.as_ref().filter(|_| is_old(id)) {
                old.insert(*id, known.site.clone());
            }
        }
        self.tasks.retain(|id, known| !is_old(id) || known.is_some());
        let mut is_swept = !plugged.is_empty();
        for (id, site) in old {
            match answer::clear(id, &site) {
                Ok(cleared) => {
                    self.tasks.remove(&id);
                    if cleared {
                        outcome.changes.push(format!("remove the way back of endpoint {id}"));
                    }
                }
                Err(error) => {
                    is_swept = false;
                    outcome.refused.push((Concerned::Task(id), error));
                }
            }
        }
        self.is_swept |= is_swept;
    }
}

/// Has a table be so, and says whether it was otherwise. It is not read while nobody changed anything since
/// it `agreed`.
fn set_table(
    nft: &mut Nft,
    wanted: Option<Table>,
    agreed: &mut Option<(u32, Table)>,
) -> Result<bool, NftError> {
    call()?;
    let generation = nft.generation()?;
    let before = agreed.take();
    if let (Some((then, table)), Some(wanted), Some(now)) = (&before, &wanted, generation)
        && *then == now
        && table == wanted
    {
        *agreed = before;
        return Ok(false);
    }
    let id = table_id();
    let batch = diff(&id, wanted.as_ref(), nft.observe(&id)?.as_ref());
    if !batch.is_empty() {
        call()?;
        nft.apply(&batch)?;
        return Ok(true);
    }
    *agreed = generation.zip(wanted);
    Ok(false)
}

fn call() -> Result<(), NftError> {
    super::call().map_err(|source| NftError::Socket { step: "use", source })
}
