//! Answers per second of the name index, and what it costs to build and to change.
//!
//! Prints `name<TAB>value<TAB>unit<TAB>target`. No sockets, a new seed per question. Time is that of
//! the thread on a core, so that what else runs on the machine does not count.

#![expect(clippy::print_stdout, reason = "the table is the program's output")]

mod view;

use std::{hint::black_box, net::Ipv4Addr, time::Duration};

use overlay_service::{Answer, Directory, Question, RecordKind, Scope, SharedDirectory, resolve};
use overlay_types::{Change, Endpoint, NodeId, Object};

use self::view::{NETWORK, TASKS, task_address};

const SERVICES: u32 = 10_000;
/// What every kind of question is held against, in answers per second.
const RATE_TARGET: &str = ">= 1e6";
/// How long each line is measured.
const RUN: Duration = Duration::from_secs(1);

fn main() {
    let view = view::of(SERVICES);
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

fn reverse_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
}
