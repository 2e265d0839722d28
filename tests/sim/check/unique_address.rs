//! **unique-address**: two live endpoints of a network never hold one address. On no manager at no
//! revision; and not by what clients were told, whatever became of the managers meanwhile.

use std::{collections::BTreeMap, net::IpAddr};

use overlay_types::{Addresses, Change, EndpointId, NetworkId, Object, ObjectKey};

use super::Violation;
use crate::history::{Ask, Call, Told};

const NAME: &str = "unique-address";

/// Who holds which address on one manager.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    holders: BTreeMap<(NetworkId, IpAddr), EndpointId>,
    held: BTreeMap<EndpointId, (NetworkId, Addresses)>,
}

/// Two endpoints hold one address.
#[derive(Debug)]
pub(crate) struct Clash {
    address: IpAddr,
    endpoints: [EndpointId; 2],
}

impl Clash {
    pub(crate) fn at(&self, place: String) -> Violation {
        let Self { address, endpoints: [one, other] } = self;
        Violation::new(NAME, format!("{one} and {other} hold {address} on {place}"))
    }
}

impl Holders {
    /// Takes the next change of the state.
    pub(crate) fn follow(&mut self, change: &Change) -> Result<(), Clash> {
        match change {
            Change::Put(Object::Endpoint(endpoint)) => {
                self.forget(endpoint.id);
                for address in endpoint.addresses.iter() {
                    let holder = self.holders.insert((endpoint.network, address), endpoint.id);
                    if let Some(other) = holder.filter(|holder| *holder != endpoint.id) {
                        return Err(Clash { address, endpoints: [other, endpoint.id] });
                    }
                }
                self.held.insert(endpoint.id, (endpoint.network, endpoint.addresses));
            }
            Change::Delete(ObjectKey::Endpoint(id)) => self.forget(*id),
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, id: EndpointId) {
        let Some((network, addresses)) = self.held.remove(&id) else { return };
        for address in addresses.iter() {
            self.holders.remove(&(network, address));
        }
    }
}

/// An endpoint is its client's from the answer to its attach until its detach is asked for, or the
/// removal of its node.
pub(crate) fn check(calls: &[Call]) -> Vec<Violation> {
    let (mut detached, mut removed) = (BTreeMap::new(), BTreeMap::new());
    for call in calls {
        match call.ask {
            Ask::Detach(id) => _ = detached.insert(id, call.begin),
            Ask::RemoveNode(node) => _ = removed.entry(node).or_insert(call.begin),
            _ => {}
        }
    }
    let mut tenants: BTreeMap<_, Vec<(u64, u64, EndpointId)>> = BTreeMap::new();
    for call in calls {
        let (Told::Endpoint(id, network, addresses, _), Ask::Attach { node }) =
            (&call.told, &call.ask)
        else {
            continue;
        };
        let ends = [detached.get(id), removed.get(node)];
        let until = ends.into_iter().flatten().copied().min().unwrap_or(u64::MAX);
        for address in addresses {
            tenants.entry((*network, *address)).or_default().push((call.end, until, *id));
        }
    }
    let mut violations = Vec::new();
    for ((_, address), mut tenants) in tenants {
        tenants.sort_unstable();
        for pair in tenants.windows(2) {
            let [(_, until, one), (from, _, other)] = pair else { continue };
            if from < until {
                let text = format!("clients were told that {one} and {other} hold {address}");
                violations.push(Violation::new(NAME, text));
            }
        }
    }
    violations
}
