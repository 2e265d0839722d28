//! Claim: allocating in a 99 % full 10.0.0.0/8 costs what it costs in an empty one.
//!
//! Each sample times a batch of 8 calls: enough to hide the clock's own cost (some 20 ns), few
//! enough that one call of a microsecond shows as a sample six times the usual.
#![expect(clippy::print_stdout, reason = "a bench reports")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::{fs, hint::black_box, net::IpAddr, time::Instant};

use overlay_ipam::{Family, NetworkIpam, Occupied, Owner, Pools, Request};
use overlay_types::{Subnet, SubnetSpec};

/// Calls per sample.
const BATCH: u32 = 8;
/// Samples per measurement: 128 000 calls fit into the last hundredth of a /8.
const SAMPLES: usize = 16_000;
/// Repetitions of the two measurements that are compared.
const ROUNDS: usize = 9;
/// Copies made to see the memory of one: it is small beside what the allocator keeps.
const COPIES: usize = 32;
/// Networks that a claim has to avoid: what the design is made to carry.
const NETWORKS: u32 = 4_000;

fn main() -> anyhow::Result<()> {
    let (network, held) = filled_to_99_percent("10.0.0.0/8")?;
    let (mut empty, mut full) = (Percentiles::WORST, Percentiles::WORST);
    // In turns: what else the machine does hits both.
    for _ in 0..ROUNDS {
        let fresh = NetworkIpam::new([SubnetSpec::new("10.0.0.0/8".parse()?)])?;
        empty = empty.min(&time(fresh, |n| n.allocate(Family::V4).is_ok()));
        full = full.min(&time(network.clone(), |n| n.allocate(Family::V4).is_ok()));
    }
    empty.report("empty /8");
    full.report("99 % full /8");
    println!("ipam p99, 99 % full : empty\t{:.2}\tratio\t<= 1.2", full.p99 / empty.p99);

    let mut held = held.into_iter();
    let churn = time(network.clone(), |n| {
        let released = held.next().is_some_and(|address| n.release(address).is_ok());
        released && n.allocate(Family::V4).is_ok()
    });
    println!("ipam release + allocate, 99 % full /8, median\t{:.1}\tns\t", churn.median);
    let before = resident_kib()?;
    let copies = vec![network.clone(); COPIES];
    let memory = resident_kib()?.saturating_sub(before) / black_box(copies).len() as u64;
    println!("ipam memory, 99 % full /8\t{memory}\tKiB\t");
    println!("ipam serialised (JSON), 99 % full /8\t{}\tbytes\t", json_len(&network)?);
    let small = NetworkIpam::new([SubnetSpec::new("10.0.9.0/24".parse()?)])?;
    println!("ipam serialised (JSON), new /24\t{}\tbytes\t", json_len(&small)?);

    let v6 = NetworkIpam::new([SubnetSpec::new("fd00:9::/64".parse()?)])?;
    time(v6, |n| n.allocate(Family::V6).is_ok()).report("IPv6 /64");
    println!("ipam claim beside {NETWORKS} networks\t{:.0}\tns\t", claim_ns()?);
    Ok(())
}

/// A network of which one address in a hundred is free, anywhere, and some that are allocated.
fn filled_to_99_percent(subnet: &str) -> anyhow::Result<(NetworkIpam, Vec<IpAddr>)> {
    let mut network = NetworkIpam::new([SubnetSpec::new(subnet.parse()?)])?;
    let mut held = Vec::new();
    while let Ok(address) = network.allocate(Family::V4) {
        held.push(address);
    }
    shuffle(&mut held);
    for address in held.drain(held.len() / 100 * 99..) {
        network.release(address)?;
    }
    held.truncate(SAMPLES * BATCH as usize);
    Ok((network, held))
}

fn shuffle(items: &mut [IpAddr]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        // xorshift64 (Marsaglia 2003): the same order on every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

/// Nanoseconds per call.
fn time(mut network: NetworkIpam, mut call: impl FnMut(&mut NetworkIpam) -> bool) -> Percentiles {
    let sample = |_| {
        let start = Instant::now();
        for _ in 0..BATCH {
            assert!(black_box(call(&mut network)), "the bench ran out of addresses");
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
    };
    Percentiles::of((0..SAMPLES).map(sample).collect())
}

struct Percentiles {
    median: f64,
    p99: f64,
}

impl Percentiles {
    const WORST: Self = Self { median: f64::INFINITY, p99: f64::INFINITY };

    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { median: samples[samples.len() / 2], p99: samples[samples.len() * 99 / 100] }
    }

    /// The better of each: what else the machine does only ever adds.
    fn min(&self, other: &Self) -> Self {
        Self { median: self.median.min(other.median), p99: self.p99.min(other.p99) }
    }

    fn report(&self, what: &str) {
        println!("ipam allocate, {what}\t{:.1}\tM/s\t>= 3", 1e3 / self.median);
        println!("ipam allocate, {what}, median\t{:.1}\tns\t", self.median);
        println!("ipam allocate, {what}, p99\t{:.1}\tns\t", self.p99);
    }
}

fn claim_ns() -> anyhow::Result<f64> {
    let pools = Pools::default();
    let pool: Subnet = "10.0.0.0/8".parse()?;
    let mut occupied = Vec::new();
    for slot in 0..NETWORKS {
        let first = pool.nth(u128::from(slot) << 8).map(|first| format!("{first}/24"));
        let subnet = first.unwrap_or_default().parse()?;
        occupied.push(Occupied { subnet, owner: Owner::Network("other") });
    }
    let start = Instant::now();
    for _ in 0..BATCH {
        black_box(pools.claim(&[Request::Any(Family::V4)], occupied.iter().copied())?);
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH))
}

fn json_len(network: &NetworkIpam) -> anyhow::Result<usize> {
    Ok(serde_json::to_vec(network)?.len())
}

/// Resident memory of this process.
fn resident_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| anyhow::anyhow!("no VmRSS in /proc/self/status"))?.parse()?)
}
