//! What goes wrong, drawn from the seed.

use core::time::Duration;
use std::sync::atomic::Ordering;

use overlay_cluster::control::Control;
use overlay_types::{NodeId, Role};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{task::JoinSet, time};

use crate::{
    check::{Violation, headless::Headless},
    cluster::Cluster,
    disk::Fault,
    history::History,
    nodes,
    operator::Operator,
    plant::Plant,
};

/// How far a clock that runs badly may be from the right time.
const DRIFT_MS: i64 = 600_000;
/// How far one may be that somebody set: three days.
const LARGEST_JUMP_MS: i64 = 3 * 24 * 3_600_000;

/// Faults, one after another, until the time is over.
pub(crate) struct Faults {
    random: StdRng,
    history: History,
    /// What the operator is about.
    errands: JoinSet<()>,
    violations: Vec<Violation>,
}

impl Faults {
    pub(crate) fn new(seed: u64, history: History) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, history, errands: JoinSet::new(), violations: Vec::new() }
    }

    /// Lets things go wrong for `span`. Answers with what did not hold meanwhile.
    pub(crate) async fn run(mut self, cluster: &mut Cluster, span: Duration) -> Vec<Violation> {
        if cluster.plant == Some(Plant::LyingDisks) {
            cluster.machines.iter().for_each(|machine| machine.voter.disk.lie());
        }
        let end = time::Instant::now() + span;
        while time::Instant::now() < end {
            self.pause(50..900).await;
            self.strike(cluster).await;
            cluster.follow_roles().await;
        }
        if cluster.plant == Some(Plant::LyingDisks) {
            self.stop_all_managers(cluster, true).await;
        }
        // Nobody waits for what is under way now.
        self.errands.shutdown().await;
        self.violations
    }

    async fn pause(&mut self, millis: core::ops::Range<u64>) {
        time::sleep(Duration::from_millis(self.random.random_range(millis))).await;
    }

    async fn strike(&mut self, cluster: &mut Cluster) {
        match self.random.random_range(0..100) {
            0..18 => self.crash_manager(cluster).await,
            18..35 => self.start_managers(cluster).await,
            35..44 => self.part(cluster),
            44..51 => self.cut_one_way(cluster),
            51..59 => self.weather(cluster),
            59..68 => cluster.shared.net.heal(),
            68..74 => self.skew(cluster),
            74..79 => self.disk_fault(cluster).await,
            79..84 => self.crash_worker(cluster).await,
            84..97 => self.change_membership(cluster).await,
            _ => {
                let power_loss = self.random.random_bool(0.5);
                self.stop_all_managers(cluster, power_loss).await;
            }
        }
    }

    async fn crash_manager(&mut self, cluster: &mut Cluster) {
        let place = self.choose(&cluster.managers());
        let power_loss = self.random.random_bool(0.6);
        cluster.crash(place, power_loss);
        if self.random.random_bool(0.5) {
            self.pause(10..500).await;
            self.start_managers(cluster).await;
        }
    }

    async fn start_managers(&mut self, cluster: &mut Cluster) {
        for place in cluster.managers() {
            if !cluster.machines[place].up && self.random.random_bool(0.7) {
                cluster.start(place).await;
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
        let managers = cluster.shared.net.managers();
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
        let machine = &cluster.machines[self.choose(&cluster.managers())];
        let farthest = if self.random.random_bool(0.7) { DRIFT_MS } else { LARGEST_JUMP_MS };
        let skew = self.random.random_range(-farthest..farthest);
        cluster.trace.note(|| format!("clock of {}: {skew} ms ahead", nodes::short(machine.id)));
        machine.voter.skew_ms.store(skew, Ordering::Relaxed);
    }

    /// A disk fails for a while. The manager comes back by itself, or its machine is started again.
    async fn disk_fault(&mut self, cluster: &mut Cluster) {
        let place = self.choose(&cluster.managers());
        let disk = cluster.machines[place].voter.disk.clone();
        let fault = [Fault::Sync, Fault::Full][self.random.random_range(0..2)];
        let who = nodes::short(cluster.machines[place].id);
        cluster.trace.note(|| format!("disk of {who}: {fault:?}"));
        disk.set_fault(Some(fault));
        self.pause(100..1500).await;
        disk.set_fault(None);
        if self.random.random_bool(0.5) {
            self.pause(10..300).await;
            cluster.crash(place, false);
            cluster.start(place).await;
        }
    }

    async fn crash_worker(&mut self, cluster: &mut Cluster) {
        let workers = cluster.workers();
        if workers.is_empty() {
            return;
        }
        let place = self.choose(&workers);
        cluster.crash(place, false);
        self.pause(10..500).await;
        cluster.start(place).await;
    }

    /// The operator has something done, and does not wait for it here.
    async fn change_membership(&mut self, cluster: &mut Cluster) {
        let net = cluster.shared.net.clone();
        let operator = Operator::new(net, self.history.clone(), self.random.random());
        let (managers, workers) = (cluster.managers(), cluster.workers());
        match self.random.random_range(0..10) {
            0..3 => {
                let controls: Vec<Control> = cluster.controls().into_iter().cloned().collect();
                if controls.is_empty() {
                    return;
                }
                let Some(node) = cluster.add().await else { return };
                self.errands.spawn(operator.join(node, controls));
            }
            3..6 if !workers.is_empty() => {
                let node = cluster.machines[self.choose(&workers)].id;
                if nodes::may_manage(node) {
                    self.errands.spawn(operator.set_role(node, Role::Manager));
                }
            }
            6..8 => {
                let node = cluster.machines[self.choose(&managers)].id;
                self.errands.spawn(operator.set_role(node, Role::Worker));
            }
            _ if !workers.is_empty() => {
                let node = cluster.machines[self.choose(&workers)].id;
                self.errands.spawn(operator.remove(node));
            }
            _ => {}
        }
    }

    async fn stop_all_managers(&mut self, cluster: &mut Cluster, power_loss: bool) {
        let managers = cluster.managers();
        for place in &managers {
            cluster.crash(*place, power_loss);
        }
        let up = cluster.machines.iter().filter(|machine| machine.up);
        let headless = Headless::begin(up.map(|machine| machine.agent.clone()));
        self.pause(500..3000).await;
        self.violations.extend(headless.end());
        for place in managers {
            cluster.start(place).await;
        }
    }

    fn choose(&mut self, places: &[usize]) -> usize {
        places[self.random.random_range(0..places.len())]
    }
}
