//! Which namespaces are to have a name server, and what to do about it. Pure: `I` tells namespaces apart.

use std::{collections::BTreeMap, path::PathBuf};

use overlay_dataplane::{Desired, desired::PortKind};
use overlay_types::{EndpointId, NetworkId, Revision, View};

/// An endpoint whose interface is in a namespace that a path leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    pub(crate) path: PathBuf,
    pub(crate) network: NetworkId,
    /// When it was attached.
    pub(crate) since: Revision,
}

/// The seats of this node's endpoints. Its place in the routing mesh asks for no names.
pub(crate) fn seats(view: &View, desired: &Desired) -> BTreeMap<EndpointId, Seat> {
    let mut seats = BTreeMap::new();
    for (network, local) in &desired.networks {
        for (id, endpoint) in &local.locals {
            let path = match &endpoint.port {
                PortKind::Memory | PortKind::Tap { netns: None, .. } => continue,
                PortKind::Tap { netns: Some(path), .. } | PortKind::Veth { netns: path, .. } => {
                    path
                }
            };
            let known = view.endpoints().get(id);
            if known.is_some_and(|endpoint| endpoint.is_mesh()) {
                continue;
            }
            let since = known.map(|known| known.meta.created_at);
            let (path, network) = (path.clone(), *network);
            seats.insert(*id, Seat { path, network, since: since.unwrap_or_default() });
        }
    }
    seats
}

/// A namespace that is to have a name server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// A path that leads to it.
    pub(super) path: PathBuf,
    /// Networks of its endpoints, in the order in which it got on them.
    pub(super) networks: Vec<NetworkId>,
}

/// The namespaces that endpoints are in. `places` says which one each path led to; the daemon's `own` has
/// the host's names.
pub(super) fn wanted<I: Ord + Copy>(
    seats: &BTreeMap<EndpointId, Seat>,
    places: &BTreeMap<EndpointId, I>,
    own: I,
) -> BTreeMap<I, Wanted> {
    let mut oldest_first: Vec<_> = seats.iter().collect();
    oldest_first.sort_by_key(|(id, seat)| (seat.since, **id));
    let mut wanted: BTreeMap<I, Wanted> = BTreeMap::new();
    for (endpoint, seat) in oldest_first {
        let Some(place) = places.get(endpoint).filter(|place| **place != own) else { continue };
        let path = || Wanted { path: seat.path.clone(), networks: Vec::new() };
        let networks = &mut wanted.entry(*place).or_insert_with(path).networks;
        if !networks.contains(&seat.network) {
            networks.push(seat.network);
        }
    }
    wanted
}

/// What became of the name server of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It answers for this.
    Serves(Wanted),
    /// It could not be started.
    Failed {
        /// It is time to try again.
        due: bool,
    },
}

/// What there is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step<I> {
    /// No endpoint is in the namespace any more.
    Stop(I),
    /// The namespace is on other networks now.
    Rescope(I, Wanted),
    /// Endpoints came, or the last try failed.
    Start(I, Wanted),
}

/// The steps from what there is to what is wanted; stops first, because they free descriptors.
pub(super) fn plan<I: Ord + Copy>(
    wanted: &BTreeMap<I, Wanted>,
    states: &BTreeMap<I, State>,
) -> Vec<Step<I>> {
    let gone = states.keys().filter(|id| !wanted.contains_key(id));
    let mut steps: Vec<_> = gone.copied().map(Step::Stop).collect();
    for (id, wish) in wanted {
        match states.get(id) {
            Some(State::Serves(served)) if served.networks == wish.networks => {}
            Some(State::Serves(_)) => steps.push(Step::Rescope(*id, wish.clone())),
            Some(State::Failed { due: false }) => {}
            Some(State::Failed { due: true }) | None => steps.push(Step::Start(*id, wish.clone())),
        }
    }
    steps
}

#[cfg(test)]
mod tests;
