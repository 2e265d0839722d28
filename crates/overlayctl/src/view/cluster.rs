//! The cluster and this node's place in it.

use std::collections::BTreeMap;

use overlay_api::v1;
use serde::Serialize;

use super::{lines, lock::UnlockKey, node::dataplane, optional, role};
use crate::output::Inspected;

/// Answer to `init`.
#[derive(Serialize, Debug)]
pub(crate) struct Initialized {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) worker_token: String,
    pub(crate) manager_token: String,
    /// With autolock: the key that managers start with.
    pub(crate) unlock_key: Option<String>,
    /// ADDRESS:PORT of the managers, for `join`.
    pub(crate) remotes: Vec<String>,
}

impl Initialized {
    /// For people: what to type on the next host.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "Cluster {} initialized: this node ({}) is now a manager.\n\n\
             To add a worker, run on its host:\n\n    {}\n\n\
             To add a manager, run 'overlayctl join-token manager' and follow it.\n{}",
            self.cluster,
            self.node,
            join_command(&self.worker_token, &self.remotes),
            self.lock_sentence(),
        )
    }

    fn lock_sentence(&self) -> String {
        let Some(unlock_key) = self.unlock_key.clone() else { return String::new() };
        format!("\n{}", UnlockKey { unlock_key }.sentence(false))
    }
}

/// Answer to `restore`.
#[derive(Serialize, Debug)]
pub(crate) struct Restored {
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) worker_token: String,
    pub(crate) manager_token: String,
    /// ADDRESS:PORT of the managers, for `join`.
    pub(crate) remotes: Vec<String>,
}

impl Restored {
    /// For people.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "Cluster {} restored: this node ({}) is its only manager.\n\n\
             Workers that know a manager at this node's address come back by themselves. Managers that \
             were, and workers that do not, leave with --force and join again:\n\n    {}\n",
            self.cluster,
            self.node,
            join_command(&self.worker_token, &self.remotes)
        )
    }
}

/// What to type on a host that shall join.
pub(crate) fn join_command(token: &str, remotes: &[String]) -> String {
    let remotes =
        if remotes.is_empty() { "ADDRESS-OF-A-MANAGER".into() } else { remotes.join(" ") };
    format!("overlayctl join --token {token} {remotes}")
}

/// Answer to `join-token`.
#[derive(Serialize, Debug)]
pub(crate) struct Tokens {
    pub(crate) role: &'static str,
    pub(crate) token: String,
    /// ADDRESS:PORT of the managers, for `join`.
    pub(crate) remotes: Vec<String>,
}

/// Answer to `leave`.
#[derive(Serialize, Debug)]
pub(crate) struct Left {
    /// Why the cluster still lists the node; empty if it does not.
    remains: String,
}

impl From<v1::LeaveClusterResponse> for Left {
    fn from(message: v1::LeaveClusterResponse) -> Self {
        Self { remains: message.remains }
    }
}

impl Left {
    /// For people.
    pub(crate) fn sentence(&self) -> String {
        if self.remains.is_empty() {
            return "This node left its cluster.\n".to_owned();
        }
        format!(
            "This node forgot its cluster, which may still list it ({}); remove it there with \
             overlayctl node rm.\n",
            self.remains
        )
    }
}

/// Answer to `join`.
#[derive(Serialize, Debug)]
pub(crate) struct Joined {
    cluster: String,
    node: String,
    role: &'static str,
}

impl From<v1::JoinClusterResponse> for Joined {
    fn from(message: v1::JoinClusterResponse) -> Self {
        Self { role: role(message.role()), cluster: message.cluster, node: message.node }
    }
}

impl Joined {
    /// For people.
    pub(crate) fn sentence(&self) -> String {
        format!("This node ({}) joined cluster {} as a {}.\n", self.node, self.cluster, self.role)
    }
}

/// Answer to `status`.
#[derive(Serialize, Debug)]
pub(crate) struct Status {
    /// The node is a manager that waits for the unlock key.
    locked: bool,
    /// `None`: the node is in no cluster.
    cluster: Option<String>,
    node: Option<String>,
    role: Option<&'static str>,
    /// `kernel` or `user`: what carries plain networks.
    dataplane: &'static str,
    /// What the host lacks for the kernel dataplane, and how to get it.
    missing: Vec<String>,
    /// What somebody should look at, and what to do about it.
    warnings: Vec<String>,
    revision: u64,
    counters: BTreeMap<String, u64>,
}

impl From<v1::GetStatusResponse> for Status {
    fn from(message: v1::GetStatusResponse) -> Self {
        let cluster = optional(&message.cluster);
        Self {
            role: cluster.is_some().then(|| role(message.role())),
            dataplane: dataplane(message.dataplane()),
            cluster,
            missing: message.missing,
            warnings: message.warnings,
            node: optional(&message.node),
            revision: message.revision,
            counters: message.counters,
            locked: message.locked,
        }
    }
}

impl Inspected for Status {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let none =
            if self.locked { "locked; run overlayctl unlock" } else { "none; run init or join" };
        let counter = |(name, value): (&String, &u64)| format!("{name} {value}");
        vec![
            ("Cluster", self.cluster.clone().unwrap_or_else(|| none.into())),
            ("Node", self.node.clone().unwrap_or_default()),
            ("Role", self.role.unwrap_or_default().into()),
            ("Dataplane", self.dataplane.into()),
            ("Missing", lines(self.missing.iter().cloned())),
            ("Warnings", lines(self.warnings.iter().cloned())),
            ("Revision", self.revision.to_string()),
            ("Counters", lines(self.counters.iter().map(counter))),
        ]
    }
}
