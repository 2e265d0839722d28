//! Answers per second of the name index, and what it costs to build and to change.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target`. No sockets, a new seed per question. Time is that of
//! the thread on a core, so that what else runs on the machine does not count.

#![expect(clippy::print_stdout, reason = "the table is the program's output")]

use std::{collections::BTreeMap, hint::black_box, net::Ipv4Addr, time::Duration};

use overlay_service::{Answer, Directory, Question, RecordKind, Scope, SharedDirectory, resolve};
use overlay_types::{
    Addresses, Change, Endpoint, EndpointId, EndpointRole, MacAddr, Meta, Network, NetworkDraft,
    NetworkId, NetworkSubnet, NodeId, Object, Readiness, Revision, Service, ServiceDraft,
    ServiceId, ServiceNetwork, Subnet, View, Vni,
};

const SERVICES: u32 = 10_000;
const TASKS: u32 = 10;
const NETWORK: NetworkId = NetworkId::from_u128(1);
/// What every kind of question is held against, in answers per second.
const RATE_TARGET: &str = ">= 1e6";
/// How long each line is measured.
const RUN: Duration = Duration::from_secs(1);

fn main() {
    let view = view();
    let (before, started) = (resident_bytes(), core_time());
    let mut directory = Directory::new(&view);
    let endpoints = view.endpoints().len();
    line(
        &format!("build {endpoints} endpoints"),
        core_time().saturating_sub(started).as_secs_f64() * 1e3,
        "ms",
        "",
    );

    let held = (resident_bytes() - before) / f64::from(SERVICES * TASKS);
    line("memory per endpoint, with a tenth of a service", held, "B", "");

    let services = 0..SERVICES;
    let plain: Vec<_> = services.clone().map(|n| format!("service-{n}.")).collect();
    let tasks: Vec<_> = services.clone().map(|n| format!("tasks.Service-{n}.")).collect();
    let qualified: Vec<_> = services.clone().map(|n| format!("service-{n}.front")).collect();
    let reverse: Vec<_> = services.map(|n| reverse_of(task_address(n, n % TASKS))).collect();
    rate(&directory, "A of a virtual address", &plain, RecordKind::A);
    rate(&directory, "A of name.network", &qualified, RecordKind::A);
    rate(&directory, "AAAA of a v4-only name", &plain, RecordKind::Aaaa);
    rate(&directory, "A of 10 tasks", &tasks, RecordKind::A);
    rate(&directory, "PTR", &reverse, RecordKind::Ptr);
    directory.set_dead((0..50).map(NodeId::from_u128));
    rate(&directory, "A of 10 tasks, 50 of 1000 nodes dead", &tasks, RecordKind::A);

    let shared = SharedDirectory::new(directory.clone());
    let changes: Vec<_> =
        view.endpoints().values().map(|e| Object::Endpoint(Endpoint::clone(e))).collect();
    let mut changes = changes.into_iter().map(Change::Put).cycle().step_by(7919);
    let per_second = measure(|| {
        directory.apply(&[changes.next().expect("a cycle has no end")]);
        shared.publish(directory.clone());
    });
    line("one endpoint changed and published", 1e6 / per_second, "us", "");
}

fn rate(directory: &Directory, name: &str, names: &[String], kind: RecordKind) {
    let scope = Scope::new([NETWORK]);
    let mut number = 0_usize;
    let per_second = measure(|| {
        // Neighbours in number lie far apart in the index, as ids and hashes do.
        number += 1;
        let question = Question { name: &names[number % names.len()], kind };
        let answer = resolve(directory, &scope, black_box(question), number as u64);
        assert!(matches!(black_box(answer), Answer::Records(_)));
    });
    line(name, per_second, "answers/s", RATE_TARGET);
}

/// Calls per second.
fn measure(mut call: impl FnMut()) -> f64 {
    let mut calls = 0_u32;
    let started = core_time();
    loop {
        (0..1000).for_each(|_| call());
        calls += 1000;
        let elapsed = core_time().saturating_sub(started);
        if elapsed >= RUN {
            return f64::from(calls) / elapsed.as_secs_f64();
        }
    }
}

/// Time that this thread spent on a core: the first number of its `schedstat`.
fn core_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc is there");
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

/// Memory of this process, from its `statm`: the second number, in pages of 4 KiB.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is there");
    let pages: u32 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    f64::from(pages) * 4096.0
}

fn line(name: &str, value: f64, unit: &str, target: &str) {
    println!("resolve: {name}\t{value:.0}\t{unit}\t{target}");
}

fn task_address(service: u32, task: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a10_0000 + service * TASKS + task)
}

fn reverse_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
}

/// One network with all services and tasks; tasks spread over 1000 nodes.
fn view() -> View {
    let subnet = Subnet::parse("subnet", "10.0.0.0/8").expect("a subnet");
    let network = Network {
        id: NETWORK,
        meta: Meta::default(),
        spec: NetworkDraft::new("front".parse().expect("a name")).try_into().expect("a spec"),
        vni: Vni::for_overlay(4097).expect("a VNI"),
        subnets: vec![NetworkSubnet { subnet, gateway: subnet.first() }],
    };
    let mut objects = vec![Object::Network(network)];
    for service in 0..SERVICES {
        objects.push(Object::Service(new_service(service)));
        objects.extend((0..TASKS).map(|task| Object::Endpoint(new_task(service, task))));
    }
    let mut view = View::default();
    view.apply(Revision::new(1), objects.into_iter().map(Change::Put));
    view
}

fn new_service(number: u32) -> Service {
    let draft = ServiceDraft {
        networks: vec![ServiceNetwork { network: NETWORK, aliases: Vec::new() }],
        ..ServiceDraft::new(format!("service-{number}").parse().expect("a name"))
    };
    let v4 = Some(Ipv4Addr::from(0x0a80_0000 + number));
    Service {
        id: ServiceId::from_u128(scatter(number)),
        meta: Meta::default(),
        spec: draft.try_into().expect("a spec"),
        vips: BTreeMap::from([(NETWORK, Addresses { v4, v6: None })]),
        previous: None,
    }
}

fn new_task(service: u32, task: u32) -> Endpoint {
    Endpoint {
        id: EndpointId::from_u128(scatter(service * TASKS + task)),
        meta: Meta::default(),
        network: NETWORK,
        node: NodeId::from_u128(u128::from((service * TASKS + task) % 1000)),
        service: Some(ServiceId::from_u128(scatter(service))),
        name: Some(format!("service-{service}.{task}").parse().expect("a name")),
        addresses: Addresses { v4: Some(task_address(service, task)), v6: None },
        mac: MacAddr::from_ipv4(task_address(service, task)),
        role: EndpointRole::Workload,
        readiness: Readiness::Ready,
        extras: None,
    }
}

/// Ids are random, so neighbours in number are none in order. Odd factor: no two are equal.
fn scatter(number: u32) -> u128 {
    u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}
