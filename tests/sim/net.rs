//! The network between the nodes: carries gRPC calls late, in another order, or not at all.
//!
//! ```text
//!   client ─► Channel ─► delay, cut, broken ─► Routes of the server
//!      ◄──── answer ◄── delay, cut, broken ◄──┘
//! ```
//!
//! A call behaves like one on a TCP connection: a cut link holds it until the link heals or the
//! keepalive gives up, and who crashes takes its calls along. What was sent arrives even if the
//! caller has gone away meanwhile.

mod carry;
mod channel;

use core::{net::SocketAddr, ops::Range, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use overlay_cluster::raft::transport::{self, Links};
use overlay_types::{NodeId, Revision, Role};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::watch;
use tonic::{Status, service::Routes};

use crate::{nodes, plant::Plant, trace::Trace};

/// When the keepalive of a connection gives up, as [`Dialer`](overlay_cluster::ca::Dialer) has it.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(10);

/// Shortest delay of a message, unless hosts are far apart.
const SHORTEST: Duration = Duration::from_micros(50);

/// The network. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Net(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    hosts: BTreeMap<NodeId, Host>,
    /// Links that carry nothing, from one node to another.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Shortest and longest delay of one message.
    delay: Range<Duration>,
    /// How probable it is that a connection breaks under a message.
    breaks: f64,
    /// Counts changes of links and hosts.
    changes: watch::Sender<u64>,
    random: StdRng,
    plant: Option<Plant>,
    trace: Trace,
}

#[derive(Debug)]
struct Host {
    /// How often it was started or crashed: a connection lives in one life of both ends.
    life: u64,
    certificate: Certificate,
    server: Option<Server>,
}

/// What a node's certificate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Certificate {
    pub(crate) role: Role,
    /// The state that gave the node this role.
    pub(crate) as_of: Revision,
}

impl Certificate {
    /// As a cluster's first write makes it.
    pub(crate) const fn first(role: Role) -> Self {
        Self { role, as_of: Revision::new(1) }
    }
}

#[derive(Clone)]
struct Server(Routes);

impl core::fmt::Debug for Server {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Server")
    }
}

/// One life of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ends {
    from: (NodeId, u64),
    to: (NodeId, u64),
}

impl Ends {
    const fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// How a message fared that could be sent at once.
enum Way {
    Open(Duration),
    Cut,
    Broken,
}

impl Net {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            delay: SHORTEST..Duration::from_millis(2),
            breaks: 0.0,
            changes: watch::Sender::new(0),
            random: StdRng::seed_from_u64(seed),
            plant,
            trace,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn change(&self, what: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner();
        what(&mut inner);
        inner.changes.send_modify(|changes| *changes += 1);
    }

    /// The node `id`, with this certificate, begins a life: its connections of the one before are
    /// gone.
    pub(crate) fn begin(&self, id: NodeId, certificate: Certificate) {
        self.change(|inner| {
            let life = inner.hosts.get(&id).map_or(0, |host| host.life) + 1;
            inner.hosts.insert(id, Host { life, certificate, server: None });
        });
    }

    /// The node `id` answers calls, until its life ends.
    pub(crate) fn serve(&self, id: NodeId, server: Routes) {
        self.change(|inner| {
            inner.hosts.get_mut(&id).expect("it lives").server = Some(Server(server));
        });
    }

    /// The node `id` has this certificate from now on; as a worker it answers no calls.
    pub(crate) fn certify(&self, id: NodeId, certificate: Certificate) {
        self.change(|inner| {
            let host = inner.hosts.get_mut(&id).expect("it lives");
            host.certificate = certificate;
            host.server.take_if(|_| certificate.role == Role::Worker);
        });
    }

    /// What the certificate of the node says.
    pub(crate) fn certificate(&self, id: NodeId) -> Certificate {
        let first = || Certificate::first(nodes::first_role(id));
        self.inner().hosts.get(&id).map_or_else(first, |host| host.certificate)
    }

    /// Those with a manager's certificate.
    pub(crate) fn managers(&self) -> Vec<NodeId> {
        let inner = self.inner();
        let managers =
            inner.hosts.iter().filter(|(_, host)| host.certificate.role == Role::Manager);
        managers.map(|(id, _)| *id).collect()
    }

    /// Who the node says it is.
    fn identity(&self, id: NodeId) -> (NodeId, Certificate) {
        if self.inner().plant == Some(Plant::StolenCertificates) {
            return (nodes::manager(0), Certificate::first(Role::Manager));
        }
        (id, self.certificate(id))
    }

    /// Cuts the link from one node to another, not the way back.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.change(|inner| _ = inner.cut.insert((from, to)));
    }

    /// From now on messages take up to `delay`, and connections break with this probability.
    pub(crate) fn set_weather(&self, delay: Duration, breaks: f64) {
        self.change(|inner| (inner.delay, inner.breaks) = (SHORTEST..delay, breaks));
    }

    /// From now on messages take `way`, and at most a millisecond more.
    pub(crate) fn set_distance(&self, way: Duration) {
        self.change(|inner| inner.delay = way..way + Duration::from_millis(1));
    }

    /// All links carry again, fast.
    pub(crate) fn heal(&self) {
        self.change(|inner| {
            inner.cut.clear();
            (inner.delay, inner.breaks) = (SHORTEST..Duration::from_millis(2), 0.0);
        });
    }

    /// Channels of the node `from` in its present life, as gRPC clients and managers use them.
    pub(crate) fn links(&self, from: NodeId) -> SimLinks {
        SimLinks { net: self.clone(), from: (from, self.life(from)) }
    }

    fn life(&self, id: NodeId) -> u64 {
        self.inner().hosts.get(&id).map_or(0, |host| host.life)
    }

    fn server(&self, id: NodeId) -> Result<Routes, Status> {
        let inner = self.inner();
        let server = inner.hosts.get(&id).and_then(|host| host.server.clone());
        server.map(|server| server.0).ok_or_else(|| Status::unavailable("connection refused"))
    }
}

impl Inner {
    fn alive(&self, ends: Ends) -> bool {
        let lives = |(id, life)| self.hosts.get(&id).map_or(0, |host: &Host| host.life) == life;
        lives(ends.from) && lives(ends.to)
    }

    fn is_cut(&self, ends: Ends) -> bool {
        self.cut.contains(&(ends.from.0, ends.to.0))
    }

    fn way(&mut self, ends: Ends) -> Way {
        if !self.alive(ends) {
            return Way::Broken;
        }
        if ends.from.0 == ends.to.0 {
            return Way::Open(Duration::from_micros(20));
        }
        if self.is_cut(ends) {
            return Way::Cut;
        }
        if self.breaks > 0.0 && self.random.random_bool(self.breaks) {
            return Way::Broken;
        }
        let micros = |delay: Duration| u64::try_from(delay.as_micros()).expect("short");
        let delays = micros(self.delay.start)..micros(self.delay.end);
        Way::Open(Duration::from_micros(self.random.random_range(delays)))
    }
}

/// Channels of one node, in one life, to the others.
#[derive(Clone, Debug)]
pub(crate) struct SimLinks {
    net: Net,
    from: (NodeId, u64),
}

impl SimLinks {
    /// A channel to the node `to`.
    pub(crate) fn to(&self, to: NodeId) -> transport::Channel {
        transport::Channel::new(channel::Call { net: self.net.clone(), from: self.from, to })
    }
}

impl Links for SimLinks {
    fn channel(&self, id: NodeId, _: SocketAddr) -> transport::Channel {
        self.to(id)
    }
}
