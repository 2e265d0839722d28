//! How local endpoints are plugged in: known to the reconcile loop, kept on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    errno::Errno,
    sys::statfs::{NSFS_MAGIC, statfs},
};
use overlay_api::v1::{self, endpoint_port::Namespace};
use overlay_dataplane::{desired::PortKind, kernel, user::ports::interface::is_device_name};
use overlay_types::{DataplaneKind, EndpointId, NodeId, SpecError, View};
use serde::{Deserialize, Serialize};

use crate::{NodeError, disk::Disk};

/// The daemon's own network namespace.
const OWN_NETNS: &str = "/proc/self/ns/net";
/// What the daemon would open of itself.
const OWN: [&str; 2] = ["/proc/self", "/proc/thread-self"];

/// How an endpoint is plugged in, on whichever dataplane its network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Frames in memory, for whoever runs the endpoint in this process.
    Memory,
    /// A network interface.
    Interface(Interface),
}

/// A network interface that an endpoint gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// The network namespace; `None` is the daemon's own.
    pub(crate) netns: Option<PathBuf>,
    /// When the process started whose namespace it is: its id alone may be another's by now.
    pub(crate) started: Option<u64>,
}

impl Port {
    /// The port that a dataplane makes of it.
    pub(crate) fn kind(self, carrier: DataplaneKind) -> PortKind {
        let Self::Interface(Interface { name, netns, .. }) = self else { return PortKind::Memory };
        match carrier {
            DataplaneKind::User => PortKind::Tap { name, netns },
            DataplaneKind::Kernel => {
                PortKind::Veth { name, netns: netns.unwrap_or_else(|| OWN_NETNS.into()) }
            }
        }
    }
}

/// The port that a request asks for. Without one it is in memory.
pub(crate) fn parse(port: Option<v1::EndpointPort>) -> Result<Port, NodeError> {
    let Some(v1::EndpointPort { interface: name, namespace }) = port else {
        return Ok(Port::Memory);
    };
    if !is_device_name(&name) {
        let reason =
            "an interface's name has 1-15 bytes without '/', ':' and white space, like eth0";
        return Err(invalid("interface", name, reason));
    }
    let (netns, started) = match namespace {
        None => (None, None),
        Some(Namespace::Pid(pid)) => {
            let started =
                started(pid).ok_or_else(|| invalid("pid", pid, "no process here has this id"))?;
            (Some(kernel::of_process(pid)), Some(started))
        }
        Some(Namespace::Netns(path)) => {
            let netns = PathBuf::from(&path);
            if !netns.is_absolute() {
                let reason = "a network namespace is an absolute path, like /run/netns/blue";
                return Err(invalid("netns", path, reason));
            }
            if OWN.iter().any(|own| netns.starts_with(own)) {
                let reason = "it is the daemon's own, which an interface is in that names none";
                return Err(invalid("netns", path, reason));
            }
            let started = process(&netns).and_then(started);
            (Some(netns), started)
        }
    };
    let interface = Interface { name, netns, started };
    if interface.is_gone() {
        let path = interface.netns.unwrap_or_default();
        let reason = "no network namespace is there";
        return Err(invalid("netns", path.display(), reason));
    }
    Ok(Port::Interface(interface))
}

fn invalid(field: &'static str, value: impl core::fmt::Display, reason: &'static str) -> NodeError {
    overlay_api::status::invalid(&SpecError::new(field, value, reason)).into()
}

/// The process that a path names the namespace of.
fn process(path: &Path) -> Option<u32> {
    path.strip_prefix("/proc").ok()?.iter().next()?.to_str()?.parse().ok()
}

/// When a process started, in the kernel's ticks since it was booted (`proc_pid_stat(5)`). `None` when
/// there is none, or it has ended and nobody waited for it yet.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may have any characters, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // Field 22; the state is the third.
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
}

impl Interface {
    /// Whether its namespace has ended. What cannot be told has not.
    pub(crate) fn is_gone(&self) -> bool {
        let Some(path) = &self.netns else { return false };
        if self.has_ended() {
            return true;
        }
        match statfs(path.as_path()) {
            // A file that nothing is mounted on any more stands for nothing.
            Ok(found) => found.filesystem_type() != NSFS_MAGIC,
            Err(error) => matches!(error, Errno::ENOENT | Errno::ESRCH),
        }
    }

    /// Whether it was a process's namespace and that one has ended: it does not come back.
    pub(crate) fn has_ended(&self) -> bool {
        let (Some(path), Some(then)) = (&self.netns, self.started) else { return false };
        process(path).and_then(started) != Some(then)
    }
}

/// The ports of this node's endpoints.
#[derive(Debug)]
pub(crate) struct Ports {
    disk: Disk,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    ports: BTreeMap<EndpointId, Port>,
    /// Endpoints that the cluster has heard of, so that one that a view lacks is detached, and not
    /// one whose attachment the view does not show yet.
    attached: BTreeSet<EndpointId>,
}

impl Ports {
    /// Those that the disk remembers. Their endpoints were attached when it was written.
    pub(crate) fn open(disk: Disk) -> Result<Self, NodeError> {
        let ports = disk.ports()?;
        let attached = ports.keys().copied().collect();
        Ok(Self { disk, known: Mutex::new(Known { ports, attached }) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<EndpointId, Port> {
        self.known().ports.clone()
    }

    /// The endpoint is plugged in like this from now on.
    pub(crate) fn put(&self, endpoint: EndpointId, port: Port) -> Result<(), NodeError> {
        let in_memory = port == Port::Memory;
        let before = self.known().ports.insert(endpoint, port);
        // The disk has no ports in memory, and may be full.
        if in_memory && before.is_none_or(|port| port == Port::Memory) {
            return Ok(());
        }
        self.keep()
    }

    /// The endpoint has no port any more.
    pub(crate) fn remove(&self, endpoint: EndpointId) -> Result<(), NodeError> {
        let mut known = self.known();
        known.attached.remove(&endpoint);
        if known.ports.remove(&endpoint).is_none_or(|port| port == Port::Memory) {
            return Ok(());
        }
        drop(known);
        self.keep()
    }

    /// Forgets the ports of endpoints that were detached elsewhere. `view` must have come from a
    /// manager: one from the disk may be older than an attachment. True when something went, which
    /// is for [`keep`](Self::keep) to tell the disk.
    pub(crate) fn prune(&self, view: &View, own: NodeId) -> bool {
        let mut known = self.known();
        let Known { ports, attached } = &mut *known;
        let before = ports.len();
        ports.retain(|id, _| {
            if view.endpoints().get(id).is_some_and(|endpoint| endpoint.node == own) {
                attached.insert(*id);
                return true;
            }
            !attached.remove(id)
        });
        ports.len() < before
    }

    /// Has the disk remember what there is.
    pub(crate) fn keep(&self) -> Result<(), NodeError> {
        self.disk.keep_ports(|| self.all())
    }
}

#[cfg(test)]
mod tests {
    use overlay_types::{
        Addresses, Change, Endpoint, EndpointRole, MacAddr, Meta, NetworkId, Object, Readiness,
        Revision,
    };

    use super::*;

    const OWN: NodeId = NodeId::from_u128(7);

    fn tap(name: &str) -> Port {
        Port::Interface(Interface { name: name.to_owned(), netns: None, started: None })
    }

    fn view(endpoints: &[u128]) -> View {
        let put = |id: &u128| {
            Change::Put(Object::Endpoint(Endpoint {
                id: EndpointId::from_u128(*id),
                meta: Meta::default(),
                network: NetworkId::from_u128(1),
                node: OWN,
                service: None,
                name: None,
                addresses: Addresses::default(),
                mac: MacAddr::default(),
                role: EndpointRole::Workload,
                readiness: Readiness::Ready,
                extras: None,
            }))
        };
        let mut view = View::default();
        view.apply(Revision::new(1), endpoints.iter().map(put));
        view
    }

    #[test]
    fn what_was_detached_elsewhere_is_forgotten_and_what_is_being_attached_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&folder.path().join("data")).unwrap();
        let ports = Ports::open(disk.clone()).unwrap();
        let [a, b] = [1, 2].map(EndpointId::from_u128);
        ports.put(a, tap("tap1")).unwrap();
        ports.put(b, tap("tap2")).unwrap();

        assert!(!ports.prune(&view(&[1]), OWN));
        assert_eq!(ports.all().keys().copied().collect::<Vec<_>>(), [a, b]);
        assert!(ports.prune(&view(&[]), OWN));
        ports.keep().unwrap();
        assert_eq!(ports.all(), BTreeMap::from([(b, tap("tap2"))]));
        assert_eq!(disk.ports().unwrap(), ports.all());

        // After a restart all that the disk remembers was attached.
        let ports = Ports::open(disk.clone()).unwrap();
        assert!(ports.prune(&view(&[]), OWN));
        assert_eq!(ports.all(), BTreeMap::new());
    }
}
