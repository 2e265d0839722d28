//! A node: its agent, and the manager that it is, was or will be.

use overlay_types::{NodeId, Role};
use tokio::time::{Duration, timeout};

use crate::{
    agent::Agent,
    disk::SimDisk,
    nodes,
    plant::Plant,
    voter::{Shared, Voter},
};

/// How long an attempt to take up a role may take; another one follows.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node's host, running or not.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    pub(crate) agent: Agent,
    pub(crate) voter: Voter,
    /// It has a manager's certificate, and a manager's state on its disk.
    pub(crate) manages: bool,
    /// It runs.
    pub(crate) up: bool,
}

impl Machine {
    /// One that does not run. It knows these managers.
    pub(crate) fn new(id: NodeId, managers: Vec<NodeId>, plant: Option<Plant>, seed: u64) -> Self {
        let disk = SimDisk::new(seed ^ (u64::try_from(id.to_u128()).expect("small") << 32));
        Self {
            id,
            agent: Agent::new(id, managers, plant),
            voter: Voter::new(id, disk),
            manages: nodes::first_role(id) == Role::Manager,
            up: false,
        }
    }

    /// Starts it on what its disk holds.
    pub(crate) async fn start(&mut self, shared: &Shared, create: bool) {
        shared.net.begin(self.id, shared.net.certificate(self.id));
        if self.manages
            && let Err(error) = self.voter.start(shared, create).await
        {
            panic!("{} does not start: {error}", nodes::short(self.id));
        }
        self.agent.start(&shared.net);
        self.up = true;
    }

    /// Stops it in the middle of whatever it does.
    pub(crate) fn crash(&mut self, shared: &Shared, power_loss: bool) {
        shared.net.begin(self.id, shared.net.certificate(self.id));
        self.voter.crash(power_loss);
        self.agent.crash();
        self.up = false;
    }

    /// Takes up the role that the cluster gives it, as `overlayd` does: a state first, then the
    /// certificate; and the other way round. `relieved` says that the raft group is without it.
    pub(crate) async fn follow_role(&mut self, shared: &Shared, relieved: bool) {
        if !self.up {
            return;
        }
        let Some((given, role_since)) = self.agent.certificate() else { return };
        match (self.manages, given.role) {
            (false, Role::Manager) => {
                let started = timeout(PATIENCE, self.voter.start(shared, true)).await;
                if matches!(started, Ok(Ok(()))) {
                    self.manages = true;
                    shared.net.certify(self.id, given);
                } else {
                    self.voter.erase();
                }
            }
            (true, Role::Manager) if shared.net.certificate(self.id).as_of < role_since => {
                shared.net.certify(self.id, given);
            }
            (true, Role::Worker) if relieved => {
                self.voter.erase();
                self.manages = false;
                shared.net.certify(self.id, given);
            }
            _ => {}
        }
    }
}
