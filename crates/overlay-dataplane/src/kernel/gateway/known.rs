//! What was read of containers, for changes between two full comparisons: a change of one container does not
//! read the others.

use std::collections::BTreeMap;

use super::plan::{FoundUplink, GatewayOp, Inside, NetNsId, Observed};

/// A container in which nothing was left to do.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) uplink: FoundUplink,
    pub(super) inside: Inside,
}

/// Containers that these operations do not concern, as they were found.
pub(super) fn settled(observed: &Observed, ops: &[GatewayOp]) -> BTreeMap<NetNsId, Known> {
    let mut uplinks = observed.uplinks.clone();
    for op in ops {
        match op {
            GatewayOp::RemoveUplink(id)
            | GatewayOp::PutUplink(id, _)
            | GatewayOp::SetContainerTable(id, _) => drop(uplinks.remove(id)),
            GatewayOp::RemoveDevice(_)
            | GatewayOp::SetTable(_)
            | GatewayOp::PutBridge(_)
            | GatewayOp::Forward { .. } => {}
        }
    }
    let known = |(id, uplink)| {
        let inside = observed.containers.get(&id)?.clone();
        Some((id, Known { uplink, inside }))
    };
    uplinks.into_iter().filter_map(known).collect()
}
