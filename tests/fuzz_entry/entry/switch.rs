//! What other nodes and local endpoints send to the switch.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use overlay_dataplane::{
    desired::{Backend, LocalEndpoint, Network, PortKind, RemoteEndpoint, Service, Settings},
    user::engine::{Batch, Config, Engine, NetworkTable, Offload, PortBinding, PortId, Tables},
};
use overlay_types::{Addresses, EndpointId, MacAddr, ServiceId, Vni};

use super::now;

const MEMBER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PORT: PortId = PortId(0);

/// A datagram from a member to the VXLAN port.
pub fn vxlan(bytes: &[u8]) -> bool {
    run(|engine, out| engine.handle_vxlan(MEMBER, &mut bytes.to_vec(), now(), out))
}

/// A frame from a local endpoint, which nobody has to trust.
pub fn frame(bytes: &[u8]) -> bool {
    run(|engine, out| {
        engine.handle_frame(PORT, &mut bytes.to_vec(), Offload::None, now(), out);
    })
}

/// Whether something comes out of a fresh switch. What does must be where the batch says.
fn run(input: impl FnOnce(&mut Engine, &mut Batch)) -> bool {
    let mut engine = Engine::new(Config { max_flows: 16, ..Config::new(HERE, 0) });
    engine.swap(Arc::new(Tables::new([Arc::new(table())])));
    let mut out = Batch::default();
    input(&mut engine, &mut out);
    assert!(out.frames().all(|(port, frame, _)| port == PORT && !frame.is_empty()));
    assert!(out.datagrams().all(|(to, _, datagram)| to == MEMBER && !datagram.is_empty()));
    !out.is_empty()
}

/// VNI 4097 with 10.0.1.2 and fd00:1::2 here, .3 and ::3 on the member, and a service in front of
/// the latter.
fn table() -> NetworkTable {
    let mut network = Network::new(Settings {
        vni: Vni::new(4097).expect("24 bits"),
        encrypted: false,
        multicast: true,
        mtu: 1450,
        subnets: Vec::new(),
    });
    let (here, there) = (EndpointId::from_u128(2), EndpointId::from_u128(3));
    let mac = |last| MacAddr::from_ipv4(Ipv4Addr::new(10, 0, 1, last));
    network.members.insert(MEMBER);
    let local = LocalEndpoint::new(mac(2), addresses(2), PortKind::Memory);
    network.locals.insert(here, local);
    let remote = RemoteEndpoint { mac: mac(3), addresses: addresses(3), node: MEMBER };
    network.remotes.insert(there, remote);
    let backend = Backend { addresses: addresses(3), draining: false };
    let service = Service { vips: addresses(100), backends: [(there, backend)].into() };
    network.services.insert(ServiceId::from_u128(1), service);
    NetworkTable::build(&network, |_| Some(PortBinding { port: PORT, offload: false }))
}

fn addresses(last: u8) -> Addresses {
    let v4 = Ipv4Addr::new(10, 0, 1, last);
    let v6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into());
    Addresses { v4: Some(v4), v6: Some(v6) }
}
