//! Name servers at 127.0.0.11, one in each network namespace that endpoints of this node are in.
//!
//! ```text
//!   endpoints, where their paths lead ──► plan ──► start, stop, other networks
//!                                                     │
//!     a thread that enters the namespace and ends ◄───┤ sockets: 127.0.0.11:53, and for upstreams
//!     two tasks that answer on them ◄─────────────────┘
//! ```
//!
//! What fails is logged once and tried again. Endpoints in the daemon's own namespace have the host's
//! name servers.

mod inside;
mod plan;
mod resolv_conf;
mod upstream;

use core::time::Duration;
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use overlay_dataplane::kernel::{NetNs, NetNsId};
use overlay_service::{
    Scope, SharedDirectory,
    dns::{Counts, Forwarder, Server},
};
use overlay_types::EndpointId;
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Handle,
};

pub(crate) use self::plan::{Seat, seats};
use self::{
    inside::{Inside, RESOLVER},
    plan::{State, Step, Wanted},
    upstream::Upstreams,
};
pub use self::{resolv_conf::SearchDomain, upstream::Upstream};

/// Longest time until it is looked where the paths lead now, and what the host's `resolv.conf` says.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Wait after the first failure in a namespace: the sockets of a server that was stopped close within.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Wait after further ones, as when a program there has the port.
const RETRY: Duration = Duration::from_secs(2);

/// What the operator set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) search: Vec<SearchDomain>,
}

/// The name servers of this node's endpoints. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Resolvers {
    names: SharedDirectory,
    settings: Settings,
    runtime: Handle,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where the path of each endpoint led when it was looked last.
    places: BTreeMap<EndpointId, Place>,
    look_at: Option<Instant>,
    /// Paths could not be followed the last time, and the log says so.
    blind: bool,
    /// The daemon's own namespace.
    own: Option<NetNsId>,
    upstreams: Option<Upstreams>,
    resolvers: BTreeMap<NetNsId, Resolver>,
    /// What became of the queries of servers that were stopped.
    past: Counts,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// `None`: nowhere.
    netns: Option<NetNsId>,
}

/// What there is of the name server of a namespace.
#[derive(Debug)]
enum Resolver {
    Serves(Serving),
    Failed {
        /// What the log says of it.
        told: Option<String>,
        retry_at: Instant,
    },
}

#[derive(Debug)]
struct Serving {
    server: Server,
    inside: Inside,
    wanted: Wanted,
}

/// What the name servers do, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Namespaces with a name server.
    pub(crate) serving: usize,
    /// Namespaces that should have one.
    pub(crate) failed: usize,
    /// What became of queries since the node started.
    pub(crate) counts: Counts,
}

impl Resolvers {
    /// None yet. Needs a tokio runtime, which their tasks run on.
    pub(crate) fn new(names: SharedDirectory, settings: Settings) -> Self {
        Self { names, settings, runtime: Handle::current(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents of `resolv.conf` for an endpoint, if it is in another namespace than the daemon.
    pub(crate) fn resolv_conf(&self, endpoint: EndpointId) -> Option<String> {
        let inner = self.inner();
        inner.places.get(&endpoint)?.netns.filter(|netns| Some(*netns) != inner.own)?;
        Some(resolv_conf::for_endpoints(&self.settings.search))
    }

    pub(crate) fn figures(&self) -> Figures {
        let inner = self.inner();
        let mut figures = Figures { counts: inner.past, ..Figures::default() };
        for resolver in inner.resolvers.values() {
            match resolver {
                Resolver::Serves(serving) => {
                    figures.serving += 1;
                    figures.counts += serving.server.counts();
                }
                Resolver::Failed { .. } => figures.failed += 1,
            }
        }
        figures
    }

    /// Makes the name servers what they should be for these endpoints. Says how soon to call again.
    /// Blocks for as long as it takes to open sockets.
    pub(crate) fn follow(&self, seats: &BTreeMap<EndpointId, Seat>, now: Instant) -> Duration {
        // Nothing is opened on a host without such endpoints.
        let mut inner = self.inner();
        if seats.is_empty() && inner.resolvers.is_empty() {
            return Duration::MAX;
        }
        let inner = &mut *inner;
        let all = inner.look_at.is_none_or(|at| at <= now);
        if all {
            inner.look_at = Some(now + LOOK_AGAIN);
            self.look_for_upstreams(inner);
        }
        inner.look_at_paths(seats, all);
        let Some(own) = inner.own else { return RETRY };
        let places = &inner.places;
        let found = places.iter().filter_map(|(id, place)| Some((*id, place.netns?))).collect();
        let wanted = plan::wanted(seats, &found, own);
        for step in plan::plan(&wanted, &inner.states(now)) {
            self.take(inner, step, now);
        }
        inner.next_look(now)
    }

    fn take(&self, inner: &mut Inner, step: Step<NetNsId>, now: Instant) {
        match step {
            Step::Stop(id) => {
                if let Some(Resolver::Serves(serving)) = inner.resolvers.remove(&id) {
                    inner.past += serving.server.counts();
                }
            }
            Step::Rescope(id, wanted) => {
                if let Some(Resolver::Serves(serving)) = inner.resolvers.get_mut(&id) {
                    serving.server.set_scope(Scope::new(wanted.networks.iter().copied()));
                    serving.wanted = wanted;
                }
            }
            Step::Start(id, wanted) => {
                let path = wanted.path.clone();
                let started = self.start(id, wanted, inner.upstreams.as_ref());
                let next = match (started, inner.resolvers.get(&id)) {
                    (Ok(serving), before) => {
                        if matches!(before, Some(Resolver::Failed { told: Some(_), .. })) {
                            tracing::info!(netns = %path.display(), "names are answered again");
                        }
                        Resolver::Serves(serving)
                    }
                    (Err(error), before) => failed(&path, &error, before, now),
                };
                inner.resolvers.insert(id, next);
            }
        }
    }

    fn start(
        &self,
        id: NetNsId,
        wanted: Wanted,
        upstreams: Option<&Upstreams>,
    ) -> io::Result<Serving> {
        let inside = Inside::open(&wanted.path, id)?;
        let (udp, tcp) = inside.listen()?;
        // The sockets are registered with the runtime that their tasks run on.
        let _context = self.runtime.enter();
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let scope = Scope::new(wanted.networks.iter().copied());
        let forwarder = forwarder(upstreams, &inside);
        let mut server = Server::new(self.names.clone(), scope, Some(forwarder));
        server.serve_udp(udp);
        server.serve_tcp(tcp);
        Ok(Serving { server, inside, wanted })
    }

    fn look_for_upstreams(&self, inner: &mut Inner) {
        let found = match Upstreams::find(&self.settings.upstreams) {
            Ok(found) => found,
            Err(error) => {
                // The former ones are better than none.
                tracing::debug!(%error, "the host's name servers cannot be read; trying again");
                return;
            }
        };
        if inner.upstreams.as_ref() == Some(&found) {
            return;
        }
        found.tell();
        for resolver in inner.resolvers.values() {
            if let Resolver::Serves(Serving { server, inside, .. }) = resolver {
                server.set_forwarder(Some(forwarder(Some(&found), inside)));
            }
        }
        inner.upstreams = Some(found);
    }
}

impl Inner {
    /// Looks where the paths of endpoints lead: of new ones, or of all.
    fn look_at_paths(&mut self, seats: &BTreeMap<EndpointId, Seat>, all: bool) {
        let mut trouble = None;
        if self.own.is_none() {
            let own = NetNs::own().and_then(|own| own.id());
            self.own = own.map_err(|error| trouble = Some(error)).ok();
        }
        self.places.retain(|id, place| seats.get(id).is_some_and(|seat| seat.path == place.path));
        for (endpoint, seat) in seats {
            let before = self.places.get(endpoint);
            if before.is_some() && !all {
                continue;
            }
            let netns = match NetNs::open(&seat.path).and_then(|netns| netns.id()) {
                Ok(id) => Some(id),
                Err(error) if leads_nowhere(&error) => {
                    if before.is_none_or(|place| place.netns.is_some()) {
                        let netns = seat.path.display();
                        tracing::warn!(%endpoint, %netns, %error, "no names for a namespace that is gone");
                    }
                    None
                }
                // It cannot be said. What runs goes on.
                Err(error) => {
                    trouble = Some(error);
                    continue;
                }
            };
            self.places.insert(*endpoint, Place { path: seat.path.clone(), netns });
        }
        match &trouble {
            Some(error) if !self.blind => {
                tracing::warn!(%error, "namespaces cannot be opened; new ones get no names for now");
            }
            None if self.blind => tracing::info!("namespaces are opened again"),
            _ => {}
        }
        self.blind = trouble.is_some();
    }

    fn states(&self, now: Instant) -> BTreeMap<NetNsId, State> {
        let state = |resolver: &Resolver| match resolver {
            Resolver::Serves(serving) => State::Serves(serving.wanted.clone()),
            Resolver::Failed { retry_at, .. } => State::Failed { due: *retry_at <= now },
        };
        self.resolvers.iter().map(|(id, resolver)| (*id, state(resolver))).collect()
    }

    fn next_look(&self, now: Instant) -> Duration {
        let retries = self.resolvers.values().filter_map(|resolver| match resolver {
            Resolver::Serves(_) => None,
            Resolver::Failed { retry_at, .. } => Some(*retry_at),
        });
        let next = retries.chain(self.look_at).min();
        next.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }
}

fn forwarder(upstreams: Option<&Upstreams>, inside: &Inside) -> Forwarder {
    let upstreams = upstreams.into_iter().flat_map(Upstreams::addresses);
    Forwarder::new(upstreams, inside.clone())
}

/// The path stands for no namespace, as opposed to one that cannot be opened for now.
fn leads_nowhere(error: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidInput)
}

fn failed(
    path: &std::path::Path,
    error: &io::Error,
    before: Option<&Resolver>,
    now: Instant,
) -> Resolver {
    let reason = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("another program in it has port 53 of {RESOLVER} ({error})")
        }
        _ => format!("its sockets cannot be opened ({error})"),
    };
    let netns = path.display();
    match before {
        Some(Resolver::Failed { told, .. }) => {
            if told.as_ref() != Some(&reason) {
                tracing::warn!(%netns, reason, "names are not answered there; trying again");
            }
            Resolver::Failed { told: Some(reason), retry_at: now + RETRY }
        }
        // A server of ours may be closing there: it is told when it lasts.
        _ => Resolver::Failed { told: None, retry_at: now + FIRST_RETRY },
    }
}
