//! What a container sends to its networks does not go out by its uplink, not even while the networks'
//! own devices are gone: an encrypted network's packets would pass the host in clear.
//!
//! Each subnet has a route that leads nowhere and comes last, so that it holds where no device has the
//! subnet. They are made before the default routes and taken away before the uplink is.

use std::collections::BTreeSet;

use overlay_types::Subnet;

use super::super::{
    netlink::{Refusal, RouteSocket},
    route,
};

/// Subnets of a namespace that are kept from its way out.
pub(super) fn read(inside: &RouteSocket) -> Result<BTreeSet<Subnet>, Refusal> {
    let mut found = BTreeSet::new();
    for request in route::list() {
        found.extend(inside.dump(request, route::read_barrier)?);
    }
    Ok(found)
}

/// Keeps these, and no others.
pub(super) fn put(inside: &RouteSocket, wanted: &BTreeSet<Subnet>) -> Result<(), Refusal> {
    let found = read(inside)?;
    let put = wanted.difference(&found).map(|subnet| route::put_barrier(*subnet));
    let remove = found.difference(wanted).map(|subnet| route::remove_barrier(*subnet));
    inside.batch(put.chain(remove).collect()).into_iter().collect()
}
