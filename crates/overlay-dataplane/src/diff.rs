//! From what is and what shall be to the changes between them, in an order that is safe at each
//! step.
//!
//! 1. Associations come before what is sealed with them, and leave after it (**sealed**).
//! 2. What leaves goes before what comes: an address moves from one endpoint to another, an interface
//!    from one network to another.
//! 3. Members and endpoints come before the services that send to them.

use std::collections::BTreeMap;

use itertools::{EitherOrBoth, Itertools as _};
use overlay_types::NetworkId;

use crate::{
    api::{Observed, Op},
    desired::{Desired, Network, Settings},
};

/// Whether settings differ. Subnets have no order: a kernel does not remember one.
fn are_others(new: &Settings, old: &Settings) -> bool {
    let sorted = |settings: &Settings| {
        let mut settings = settings.clone();
        settings
            .subnets
            .sort_unstable_by_key(|subnet| (subnet.gateway, subnet.subnet.prefix_len()));
        settings
    };
    new != old && sorted(new) != sorted(old)
}

/// The changes that make `observed` what is `desired`. None when they agree.
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Op> {
    let mut ops = Vec::new();
    add_sas(desired, observed, &mut ops);
    for id in observed.networks.keys() {
        if !desired.networks.contains_key(id) {
            ops.push(Op::RemoveNetwork(*id));
        }
    }
    for (id, old) in &observed.networks {
        let new = desired.networks.get(id).filter(|network| !is_other(network, old));
        for (endpoint, before) in &old.locals {
            // A port of another kind or name is another port.
            let stays = |new: &Network| {
                new.locals.get(endpoint).is_some_and(|after| after.port == before.port)
            };
            // All of a network goes with it.
            if new.is_some_and(|new| !stays(new)) {
                ops.push(Op::RemoveLocal(*id, *endpoint));
            }
        }
    }
    for (id, network) in &desired.networks {
        match observed.networks.get(id) {
            // A network does not change its VNI or encryption: it is another one then.
            Some(old) if is_other(network, old) => {
                ops.push(Op::RemoveNetwork(*id));
                let none = Network::new(network.settings.clone());
                ops.push(Op::PutNetwork(*id, network.settings.clone()));
                change_network(*id, network, &none, &mut ops);
            }
            Some(old) => {
                if are_others(&network.settings, &old.settings) {
                    ops.push(Op::PutNetwork(*id, network.settings.clone()));
                }
                change_network(*id, network, old, &mut ops);
            }
            None => {
                ops.push(Op::PutNetwork(*id, network.settings.clone()));
                let none = Network::new(network.settings.clone());
                change_network(*id, network, &none, &mut ops);
            }
        }
    }
    remove_sas(desired, observed, &mut ops);
    ops
}

fn is_other(new: &Network, old: &Network) -> bool {
    new.settings.vni != old.settings.vni || new.settings.encrypted != old.settings.encrypted
}

fn add_sas(desired: &Desired, observed: &Observed, ops: &mut Vec<Op>) {
    for (id, sa) in &desired.sas.inbound {
        if observed.inbound.get(id) != Some(&sa.address) {
            ops.push(Op::AddInboundSa(sa.clone()));
        }
    }
    for (peer, sa) in &desired.sas.outbound {
        if observed.outbound.get(peer) != Some(&(sa.id, sa.address)) {
            let greet = desired.sas.greet.contains(peer);
            ops.push(Op::SetOutboundSa { sa: sa.clone(), greet });
        }
    }
}

fn remove_sas(desired: &Desired, observed: &Observed, ops: &mut Vec<Op>) {
    for peer in observed.outbound.keys() {
        if !desired.sas.outbound.contains_key(peer) {
            ops.push(Op::RemoveOutboundSa(*peer));
        }
    }
    for id in observed.inbound.keys() {
        if !desired.sas.inbound.contains_key(id) {
            ops.push(Op::RemoveInboundSa(*id));
        }
    }
}

fn change_network(id: NetworkId, new: &Network, old: &Network, ops: &mut Vec<Op>) {
    let services = Changes::between(&new.services, &old.services);
    let remotes = Changes::between(&new.remotes, &old.remotes);
    ops.extend(services.gone.into_iter().map(|service| Op::RemoveService(id, *service)));
    ops.extend(remotes.gone.into_iter().map(|endpoint| Op::RemoveRemote(id, *endpoint)));
    if new.members != old.members {
        ops.push(Op::SetMembers(id, new.members.clone()));
    }
    for (endpoint, after) in Changes::between(&new.locals, &old.locals).put {
        ops.push(Op::PutLocal(id, *endpoint, after.clone()));
    }
    ops.extend(remotes.put.into_iter().map(|(e, after)| Op::PutRemote(id, *e, *after)));
    for (service, after) in services.put {
        ops.push(Op::PutService(id, *service, after.clone()));
    }
}

/// What makes one map the other.
struct Changes<'a, K, V> {
    gone: Vec<&'a K>,
    put: Vec<(&'a K, &'a V)>,
}

impl<'a, K: Ord, V: PartialEq> Changes<'a, K, V> {
    /// Walks both side by side: they are large, and nearly the same.
    fn between(new: &'a BTreeMap<K, V>, old: &'a BTreeMap<K, V>) -> Self {
        let (mut gone, mut put) = (Vec::new(), Vec::new());
        for pair in new.iter().merge_join_by(old, |(new, _), (old, _)| new.cmp(old)) {
            match pair {
                EitherOrBoth::Both((_, after), (_, before)) if after == before => {}
                EitherOrBoth::Both(new, _) | EitherOrBoth::Left(new) => put.push(new),
                EitherOrBoth::Right((key, _)) => gone.push(key),
            }
        }
        Self { gone, put }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Dataplane, conformance::sample, fake::FakeDataplane};

    /// The sample with parts of it missing.
    fn partial(keep: u32) -> Desired {
        let mut desired = sample();
        let mut bit = 0;
        let mut kept = || {
            bit += 1;
            keep >> bit & 1 == 1
        };
        desired.networks.retain(|_, network| {
            network.locals.retain(|_, _| kept());
            network.remotes.retain(|_, _| kept());
            network.services.retain(|_, _| kept());
            network.members.retain(|_| kept());
            network.settings.encrypted ^= kept();
            kept()
        });
        desired.sas.inbound.retain(|_, _| kept());
        desired.sas.outbound.retain(|_, _| kept());
        desired
    }

    proptest! {
        /// From any state to any other: each operation succeeds, nothing is left to do, and the
        /// order is safe at each step.
        #[test]
        fn d04_any_state_is_reached_from_any_other(from: u32, to: u32) {
            let mut dataplane = FakeDataplane::new();
            for desired in [partial(from), partial(to)] {
                let ops = diff(&desired, &dataplane.observe().unwrap());
                let number = |op: &Op| match op {
                    Op::AddInboundSa(_) => 0,
                    Op::SetOutboundSa { .. } => 1,
                    Op::RemoveOutboundSa(_) => 3,
                    Op::RemoveInboundSa(_) => 4,
                    _ => 2,
                };
                prop_assert!(ops.iter().map(number).is_sorted(), "{:?}", ops);
                let unplugs = |op: &Op| matches!(op, Op::RemoveLocal(..));
                let plugs = |op: &Op| matches!(op, Op::PutLocal(..));
                let first = ops.iter().position(plugs).unwrap_or(ops.len());
                prop_assert!(!ops[first..].iter().any(unplugs), "{:?}", ops);
                for id in desired.networks.keys() {
                    let of_network = ops.iter().filter_map(|op| match op {
                        Op::RemoveService(network, _) if network == id => Some(0),
                        Op::RemoveRemote(network, _) if network == id => Some(1),
                        Op::SetMembers(network, _) if network == id => Some(2),
                        Op::PutLocal(network, ..) | Op::PutRemote(network, ..) if network == id => Some(3),
                        Op::PutService(network, ..) if network == id => Some(4),
                        _ => None,
                    });
                    prop_assert!(of_network.is_sorted(), "{:?}", ops);
                }
                for result in dataplane.apply(ops) {
                    prop_assert!(result.is_ok());
                }
                let observed = dataplane.observe().unwrap();
                prop_assert_eq!(diff(&desired, &observed), []);
                prop_assert_eq!(observed.networks, desired.networks);
            }
        }
    }
}
