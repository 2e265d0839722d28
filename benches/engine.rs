//! The engine without sockets, on one core: a 1400-octet frame in and a datagram out, and that
//! datagram in and the frame out; with VIP translation; encrypted.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use core::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};
use std::{sync::Arc, time::Instant};

use overlay_crypto::{
    aead::AeadKey,
    esp::{SaId, SaKeys, Salt},
};
use overlay_dataplane::{
    desired::{Backend, LocalEndpoint, Network, PortKind, RemoteEndpoint, Service, Settings},
    sa::Sa,
    user::engine::{
        Batch, Config, Engine, NetworkTable, Offload, Output, PortBinding, PortId, ROUTER_MAC,
        Tables,
    },
};
use overlay_types::{Addresses, EndpointId, Epoch, MacAddr, NodeId, ServiceId, Spi, Vni};

/// Frames handed over in one batch, as a socket or a TAP device gives them.
const BATCH: usize = 32;
/// Batches in one measurement: less than a time slice, so that some are not interrupted.
const BATCHES: usize = 100;
/// Endpoints on the network: tables that do not fit the first-level cache.
const ENDPOINTS: u16 = 1000;
/// Measurements, of which the fastest counts: the others were disturbed.
const RUNS: usize = 2000;

const VIP: u16 = 60_000;

fn v4(host: u16) -> Ipv4Addr {
    let [a, b] = host.to_be_bytes();
    Ipv4Addr::new(10, 1, a, b)
}

fn addresses(host: u16) -> Addresses {
    Addresses { v4: Some(v4(host)), v6: None }
}

fn node(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

/// Host 1 on node 1; all others on node 2. A service with ten backends there.
fn engine(number: u8, encrypted: bool) -> Engine {
    let mut network = Network::new(Settings {
        vni: Vni::for_overlay(5000).expect("an overlay's VNI"),
        encrypted,
        multicast: false,
        mtu: 1450,
        subnets: Vec::new(),
    });
    let other = node(3 - number);
    network.members.insert(other);
    for host in 1..=ENDPOINTS {
        let (mac, addresses) = (MacAddr::from_ipv4(v4(host)), addresses(host));
        let id = EndpointId::from_u128(host.into());
        if (host == 1) == (number == 1) {
            let port = PortKind::Memory;
            network.locals.insert(id, LocalEndpoint::new(mac, addresses, port));
        } else {
            network.remotes.insert(id, RemoteEndpoint { mac, addresses, node: other });
        }
    }
    let backends = (2..12_u16).map(|host| {
        let backend = Backend { addresses: addresses(host), draining: false };
        (EndpointId::from_u128(host.into()), backend)
    });
    let service = Service { vips: addresses(VIP), backends: backends.collect() };
    network.services.insert(ServiceId::from_u128(1), service);
    let table = NetworkTable::build(&network, |id| {
        Some(PortBinding { port: PortId(id.to_u128() as u32), offload: false })
    });
    let mut engine = Engine::new(Config::new(node(number), 1));
    engine.swap(Arc::new(Tables::new([Arc::new(table)])));
    let sa = |from: u8| {
        let spi = Spi::new(0x1000 + u32::from(from)).expect("not reserved");
        let id = SaId { peer: NodeId::from_u128((3 - number).into()), epoch: Epoch::new(1), spi };
        let keys = SaKeys { spi, key: AeadKey::from_bytes([from; 32]), salt: Salt([from; 4]) };
        Sa { id, address: other, keys: Arc::new(keys) }
    };
    engine.sas_mut().set_outbound(&sa(number));
    engine.sas_mut().add_inbound(&sa(3 - number)).expect("room for one");
    engine
}

/// A UDP frame of 1400 octets from host 1.
fn frame(to: u16, mac: MacAddr) -> Vec<u8> {
    let mut frame = [&mac.0[..], &MacAddr::from_ipv4(v4(1)).0, &[8, 0, 0x45, 0]].concat();
    frame.extend_from_slice(&1386_u16.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&v4(1).octets());
    frame.extend_from_slice(&v4(to).octets());
    frame.extend_from_slice(&[0x10, 0, 0, 80, 5, 86, 0x12, 0x34]);
    frame.resize(1400, 0x55);
    frame
}

/// Nanoseconds that a frame takes out of one engine and into the other.
fn round_trip(encrypted: bool, frame: &[u8]) -> f64 {
    let (mut a, mut b) = (engine(1, encrypted), engine(2, encrypted));
    let (mut out, mut back) = (Batch::default(), Batch::default());
    let mut frames = vec![frame.to_vec(); BATCH];
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let begin = Instant::now();
        for _ in 0..BATCHES {
            out.clear();
            back.clear();
            for buffer in &mut frames {
                // A port reads each frame into its buffer anew; VIP translation changes it there.
                buffer[..frame.len().min(54)].copy_from_slice(&frame[..frame.len().min(54)]);
                a.handle_frame(PortId(1), buffer, Offload::None, begin, &mut out);
            }
            let (outputs, arena) = out.parts_mut();
            for output in outputs {
                let Output::Datagrams { range, stride, .. } = output else { continue };
                for datagram in arena[range.clone()].chunks_mut(*stride) {
                    if encrypted {
                        b.handle_esp(node(1), datagram, begin, &mut back);
                    } else {
                        b.handle_vxlan(node(1), datagram, begin, &mut back);
                    }
                }
            }
            assert_eq!(black_box(&back).outputs().len(), BATCH, "every frame arrives");
        }
        let count = f64::from((BATCH * BATCHES) as u32);
        best = best.min(begin.elapsed().as_secs_f64() * 1e9 / count);
    }
    best
}

fn main() {
    let direct = frame(2, MacAddr::from_ipv4(v4(2)));
    let plain = round_trip(false, &direct);
    let service = round_trip(false, &frame(VIP, ROUTER_MAC));
    let sealed = round_trip(true, &direct);
    println!("engine: plain, 1400 B out and in\t{:.2}\tM/s\t>= 3", 1e3 / plain);
    println!("engine: VIP translation adds\t{:.0}\tns\t<= 60", service - plain);
    println!("engine: encrypted, 1400 B out and in\t{:.2}\tM/s\t", 1e3 / sealed);
}
