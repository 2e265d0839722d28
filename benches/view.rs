//! Memory of a node's view per remote endpoint, at the scale that the design must carry.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target` lines.

#![expect(clippy::print_stdout, reason = "a bench prints its results")]

use std::{fs, hint::black_box};

use overlay_types::{
    Addresses, Change, Endpoint, EndpointId, EndpointRole, MacAddr, Meta, NetworkId, NodeId,
    Object, Readiness, Revision, ServiceId, View,
};

const ENDPOINTS: u32 = 200_000;
const NETWORKS: u32 = 4_000;
const NODES: u32 = 5_000;

fn endpoint(number: u32) -> Endpoint {
    // Ids are random in life; a bijection that scatters is enough here.
    let scattered = u128::from(number.wrapping_mul(0x9e37_79b1)) << 64 | u128::from(number);
    let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
    Endpoint {
        id: EndpointId::from_u128(scattered),
        meta: Meta::created(Revision::new(number.into())),
        network: NetworkId::from_u128((number % NETWORKS).into()),
        node: NodeId::from_u128((number % NODES).into()),
        service: Some(ServiceId::from_u128((number / 10).into())),
        name: Some(format!("service-{}.{}", number / 10, number % 10).parse().expect("a name")),
        addresses: Addresses { v4: Some(address), v6: None },
        mac: MacAddr::from_ipv4(address),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    }
}

/// Resident memory of this process in bytes: the second number of its `statm`, in pages of 4 KiB.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("/proc is there");
    let pages: u64 = text.split(' ').nth(1).and_then(|p| p.parse().ok()).expect("a number");
    pages * 4096
}

fn main() {
    let before = resident();
    let objects = (0..ENDPOINTS).map(|number| Object::Endpoint(endpoint(number)));
    let mut view = View::from_snapshot(Revision::new(1), objects);
    let each = (resident() - before) / u64::from(ENDPOINTS);
    black_box(&view);
    println!("view, memory per remote endpoint at 200 000\t{each}\tB\t<= 300");
    // Every endpoint is replaced once by deltas, as after an update of all services.
    for number in 0..ENDPOINTS {
        let put = Change::Put(Object::Endpoint(endpoint(number + ENDPOINTS)));
        let gone = Change::Delete(Object::Endpoint(endpoint(number)).key());
        view.apply(Revision::new(number.into()), [gone, put]);
    }
    let each = (resident() - before) / u64::from(ENDPOINTS);
    black_box(&view);
    println!("view, the same after each endpoint was replaced\t{each}\tB\t<= 300");
}
