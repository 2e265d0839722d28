//! What every dataplane has to do, as a suite that each implementation runs.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_types::{
    Addresses, EndpointId, Epoch, MacAddr, NetworkId, NetworkSubnet, NodeId, ServiceId, Spi,
    Subnet, Vni,
};

use crate::{
    Dataplane, Desired, Error, Op,
    desired::{Backend, LocalEndpoint, Network, PortKind, RemoteEndpoint, Service, Settings},
    diff,
    sa::{Sa, SaSet},
};

/// A dataplane that is to pass the suite, and what the suite has to know of it.
#[derive(Debug)]
pub struct Candidate<D> {
    /// The dataplane, empty.
    pub dataplane: D,
    /// How the endpoint of each of two networks is plugged in.
    pub ports: [PortKind; 2],
    /// Whether it has encrypted networks and security associations. Else it refuses them.
    pub encrypts: bool,
}

impl<D> Candidate<D> {
    /// A dataplane that can do everything, with ports in memory.
    pub const fn new(dataplane: D) -> Self {
        let ports = [PortKind::Memory, PortKind::Memory];
        Self { dataplane, ports, encrypts: true }
    }

    /// The sample, without what the dataplane cannot do.
    pub(crate) fn sample(&self) -> Desired {
        let mut desired = sample();
        for (network, port) in desired.networks.values_mut().zip(&self.ports) {
            network.settings.encrypted &= self.encrypts;
            network.locals.values_mut().for_each(|local| local.port = port.clone());
        }
        if !self.encrypts {
            desired.sas = SaSet::default();
        }
        desired
    }
}

/// Runs the suite on dataplanes that `make` makes, each of them empty.
///
/// # Panics
/// When the dataplane does not do what it has to.
pub fn check<D: Dataplane>(mut make: impl FnMut() -> Candidate<D>) {
    starts_empty(make());
    reaches_what_is_desired(make());
    operations_are_idempotent(make());
    each_operation_has_its_result(make());
    changes_settings_in_place(make());
    moves_an_address_between_endpoints(make());
    rotates_associations(make());
    refuses_what_it_cannot_do(make());
    is_as_desired_without_a_look(make());
    removes_everything(make());
}

fn starts_empty<D: Dataplane>(mut candidate: Candidate<D>) {
    let dataplane = &mut candidate.dataplane;
    assert_eq!(dataplane.observe().expect("observe").networks.len(), 0);
    assert_eq!(diff(&Desired::default(), &dataplane.observe().expect("observe")), []);
}

fn reaches_what_is_desired<D: Dataplane>(mut candidate: Candidate<D>) {
    let desired = candidate.sample();
    converge(&mut candidate.dataplane, &desired);
    let observed = candidate.dataplane.observe().expect("observe");
    assert_eq!(observed.networks, desired.networks);
    assert_eq!(observed.inbound.len(), desired.sas.inbound.len());
}

fn operations_are_idempotent<D: Dataplane>(mut candidate: Candidate<D>) {
    let desired = candidate.sample();
    let dataplane = &mut candidate.dataplane;
    let ops = diff(&desired, &dataplane.observe().expect("observe"));
    for _ in 0..2 {
        for result in dataplane.apply(ops.clone()) {
            result.expect("an operation that was applied before");
        }
        assert_eq!(dataplane.observe().expect("observe").networks, desired.networks);
    }
}

fn each_operation_has_its_result<D: Dataplane>(mut candidate: Candidate<D>) {
    let (nowhere, endpoint) = (NetworkId::from_u128(77), EndpointId::from_u128(7));
    let settings = candidate.sample().networks[&network(1)].settings.clone();
    let dataplane = &mut candidate.dataplane;
    let results = dataplane.apply(vec![
        Op::PutRemote(nowhere, endpoint, remote(9)),
        Op::PutNetwork(network(1), settings.clone()),
        Op::PutNetwork(nowhere, settings),
        Op::PutRemote(network(1), endpoint, remote(9)),
        Op::RemoveRemote(nowhere, endpoint),
    ]);
    assert!(
        matches!(
            results[..],
            [Err(Error::UnknownNetwork(_)), Ok(()), Err(Error::VniInUse { .. }), Ok(()), Ok(())]
        ),
        "{results:?}"
    );
    let observed = dataplane.observe().expect("observe");
    assert_eq!(observed.networks.len(), 1);
    assert_eq!(observed.networks[&network(1)].remotes.len(), 1);
}

/// Endpoints stay, and with them their ports, which an operation on them would plug in anew.
fn changes_settings_in_place<D: Dataplane>(mut candidate: Candidate<D>) {
    let mut desired = candidate.sample();
    converge(&mut candidate.dataplane, &desired);
    let entry = desired.networks.get_mut(&network(1)).expect("the sample has it");
    entry.settings.mtu = 1300;
    entry.settings.multicast = true;
    for (text, gateway) in [("10.0.2.0/24", "10.0.2.1"), ("fd00:1::/64", "fd00:1::1")] {
        entry.settings.subnets.push(NetworkSubnet {
            subnet: Subnet::parse("subnet", text).expect("a subnet"),
            gateway: gateway.parse().expect("an address"),
        });
    }
    let ops = diff(&desired, &candidate.dataplane.observe().expect("observe"));
    assert_eq!(ops.len(), 1, "{ops:?}");
    converge(&mut candidate.dataplane, &desired);
    let entry = desired.networks.get_mut(&network(1)).expect("the sample has it");
    let dual = Addresses { v4: Some([10, 0, 2, 9].into()), v6: "fd00:1::9".parse().ok() };
    let moved = RemoteEndpoint { addresses: dual, ..remote(9) };
    entry.remotes.values_mut().for_each(|remote| *remote = moved);
    entry.settings.multicast = false;
    entry.settings.subnets.remove(0);
    converge(&mut candidate.dataplane, &desired);
}

fn moves_an_address_between_endpoints<D: Dataplane>(mut candidate: Candidate<D>) {
    let mut desired = candidate.sample();
    let dataplane = &mut candidate.dataplane;
    converge(dataplane, &desired);
    let entry = desired.networks.get_mut(&network(1)).expect("the sample has it");
    let locals = core::mem::take(&mut entry.locals);
    entry.remotes.insert(EndpointId::from_u128(50), remote(2));
    converge(dataplane, &desired);
    let entry = desired.networks.get_mut(&network(1)).expect("the sample has it");
    entry.remotes.remove(&EndpointId::from_u128(50));
    entry.locals = locals;
    converge(dataplane, &desired);
}

fn rotates_associations<D: Dataplane>(mut candidate: Candidate<D>) {
    if !candidate.encrypts {
        return;
    }
    let mut desired = candidate.sample();
    let dataplane = &mut candidate.dataplane;
    converge(dataplane, &desired);
    let (old, new) = (sa(1, 0x1000), sa(2, 0x2000));
    desired.sas.inbound.insert(new.id, new.clone());
    desired.sas.outbound.insert(new.id.peer, new.clone());
    converge(dataplane, &desired);
    desired.sas.inbound.remove(&old.id);
    converge(dataplane, &desired);
    let observed = dataplane.observe().expect("observe");
    assert_eq!(observed.outbound.get(&new.id.peer), Some(&(new.id, new.address)));
    assert_eq!(observed.inbound.keys().collect::<Vec<_>>(), [&new.id]);
}

/// With a reason, and without a trace.
fn refuses_what_it_cannot_do<D: Dataplane>(mut candidate: Candidate<D>) {
    let desired = candidate.sample();
    let all = sample();
    let mut ops = Vec::new();
    if !candidate.encrypts {
        let mut settings = all.networks[&network(2)].settings.clone();
        settings.vni = Vni::new(4999).expect("24 bits");
        let sa = sa(1, 0x1000);
        ops.extend([
            Op::PutNetwork(NetworkId::from_u128(99), settings),
            Op::AddInboundSa(sa.clone()),
            Op::SetOutboundSa { sa, greet: false },
        ]);
    }
    converge(&mut candidate.dataplane, &desired);
    let before = candidate.dataplane.observe().expect("observe");
    for result in candidate.dataplane.apply(ops) {
        assert!(matches!(result, Err(Error::Unsupported(_))), "{result:?}");
    }
    assert_eq!(candidate.dataplane.observe().expect("observe"), before);
}

/// From change to change, what was last desired stands for what there is.
fn is_as_desired_without_a_look<D: Dataplane>(mut candidate: Candidate<D>) {
    let sample = candidate.sample();
    let dataplane = &mut candidate.dataplane;
    let mut known = dataplane.observe().expect("observe");
    // Bits that are scattered well: which parts there are of the sample.
    let parts = (0..24_u32).map(|number| number.wrapping_mul(0x9e37_79b1) >> 8);
    for bits in parts.chain([u32::MAX, 0]) {
        let desired = part(&sample, bits);
        let ops = diff(&desired, &known);
        for (op, result) in ops.iter().zip(dataplane.apply(ops.clone())) {
            assert!(result.is_ok(), "{op:?}: {result:?}");
        }
        assert_eq!(diff(&desired, &dataplane.observe().expect("observe")), [], "{bits:#x}");
        known = desired.into();
    }
}

/// What is left of a state when each bit stands for a part of it.
fn part(desired: &Desired, bits: u32) -> Desired {
    let mut desired = desired.clone();
    let mut bit = 0;
    let mut kept = || {
        bit += 1;
        bits >> (bit % u32::BITS) & 1 == 1
    };
    desired.networks.retain(|_, network| {
        network.locals.retain(|_, _| kept());
        network.remotes.retain(|_, _| kept());
        network.services.retain(|_, _| kept());
        network.members.retain(|_| kept());
        if kept() {
            network.settings.mtu -= 100;
        }
        kept()
    });
    desired.sas.inbound.retain(|_, _| kept());
    desired.sas.outbound.retain(|_, _| kept());
    desired
}

fn removes_everything<D: Dataplane>(mut candidate: Candidate<D>) {
    let desired = candidate.sample();
    let dataplane = &mut candidate.dataplane;
    converge(dataplane, &desired);
    converge(dataplane, &Desired::default());
    assert_eq!(dataplane.observe().expect("observe"), crate::Observed::default());
}

/// Applies the difference, and expects none afterwards.
fn converge(dataplane: &mut impl Dataplane, desired: &Desired) {
    let ops = diff(desired, &dataplane.observe().expect("observe"));
    let results = dataplane.apply(ops.clone());
    assert_eq!(results.len(), ops.len(), "a result for each operation");
    for (op, result) in ops.iter().zip(results) {
        assert!(result.is_ok(), "{op:?}: {result:?}");
    }
    assert_eq!(diff(desired, &dataplane.observe().expect("observe")), []);
}

fn network(number: u128) -> NetworkId {
    NetworkId::from_u128(number)
}

fn addresses(host: u8) -> Addresses {
    Addresses { v4: Some(Ipv4Addr::new(10, 0, 1, host)), v6: None }
}

fn remote(host: u8) -> RemoteEndpoint {
    RemoteEndpoint {
        mac: MacAddr([2, 0x42, 10, 0, 1, host]),
        addresses: addresses(host),
        node: IpAddr::from([192, 0, 2, 2]),
    }
}

fn sa(epoch: u64, spi: u32) -> Sa {
    let spi = Spi::new(spi).expect("not reserved");
    Sa {
        id: SaId { peer: NodeId::from_u128(2), epoch: Epoch::new(epoch), spi },
        address: IpAddr::from([192, 0, 2, 2]),
        keys: Arc::new(SaKeys { spi, key: AeadKey::from_bytes([7; 32]), salt: Salt([1; 4]) }),
    }
}

/// A plain network with endpoints here and there and a service, and an encrypted one.
pub(crate) fn sample() -> Desired {
    let mut desired = Desired::default();
    for (number, encrypted) in [(1_u32, false), (2, true)] {
        let mut entry = Network::new(Settings {
            vni: Vni::new(4096 + number).expect("24 bits"),
            encrypted,
            multicast: false,
            mtu: 1400,
            subnets: vec![NetworkSubnet {
                subnet: Subnet::parse("subnet", "10.0.1.0/24").expect("a subnet"),
                gateway: IpAddr::from([10, 0, 1, 1]),
            }],
        });
        entry.members.insert(IpAddr::from([192, 0, 2, 2]));
        let local =
            LocalEndpoint::new(MacAddr([2, 0x42, 10, 0, 1, 2]), addresses(2), PortKind::Memory);
        let (here, there) = (u128::from(number) * 10, u128::from(number) * 10 + 1);
        entry.locals.insert(EndpointId::from_u128(here), local);
        entry.remotes.insert(EndpointId::from_u128(there), remote(3));
        let backend = Backend { addresses: addresses(3), draining: false };
        let backends = [(EndpointId::from_u128(there), backend)].into();
        let service = Service { vips: addresses(100), backends };
        entry.services.insert(ServiceId::from_u128(1), service);
        desired.networks.insert(network(number.into()), entry);
    }
    let association = sa(1, 0x1000);
    desired.sas.outbound.insert(association.id.peer, association.clone());
    desired.sas.inbound.insert(association.id, association);
    desired
}
