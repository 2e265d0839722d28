//! What goes wrong, drawn from the seed.

use core::time::Duration;
use std::{collections::BTreeSet, sync::atomic::Ordering};

use overlay_types::NodeId;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::time;

use crate::{
    check::{Violation, headless::Headless},
    cluster::Cluster,
    disk::Fault,
    nodes,
    plant::Plant,
};

/// How far a clock may be from the right time.
const LARGEST_SKEW_MS: i64 = 600_000;

/// Faults, one after another, until the time is over.
pub(crate) struct Faults {
    random: StdRng,
    violations: Vec<Violation>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), violations: Vec::new() }
    }

    /// Lets things go wrong for `span`. Answers with what did not hold meanwhile.
    pub(crate) async fn run(mut self, cluster: &mut Cluster, span: Duration) -> Vec<Violation> {
        if cluster.plant == Some(Plant::LyingDisks) {
            cluster.voters.iter().for_each(|voter| voter.disk.lie());
        }
        let end = time::Instant::now() + span;
        while time::Instant::now() < end {
            self.pause(50..900).await;
            self.strike(cluster).await;
        }
        if cluster.plant == Some(Plant::LyingDisks) {
            self.stop_all_managers(cluster, true).await;
        }
        self.violations
    }

    async fn pause(&mut self, millis: core::ops::Range<u64>) {
        time::sleep(Duration::from_millis(self.random.random_range(millis))).await;
    }

    async fn strike(&mut self, cluster: &mut Cluster) {
        match self.random.random_range(0..100) {
            0..22 => self.crash_manager(cluster).await,
            22..42 => self.start_managers(cluster).await,
            42..52 => self.part(cluster),
            52..60 => self.cut_one_way(cluster),
            60..70 => self.weather(cluster),
            70..80 => cluster.shared.net.heal(),
            80..86 => self.skew(cluster),
            86..91 => self.disk_fault(cluster).await,
            91..97 => self.crash_agent(cluster).await,
            _ => {
                let power_loss = self.random.random_bool(0.5);
                self.stop_all_managers(cluster, power_loss).await;
            }
        }
    }

    async fn crash_manager(&mut self, cluster: &mut Cluster) {
        let number = self.random.random_range(0..cluster.voters.len());
        let power_loss = self.random.random_bool(0.6);
        cluster.crash(number, power_loss);
        if self.random.random_bool(0.5) {
            self.pause(10..500).await;
            self.start_managers(cluster).await;
        }
    }

    async fn start_managers(&mut self, cluster: &mut Cluster) {
        for number in 0..cluster.voters.len() {
            if cluster.voters[number].control().is_none() && self.random.random_bool(0.7) {
                cluster.start(number).await;
            }
        }
    }

    /// Two groups that do not hear each other.
    fn part(&mut self, cluster: &Cluster) {
        let mut everyone = cluster.everyone();
        everyone.shuffle(&mut self.random);
        let (one, other) = everyone.split_at(self.random.random_range(0..everyone.len()));
        let names = |group: &[NodeId]| group.iter().map(|id| nodes::short(*id)).collect::<Vec<_>>();
        cluster.trace.note(|| format!("parted: {:?}", names(one)));
        for a in one {
            for b in other {
                cluster.shared.net.cut(*a, *b);
                cluster.shared.net.cut(*b, *a);
            }
        }
    }

    /// Nothing gets from one manager to some others, but from them to it.
    fn cut_one_way(&mut self, cluster: &Cluster) {
        let managers: Vec<NodeId> = cluster.voters.iter().map(|voter| voter.id).collect();
        let from = managers[self.random.random_range(0..managers.len())];
        let back = self.random.random_bool(0.5);
        cluster.trace.note(|| format!("cut one way: {} back {back}", nodes::short(from)));
        for to in managers {
            if to != from && self.random.random_bool(0.7) {
                let (from, to) = if back { (to, from) } else { (from, to) };
                cluster.shared.net.cut(from, to);
            }
        }
    }

    fn weather(&mut self, cluster: &Cluster) {
        let delay = [5, 30, 120, 600][self.random.random_range(0..4)];
        let breaks = [0.0, 0.01, 0.05, 0.2][self.random.random_range(0..4)];
        cluster.trace.note(|| format!("weather: delay {delay} ms, breaks {breaks}"));
        cluster.shared.net.set_weather(Duration::from_millis(delay), breaks);
    }

    fn skew(&mut self, cluster: &Cluster) {
        let number = self.random.random_range(0..cluster.voters.len());
        let skew = self.random.random_range(-LARGEST_SKEW_MS..LARGEST_SKEW_MS);
        cluster.trace.note(|| format!("clock of manager {number} skewed by {skew} ms"));
        cluster.voters[number].skew_ms.store(skew, Ordering::Relaxed);
    }

    /// A disk fails for a while. The manager comes back by itself, or its machine is started again.
    async fn disk_fault(&mut self, cluster: &mut Cluster) {
        let number = self.random.random_range(0..cluster.voters.len());
        let fault = [Fault::Sync, Fault::Full][self.random.random_range(0..2)];
        cluster.trace.note(|| format!("disk of manager {number}: {fault:?}"));
        cluster.voters[number].disk.set_fault(Some(fault));
        self.pause(100..1500).await;
        cluster.voters[number].disk.set_fault(None);
        if self.random.random_bool(0.5) {
            self.pause(10..300).await;
            cluster.crash(number, false);
            cluster.start(number).await;
        }
    }

    async fn crash_agent(&mut self, cluster: &Cluster) {
        let number = self.random.random_range(0..cluster.workers.len());
        let worker = &cluster.workers[number];
        cluster.trace.note(|| format!("{} crashes", nodes::short(worker.id)));
        worker.crash(&cluster.shared.net);
        self.pause(10..500).await;
        worker.start(&cluster.shared.net);
    }

    async fn stop_all_managers(&mut self, cluster: &mut Cluster, power_loss: bool) {
        for number in 0..cluster.voters.len() {
            cluster.crash(number, power_loss);
        }
        let headless = Headless::begin(cluster.workers.iter().cloned());
        self.pause(500..3000).await;
        self.violations.extend(headless.end());
        for number in 0..cluster.voters.len() {
            cluster.start(number).await;
        }
    }
}

/// Who lives, as gossip knows it: with a delay, and not about who is merely cut off.
pub(crate) fn alive(cluster: &Cluster) -> BTreeSet<NodeId> {
    let managers = cluster.voters.iter().filter(|voter| voter.control().is_some());
    managers.map(|voter| voter.id).chain(cluster.workers.iter().map(|agent| agent.id)).collect()
}
