//! One seed, from the first node to the last check.

use core::time::Duration;
use std::{cell::RefCell, panic, sync::Once, thread};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{runtime, task::JoinSet};

use crate::{
    check::{self, Violation},
    client::Client,
    cluster::{Cluster, Size},
    entropy,
    faults::Faults,
    history::History,
    nodes,
    plant::Plant,
    trace::Trace,
};

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) violations: Vec<Violation>,
    pub(crate) calls: usize,
    /// What happened. Two runs of one seed have the same.
    pub(crate) log: Vec<String>,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs `seed` on a thread of its own, whose randomness is all from the seed.
///
/// As the first thing in its process: tokio counts the runtimes that there have been, and seeds them
/// with their number too. See [`child`](crate::child).
pub(crate) fn run(seed: u64, plant: Option<Plant>) -> Outcome {
    note_panics();
    on_thread(seed, move || simulate(seed, plant)).join().unwrap_or_else(|_| Outcome {
        seed,
        violations: vec![Violation::new("no-panic", "the run itself panicked")],
        calls: 0,
        log: Vec::new(),
    })
}

/// As [`run`], for something else than a seed's faults, and for a process that has others. Panics when
/// that does.
pub(crate) fn alone<T, F>(seed: u64, what: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    on_thread(seed, what).join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn on_thread<T, F>(seed: u64, what: impl FnOnce() -> F + Send + 'static) -> thread::JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    drop(nodes::credentials(nodes::manager(0)));
    let thread = thread::Builder::new().name(format!("seed {seed}"));
    let spawned = thread.spawn(move || {
        entropy::seed(seed);
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(what())
    });
    spawned.expect("a thread")
}

/// Tasks that panic do it silently; no part of a node may.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            usual(info);
        }));
    });
}

fn size(random: &mut StdRng) -> Size {
    let managers = [3, 3, 3, 3, 5, 5, 7][random.random_range(0..7)];
    let workers = if random.random_bool(0.04) {
        random.random_range(10..=50)
    } else {
        random.random_range(3..10)
    };
    Size { managers, workers }
}

async fn simulate(seed: u64, plant: Option<Plant>) -> Outcome {
    let trace = Trace::new();
    let history = History::new(trace.clone());
    let mut random = StdRng::seed_from_u64(seed);
    let size = size(&mut random);
    let mut cluster = Cluster::form(seed, size, plant, trace.clone()).await;
    let violations = use_and_check(&mut cluster, &history, &mut random, size).await;
    let log = trace.take();
    cluster.stop();
    let mut violations: Vec<Violation> = violations;
    let panics = PANICS.with_borrow_mut(std::mem::take);
    violations.extend(panics.into_iter().map(|text| Violation::new("no-panic", text)));
    Outcome { seed, violations, calls: history.calls().len(), log }
}

async fn use_and_check(
    cluster: &mut Cluster,
    history: &History,
    random: &mut StdRng,
    size: Size,
) -> Vec<Violation> {
    let registers = 2;
    let mut clients = JoinSet::new();
    let client = |number: usize, seed: u64| {
        let home = nodes::worker(number % size.workers);
        let net = cluster.shared.net.clone();
        Client::new((net, history.clone()), home, registers, cluster.plant, seed)
    };
    client(0, random.random()).set_up().await;
    for number in 0..random.random_range(3..6) {
        clients.spawn(client(number, random.random()).run());
    }
    let span = Duration::from_millis(random.random_range(3_500..7_000));
    let faults = Faults::new(random.random(), history.clone());
    let mut violations = faults.run(cluster, span).await;
    // Nobody waits for what is under way now.
    clients.shutdown().await;
    cluster.heal().await;
    let calls = history.calls();
    check::converged::check(cluster, &mut violations).await;
    check::membership::check(cluster, &mut violations).await;
    check::rotation_ends::check(cluster, &mut violations).await;
    let last = check::converged::check(cluster, &mut violations).await;
    let agents = cluster.machines.iter().map(|machine| &machine.agent);
    violations.extend(check::barred::check(agents, &last, &cluster.shared.ledger));
    violations.extend(check::membership::check_roles(&calls, &last));
    violations.extend(check::durable::check(&calls, &last, &cluster.shared.ledger));
    violations.extend(cluster.shared.ledger.take_violations());
    violations.extend(check::unique_address::check(&calls));
    violations.extend(check::exactly_once::check(&calls, &last, &cluster.shared.ledger));
    violations.extend(check::linearizable::check(&calls));
    violations
}
