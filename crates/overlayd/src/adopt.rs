//! What a start does to what the run before it left: until a manager was heard, the view is that of the
//! disk, which may lack the last second.

use overlay_dataplane::{Desired, Observed, Op, desired::RemoteEndpoint};

/// Leaves those operations that take nothing away from what is there.
pub(crate) fn spare(ops: &mut Vec<Op>, desired: &Desired, observed: &Observed) {
    ops.retain_mut(|op| match op {
        // What is to be there is made anew, because it is broken.
        Op::RemoveNetwork(id) => desired.networks.contains_key(id),
        Op::RemoveLocal(id, endpoint) => {
            desired.networks.get(id).is_some_and(|network| network.locals.contains_key(endpoint))
        }
        // One that a restart gave another id is to go with the real one's coming: entries are shared.
        Op::RemoveRemote(id, endpoint) => {
            let old = observed.networks.get(id).and_then(|network| network.remotes.get(endpoint));
            let mut wanted = desired.networks.get(id).into_iter().flat_map(|n| n.remotes.values());
            old.is_some_and(|old| wanted.any(|new| is_same(old, new)))
        }
        Op::RemoveService(..) => false,
        Op::SetMembers(id, members) => {
            let there = observed.networks.get(id).into_iter().flat_map(|n| &n.members);
            // An unspecified one shows that they are not enforced.
            members.extend(there.filter(|address| !address.is_unspecified()));
            true
        }
        // Without one of them its connections end.
        Op::PutService(id, service, wanted) => {
            let network = observed.networks.get(id);
            let there = network.and_then(|network| network.services.get(service));
            for (task, backend) in there.into_iter().flat_map(|there| &there.backends) {
                wanted.backends.entry(*task).or_insert(*backend);
            }
            true
        }
        _ => true,
    });
}

/// Whether both are about one station or address.
fn is_same(old: &RemoteEndpoint, new: &RemoteEndpoint) -> bool {
    old.mac == new.mac || old.addresses.iter().any(|address| new.addresses.contains(address))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use overlay_dataplane::{
        Dataplane,
        desired::{Backend, LocalEndpoint, Network, PortKind, RemoteEndpoint, Service, Settings},
        diff,
        fake::FakeDataplane,
    };
    use overlay_types::{Addresses, EndpointId, MacAddr, NetworkId, ServiceId, Vni};

    use super::*;

    fn network(vni: u32, members: &[u8], endpoints: &[u128]) -> Network {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut network = Network::new(Settings {
            vni: Vni::for_overlay(vni).unwrap(),
            encrypted: false,
            multicast: false,
            mtu: 1450,
            subnets: Vec::new(),
        });
        network.members = members.iter().map(|last| address(*last)).collect();
        let (addresses, port) = (Addresses::default(), PortKind::default());
        for id in endpoints {
            let mac = MacAddr([2, 0, 0, 0, 0, *id as u8]);
            let remote = RemoteEndpoint { mac, addresses, node: address(1) };
            network.remotes.insert(EndpointId::from_u128(100 + id), remote);
            let local = LocalEndpoint::new(mac, addresses, port.clone());
            network.locals.insert(EndpointId::from_u128(*id), local);
        }
        network
    }

    #[test]
    fn d05_an_old_view_adds_and_takes_nothing_away() {
        let [a, b, c] = [1, 2, 3].map(NetworkId::from_u128);
        let mut dataplane = FakeDataplane::new();
        let there = [(a, network(5001, &[1, 2], &[1, 2])), (b, network(5002, &[1], &[3]))];
        dataplane.state_mut().networks.extend(there);
        let mut desired = Desired::default();
        desired.networks.insert(a, network(5001, &[1, 3], &[1, 4]));
        desired.networks.insert(c, network(5003, &[1], &[5]));
        let observed = dataplane.observe().unwrap();
        let mut ops = diff(&desired, &observed);
        spare(&mut ops, &desired, &observed);
        assert!(dataplane.apply(ops).iter().all(Result::is_ok));
        let found = dataplane.observe().unwrap().networks;
        assert_eq!(found[&a], network(5001, &[1, 2, 3], &[1, 2, 4]));
        assert_eq!(found[&b], observed.networks[&b]);
        assert_eq!(found[&c], desired.networks[&c]);
    }

    #[test]
    fn d05_s01_an_old_view_ends_no_connection_of_a_task() {
        let (id, web) = (NetworkId::from_u128(1), ServiceId::from_u128(7));
        let backend = |draining| Backend { addresses: Addresses::default(), draining };
        let tasks = |tasks: &[(u128, bool)]| {
            let tasks = tasks.iter().map(|(id, away)| (EndpointId::from_u128(*id), backend(*away)));
            Service { backends: tasks.collect(), ..Service::default() }
        };
        let mut dataplane = FakeDataplane::new();
        let mut there = network(5001, &[1], &[1]);
        there.services.insert(web, tasks(&[(1, false), (2, true), (3, false)]));
        dataplane.state_mut().networks.insert(id, there);
        let mut desired = Desired::default();
        let mut wanted = network(5001, &[1], &[1]);
        wanted.services.insert(web, tasks(&[(1, true), (4, false)]));
        desired.networks.insert(id, wanted);
        let observed = dataplane.observe().unwrap();
        let mut ops = diff(&desired, &observed);
        spare(&mut ops, &desired, &observed);
        assert!(dataplane.apply(ops).iter().all(Result::is_ok));
        let found = &dataplane.observe().unwrap().networks[&id].services[&web];
        assert_eq!(*found, tasks(&[(1, true), (2, true), (3, false), (4, false)]));
    }

    /// The kernel does not know ids: what it shows has others after a restart.
    #[test]
    fn d05_what_has_another_id_goes_when_the_real_one_comes() {
        let id = NetworkId::from_u128(1);
        let mut dataplane = FakeDataplane::new();
        let mut shown = network(5001, &[1], &[1, 2]);
        shown.locals.clear();
        let renamed = |(id, remote): (EndpointId, RemoteEndpoint)| {
            (EndpointId::from_u128(id.to_u128() + 1000), remote)
        };
        shown.remotes = shown.remotes.into_iter().map(renamed).collect();
        dataplane.state_mut().networks.insert(id, shown);
        let mut desired = Desired::default();
        desired.networks.insert(id, network(5001, &[1], &[1]));
        let observed = dataplane.observe().unwrap();
        let mut ops = diff(&desired, &observed);
        spare(&mut ops, &desired, &observed);
        assert!(dataplane.apply(ops).iter().all(Result::is_ok));
        let found: Vec<u128> = dataplane.observe().unwrap().networks[&id]
            .remotes
            .keys()
            .map(|id| id.to_u128())
            .collect();
        assert_eq!(found, [101, 1102]);
    }
}
