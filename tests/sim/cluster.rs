//! A cluster of real managers, their agents and workers, in one thread and on a virtual clock.

use core::time::Duration;
use std::{collections::BTreeSet, sync::atomic::Ordering};

use overlay_api::v1::Liveness;
use overlay_cluster::{
    control::Control,
    raft::types::Member,
    server::Verdicts,
    state::{Action, Response, State},
};
use overlay_types::{NodeId, RequestId, Role};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{
    ledger::Ledger,
    machine::Machine,
    net::{Certificate, Net},
    nodes,
    plant::Plant,
    trace::Trace,
    voter::Shared,
};

/// How long a cluster may take to form.
const FORMING: Duration = Duration::from_secs(30);
/// How late the managers hear who lives and who does not.
const GOSSIP_DELAY: Duration = Duration::from_millis(1500);

/// How large a cluster is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) managers: usize,
    pub(crate) workers: usize,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) shared: Shared,
    pub(crate) trace: Trace,
    pub(crate) plant: Option<Plant>,
    /// First those that are managers from the beginning, then workers, then those that joined.
    pub(crate) machines: Vec<Machine>,
    seed: u64,
    joined: usize,
    heard: Heard,
}

/// What gossip says.
#[derive(Clone, Debug, Default)]
struct Heard {
    alive: watch::Sender<BTreeSet<NodeId>>,
    verdicts: watch::Sender<Verdicts>,
}

impl Cluster {
    /// Forms a cluster.
    pub(crate) async fn form(seed: u64, size: Size, plant: Option<Plant>, trace: Trace) -> Self {
        let heard = Heard::default();
        let shared = Shared {
            net: Net::new(seed, plant, trace.clone()),
            ledger: Ledger::new(trace.clone()),
            began: Instant::now(),
            alive: heard.alive.subscribe(),
            verdicts: heard.verdicts.subscribe(),
            plant,
        };
        let managers: Vec<NodeId> = (0..size.managers).map(nodes::manager).collect();
        let workers = (0..size.workers).map(nodes::worker);
        let ids: Vec<NodeId> = managers.iter().copied().chain(workers).collect();
        let machine = |id| Machine::new(id, managers.clone(), plant, seed);
        let machines = ids.into_iter().map(machine).collect();
        let mut cluster = Self { shared, trace, plant, machines, seed, joined: 0, heard };
        cluster.found(size.managers).await;
        cluster
    }

    async fn found(&mut self, managers: usize) {
        self.begin(0).await;
        let first = self.machines[0].voter.control().expect("it runs").clone();
        let node = nodes::node(nodes::manager(0));
        let member = Member { name: Some(node.name), control: Some(node.control) };
        first.form(member).await.expect("a new group");
        let init = Action::InitCluster(Box::new(nodes::cluster()));
        let write = async |number: u128, action| {
            first.write(RequestId::from_u128(number), action).await.expect("a quorum")
        };
        assert!(matches!(write(1, init).await, Response::Cluster(_)));
        for number in 1..managers {
            self.begin(number).await;
        }
        let others: Vec<NodeId> = self.machines.iter().skip(1).map(|machine| machine.id).collect();
        for (number, id) in (2..).zip(others) {
            let joined = write(number, Action::JoinNode(nodes::node(id))).await;
            let Response::Node(node) = joined else { panic!("{joined:?}") };
            if node.role == Role::Manager {
                let certificate = Certificate { role: node.role, as_of: node.meta.changed_at };
                self.shared.net.certify(id, certificate);
            }
        }
        for control in self.controls() {
            let who = nodes::short(control.node());
            assert!(control.wait_for_vote(FORMING).await, "{who} votes");
        }
        for number in managers..self.machines.len() {
            self.begin(number).await;
        }
        self.heard.tell(self.alive());
    }

    /// Places of the managers, running or not.
    pub(crate) fn managers(&self) -> Vec<usize> {
        self.places(|machine| machine.manages)
    }

    /// Places of the others.
    pub(crate) fn workers(&self) -> Vec<usize> {
        self.places(|machine| !machine.manages)
    }

    fn places(&self, of: impl Fn(&Machine) -> bool) -> Vec<usize> {
        (0..self.machines.len()).filter(|place| of(&self.machines[*place])).collect()
    }

    /// The managers that run.
    pub(crate) fn controls(&self) -> Vec<&Control> {
        self.machines.iter().filter_map(|machine| machine.voter.control()).collect()
    }

    pub(crate) fn everyone(&self) -> Vec<NodeId> {
        self.machines.iter().map(|machine| machine.id).collect()
    }

    /// Whether the newest state that any manager has knows the node.
    pub(crate) fn knows(&self, id: NodeId) -> bool {
        let controls = self.controls().into_iter();
        let newest = controls.max_by_key(|control| control.replica().read(State::revision));
        newest.is_some_and(|newest| {
            newest.replica().read(|state| state.view().nodes().contains_key(&id))
        })
    }

    /// Who lives, as gossip knows it: with a delay, and not about who is merely cut off. Workers
    /// are back before it notices.
    fn alive(&self) -> BTreeSet<NodeId> {
        let alive = self.machines.iter().filter(|machine| machine.up || !machine.manages);
        alive.map(|machine| machine.id).collect()
    }

    /// One more worker, which runs and is in no cluster yet; `None` if there are enough.
    pub(crate) async fn add(&mut self) -> Option<NodeId> {
        let id = nodes::joiner(self.joined)?;
        self.joined += 1;
        let machine = Machine::new(id, self.shared.net.managers(), self.plant, self.seed);
        self.machines.push(machine);
        self.begin(self.machines.len() - 1).await;
        Some(id)
    }

    /// Starts a machine for the first time.
    async fn begin(&mut self, place: usize) {
        self.machines[place].start(&self.shared, true).await;
    }

    /// Starts a machine.
    pub(crate) async fn start(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        if machine.up {
            return;
        }
        self.trace.note(|| format!("{} starts", nodes::short(machine.id)));
        machine.start(&self.shared, false).await;
        self.tell_who_lives();
    }

    /// Crashes a machine.
    pub(crate) fn crash(&mut self, place: usize, power_loss: bool) {
        let machine = &mut self.machines[place];
        if !machine.up {
            return;
        }
        self.trace
            .note(|| format!("{} crashes, power loss {power_loss}", nodes::short(machine.id)));
        machine.crash(&self.shared, power_loss);
        self.tell_who_lives();
    }

    fn tell_who_lives(&self) {
        let (heard, living) = (self.heard.clone(), self.alive());
        tokio::spawn(async move {
            time::sleep(GOSSIP_DELAY).await;
            heard.tell(living);
        });
    }

    /// Every machine takes up the role that the cluster gives it.
    pub(crate) async fn follow_roles(&mut self) {
        if self.plant == Some(Plant::DeafNodes) {
            return;
        }
        for place in 0..self.machines.len() {
            let relieved = self.is_relieved(self.machines[place].id);
            let before = self.machines[place].manages;
            self.machines[place].follow_role(&self.shared, relieved).await;
            let machine = &self.machines[place];
            if machine.manages != before {
                let (who, manages) = (nodes::short(machine.id), machine.manages);
                self.trace.note(|| format!("{who} is a manager now: {manages}"));
                self.tell_who_lives();
            }
        }
    }

    /// Whether a manager would give this one a worker's certificate: the raft group is without it.
    fn is_relieved(&self, id: NodeId) -> bool {
        let leads = |control: &&&Control| control.figures().leads && control.node() != id;
        let controls = self.controls();
        let Some(leader) = controls.iter().find(leads) else { return false };
        let role = leader.replica().read(|state| state.view().nodes().get(&id).map(|n| n.role));
        role == Some(Role::Worker) && !leader.is_member(id)
    }

    /// All that was broken works again, and runs; clocks are right.
    pub(crate) async fn heal(&mut self) {
        self.trace.note(|| "all heals".to_owned());
        self.shared.net.heal();
        for place in 0..self.machines.len() {
            self.machines[place].voter.disk.set_fault(None);
            self.machines[place].voter.skew_ms.store(0, Ordering::Relaxed);
            self.start(place).await;
        }
    }

    /// Ends everything.
    pub(crate) fn stop(&mut self) {
        for place in 0..self.machines.len() {
            self.crash(place, false);
        }
    }
}

impl Heard {
    fn tell(&self, living: BTreeSet<NodeId>) {
        let alive = living.iter().map(|id| (*id, Liveness::Alive));
        self.verdicts.send_replace(alive.collect());
        self.alive.send_replace(living);
    }
}
