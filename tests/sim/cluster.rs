//! A cluster of real managers, their agents and workers, in one thread and on a virtual clock.

use core::time::Duration;
use std::collections::BTreeSet;

use overlay_cluster::{
    raft::types::Member,
    state::{Action, Response},
};
use overlay_types::{NodeId, RequestId};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{
    agent::Agent,
    disk::SimDisk,
    faults,
    ledger::Ledger,
    net::Net,
    nodes,
    plant::Plant,
    trace::Trace,
    voter::{Shared, Voter},
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
    pub(crate) voters: Vec<Voter>,
    /// The agents of the managers' own nodes.
    own_agents: Vec<Agent>,
    pub(crate) workers: Vec<Agent>,
    alive: watch::Sender<BTreeSet<NodeId>>,
}

impl Cluster {
    /// Forms a cluster.
    pub(crate) async fn form(seed: u64, size: Size, plant: Option<Plant>, trace: Trace) -> Self {
        let (alive, followed) = watch::channel(BTreeSet::new());
        let shared = Shared {
            net: Net::new(seed, trace.clone()),
            ledger: Ledger::new(trace.clone()),
            began: Instant::now(),
            alive: followed,
        };
        let ids: Vec<NodeId> = (0..size.managers).map(nodes::manager).collect();
        let agent = |id| Agent::new(id, ids.clone(), plant);
        let voter =
            |(number, id): (u64, &NodeId)| Voter::new(*id, SimDisk::new(seed ^ (number << 32)));
        let mut cluster = Self {
            voters: (1..).zip(&ids).map(voter).collect(),
            own_agents: ids.iter().copied().map(agent).collect(),
            workers: (0..size.workers).map(nodes::worker).map(agent).collect(),
            shared,
            trace,
            plant,
            alive,
        };
        cluster.found().await;
        cluster
    }

    async fn found(&mut self) {
        self.start(0).await;
        let first = self.voters[0].control().expect("it runs").clone();
        let node = nodes::node(nodes::manager(0));
        let member = Member { name: Some(node.name), control: Some(node.control) };
        first.form(member).await.expect("a new group");
        let init = Action::InitCluster(Box::new(nodes::cluster()));
        let write = async |number: u128, action| {
            first.write(RequestId::from_u128(number), action).await.expect("a quorum")
        };
        assert!(matches!(write(1, init).await, Response::Cluster(_)));
        for number in 1..self.voters.len() {
            self.start(number).await;
        }
        let others = self.everyone().into_iter().skip(1);
        for (number, id) in (2..).zip(others) {
            write(number, Action::JoinNode(nodes::node(id))).await;
        }
        for voter in &self.voters {
            let control = voter.control().expect("it runs");
            assert!(control.wait_for_vote(FORMING).await, "{} votes", nodes::short(voter.id));
        }
        self.workers.iter().for_each(|agent| agent.start(&self.shared.net));
        self.alive.send_replace(faults::alive(self));
    }

    pub(crate) fn everyone(&self) -> Vec<NodeId> {
        let workers = self.workers.iter().map(|agent| agent.id);
        self.voters.iter().map(|voter| voter.id).chain(workers).collect()
    }

    /// Starts a manager and its node's agent.
    pub(crate) async fn start(&mut self, number: usize) {
        let voter = &mut self.voters[number];
        if voter.control().is_some() {
            return;
        }
        self.trace.note(|| format!("{} starts", nodes::short(voter.id)));
        if let Err(error) = voter.start(&self.shared).await {
            panic!("{} does not start: {error}", nodes::short(voter.id));
        }
        self.own_agents[number].start(&self.shared.net);
        self.tell_who_lives();
    }

    /// Crashes a manager, and with it its node's agent.
    pub(crate) fn crash(&mut self, number: usize, power_loss: bool) {
        let voter = &mut self.voters[number];
        if voter.control().is_none() {
            return;
        }
        self.trace.note(|| format!("{} crashes, power loss {power_loss}", nodes::short(voter.id)));
        voter.crash(&self.shared.net, power_loss);
        self.own_agents[number].crash(&self.shared.net);
        self.tell_who_lives();
    }

    fn tell_who_lives(&self) {
        let (alive, living) = (self.alive.clone(), faults::alive(self));
        tokio::spawn(async move {
            time::sleep(GOSSIP_DELAY).await;
            alive.send_replace(living);
        });
    }

    /// All that was broken works again, and runs.
    pub(crate) async fn heal(&mut self) {
        self.trace.note(|| "all heals".to_owned());
        self.shared.net.heal();
        for number in 0..self.voters.len() {
            self.voters[number].disk.set_fault(None);
            self.start(number).await;
        }
    }

    pub(crate) fn agents(&self) -> Vec<Agent> {
        self.own_agents.iter().chain(&self.workers).cloned().collect()
    }

    /// Ends everything.
    pub(crate) fn stop(&mut self) {
        for number in 0..self.voters.len() {
            self.crash(number, false);
        }
        self.workers.iter().for_each(|agent| agent.crash(&self.shared.net));
    }
}
