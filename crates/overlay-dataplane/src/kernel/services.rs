//! Services in VIP mode: a table of virtual addresses in the namespace of each local endpoint.
//!
//! What a namespace's rules are is read again only when somebody changed them: the kernel counts the
//! transactions of a namespace. Connections are listed only when some of them are to end.
//!
//! `room` is what is done in one namespace.

mod room;

use core::{mem, num::NonZeroUsize};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
};

use overlay_types::{Addresses, EndpointId, NetworkId, ServiceId};

pub(super) use self::room::Site;
use self::room::{Known, Room, Sockets, Step};
use super::{
    netlink,
    nft::vip::{content::Content, plan::plan},
};
use crate::{
    Error,
    desired::{Network, Service},
};

/// Endpoints whose sockets are kept, two for each; and whose flows end at a time.
const MOST_KEPT: usize = 256;

/// Tables of local endpoints, as they were last read or made, and what is to be done to them.
#[derive(Debug, Default)]
pub(super) struct Services {
    tables: BTreeMap<EndpointId, Known>,
    sockets: BTreeMap<EndpointId, Sockets>,
    /// Endpoints whose table is to be looked after whole, each with the operation that says so.
    endpoints: BTreeMap<(NetworkId, EndpointId), usize>,
    /// Services that were put or removed, and the operation.
    touched: BTreeMap<NetworkId, BTreeMap<ServiceId, usize>>,
}

impl Services {
    /// Takes note of what a service shall be from now on.
    pub(super) fn touch(&mut self, number: usize, network: NetworkId, service: ServiceId) {
        self.touched.entry(network).or_default().insert(service, number);
    }

    /// Takes note that an endpoint was plugged in.
    pub(super) fn look_after(&mut self, number: usize, network: NetworkId, endpoint: EndpointId) {
        self.endpoints.insert((network, endpoint), number);
    }

    /// Forgets the tables of all endpoints but these.
    pub(super) fn keep(&mut self, endpoints: &BTreeSet<EndpointId>) {
        self.tables.retain(|endpoint, _| endpoints.contains(endpoint));
        self.sockets.retain(|endpoint, _| endpoints.contains(endpoint));
    }

    /// Reads the tables of a network's endpoints, and returns its services: those that are known, or
    /// else those that the first table says.
    pub(super) fn read(
        &mut self,
        network: &Network,
        known: Option<&Network>,
    ) -> BTreeMap<ServiceId, Service> {
        for site in network.locals.iter().filter_map(|(id, local)| Site::of(*id, local)) {
            let is_idle = known.is_some_and(|known| known.services.is_empty());
            if is_idle && !self.has_table(site.endpoint) {
                continue;
            }
            if let Err(reason) = self.look(&site) {
                tracing::debug!(endpoint = %site.endpoint, reason, "a table of services cannot be read");
                if known.is_none() {
                    // Without nf_tables there are networks all the same.
                    self.tables.remove(&site.endpoint);
                } else {
                    // It shows as an endpoint that is to be put again.
                    self.tables.insert(site.endpoint, Known::nothing());
                }
            }
        }
        let says = || {
            let tables = network.locals.keys().filter_map(|id| self.tables.get(id));
            let mut contents = tables.map(|table| &table.content);
            contents.find(|content| !content.is_empty()).map(Content::as_services)
        };
        known.map(|known| known.services.clone()).or_else(says).unwrap_or_default()
    }

    fn has_table(&self, endpoint: EndpointId) -> bool {
        self.tables.get(&endpoint).is_some_and(|table| table.is_there)
    }

    fn look(&mut self, site: &Site) -> Result<(), String> {
        let sockets = self.sockets.remove(&site.endpoint);
        let is_kept = sockets.is_some();
        let Some(mut room) = Room::enter(site, sockets)? else {
            // Nothing in there can be wrong.
            self.tables.remove(&site.endpoint);
            return Ok(());
        };
        let refreshed = room.refresh(self.tables.entry(site.endpoint).or_default());
        if is_kept && self.has_table(site.endpoint) {
            self.sockets.insert(site.endpoint, room.sockets);
        }
        refreshed
    }

    /// Whether an endpoint's table is as it is made, and says that there are these services.
    pub(super) fn is_right(
        &mut self,
        endpoint: EndpointId,
        services: &BTreeMap<ServiceId, Service>,
    ) -> bool {
        let Some(known) = self.tables.get_mut(&endpoint) else { return true };
        let content = &known.content;
        let compare = || plan(content, services, None, endpoint).is_empty();
        known.is_intact && *known.agrees.get_or_insert_with(compare)
    }

    /// Does what was asked for since the last time. Says which operations failed. First all endpoints lead new
    /// flows as they shall; to end old ones takes longer, and is done for several endpoints at a time.
    pub(super) fn flush(&mut self, networks: &BTreeMap<NetworkId, Network>) -> Vec<(usize, Error)> {
        let endpoints = mem::take(&mut self.endpoints);
        let touched = mem::take(&mut self.touched);
        let (mut failed, mut over) = (Vec::new(), Vec::new());
        let mut unfinished = Vec::new();
        for (id, network) in networks {
            let changed = touched.get(id);
            let names: Option<BTreeSet<_>> = changed.map(|c| c.keys().copied().collect());
            for site in network.locals.iter().filter_map(|(id, local)| Site::of(*id, local)) {
                let put = endpoints.get(&(*id, site.endpoint));
                let is_idle = network.services.is_empty() && !self.has_table(site.endpoint);
                if put.is_none() && changed.is_none() || is_idle {
                    continue;
                }
                let ops = put.into_iter().chain(changed.into_iter().flat_map(BTreeMap::values));
                let touched = names.clone().filter(|_| put.is_none());
                let mut job = self.job(site, &network.services, touched, ops.copied().collect());
                match job.run(Step::Lead) {
                    Ok(false) => unfinished.push(job),
                    outcome => failed.extend(self.put_back(job, outcome, &mut over)),
                }
                if unfinished.len() == MOST_KEPT {
                    for (job, outcome) in finish(mem::take(&mut unfinished)) {
                        failed.extend(self.put_back(job, outcome, &mut over));
                    }
                }
            }
        }
        for (job, outcome) in finish(unfinished) {
            failed.extend(self.put_back(job, outcome, &mut over));
        }
        netlink::close(over);
        failed
    }

    fn job<'a>(
        &mut self,
        site: Site,
        services: &'a BTreeMap<ServiceId, Service>,
        touched: Option<BTreeSet<ServiceId>>,
        ops: Vec<usize>,
    ) -> Job<'a> {
        let known = self.tables.remove(&site.endpoint);
        let sockets = self.sockets.remove(&site.endpoint);
        Job { site, services, touched, known, sockets, ops }
    }

    /// Takes note of what a job came to. Returns the operations that failed. Sockets that are not kept are
    /// `over`.
    fn put_back(
        &mut self,
        job: Job<'_>,
        outcome: Result<bool, String>,
        over: &mut Vec<Sockets>,
    ) -> Vec<(usize, Error)> {
        let Job { site, known, sockets, ops, .. } = job;
        // They hold on to the namespace: without a table nobody looks whether it is still there.
        let is_there = known.as_ref().is_some_and(|known| known.is_there);
        let is_kept = is_there && outcome.is_ok() && self.sockets.len() < MOST_KEPT;
        match sockets {
            Some(sockets) if is_kept => drop(self.sockets.insert(site.endpoint, sockets)),
            sockets => over.extend(sockets),
        }
        let (known, failed) = match outcome {
            Ok(_) => (known, Vec::new()),
            Err(reason) => {
                let failed = ops.into_iter().map(|op| (op, site.failed(reason.clone())));
                (Some(Known::nothing()), failed.collect())
            }
        };
        self.tables.extend(known.map(|known| (site.endpoint, known)));
        failed
    }

    /// Virtual addresses of services, as the table of an endpoint says them.
    pub(super) fn addresses(
        &mut self,
        site: &Site,
    ) -> Result<BTreeMap<ServiceId, Addresses>, Error> {
        self.look(site).map_err(|reason| site.failed(reason))?;
        let known = self.tables.get(&site.endpoint);
        Ok(known.map(|known| known.content.services().clone()).unwrap_or_default())
    }

    /// Has the table of an endpoint say what it shall.
    pub(super) fn program(
        &mut self,
        site: Site,
        services: &BTreeMap<ServiceId, Service>,
    ) -> Result<(), Error> {
        // The only operation there is.
        let mut job = self.job(site, services, None, vec![0]);
        let (outcome, mut over) = (job.run(Step::End), Vec::new());
        let failed = self.put_back(job, outcome, &mut over);
        netlink::close(over);
        failed.into_iter().try_for_each(|(_, error)| Err(error))
    }

    /// Takes an endpoint's table away, and the flows that it made.
    pub(super) fn withdraw(&mut self, site: &Site) -> Result<(), Error> {
        self.take_away(site).map_err(|reason| site.failed(reason))
    }

    fn take_away(&mut self, site: &Site) -> Result<(), String> {
        if !self.has_table(site.endpoint) {
            return Ok(());
        }
        let mut known = self.tables.remove(&site.endpoint).unwrap_or_else(Known::nothing);
        // As long as it is not known to be gone.
        self.tables.insert(site.endpoint, Known::nothing());
        let room = Room::enter(site, self.sockets.remove(&site.endpoint))?;
        if let Some(mut room) = room.filter(|room| !room.is_another(&known)) {
            room.refresh(&mut known)?;
            room.withdraw(&known)?;
            netlink::close(vec![room.sockets]);
        }
        self.tables.remove(&site.endpoint);
        Ok(())
    }
}

/// An endpoint's table that is to be another one.
struct Job<'a> {
    site: Site,
    services: &'a BTreeMap<ServiceId, Service>,
    /// The services that it is about; all, if `None`.
    touched: Option<BTreeSet<ServiceId>>,
    /// What is known of the table, once its namespace was found.
    known: Option<Known>,
    sockets: Option<Sockets>,
    /// The operations that ask for it.
    ops: Vec<usize>,
}

impl Job<'_> {
    /// Whether there is nothing left to do.
    fn run(&mut self, step: Step) -> Result<bool, String> {
        let sockets = self.sockets.take();
        let Some(mut room) = Room::enter(&self.site, sockets)? else { return Ok(true) };
        let known = self.known.get_or_insert_default();
        if room.is_another(known) {
            return Ok(true);
        }
        room.refresh(known)?;
        if !known.is_intact {
            room.mend(known)?;
        }
        let touched = self.touched.as_ref().filter(|_| known.agrees == Some(true));
        let plan = plan(&known.content, self.services, touched, self.site.endpoint);
        let is_done = room.carry_out(known, plan, step)?;
        if is_done {
            known.agrees = Some(true);
        }
        known.seen = room.was_alone()?.then_some(room.seen);
        self.sockets = Some(room.sockets);
        Ok(is_done)
    }

    fn finish(mut self) -> (Self, Result<bool, String>) {
        let outcome = self.run(Step::End);
        (self, outcome)
    }
}

/// Has the flows end that are to end, of several endpoints at a time.
fn finish(jobs: Vec<Job<'_>>) -> Vec<(Job<'_>, Result<bool, String>)> {
    // Other threads' calls are not counted in tests, nor do they fail there.
    #[cfg(test)]
    if netlink::fuse::is_lit() {
        return jobs.into_iter().map(Job::finish).collect();
    }
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(jobs.len());
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || core::iter::from_fn(next).map(Job::finish).collect::<Vec<_>>();
    thread::scope(|scope| {
        // Where no thread can be had, this one does it all.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(start).collect();
        let mut done = work();
        for thread in others {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    })
}
