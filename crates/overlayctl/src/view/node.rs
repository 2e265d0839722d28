//! Nodes.

use std::collections::BTreeMap;

use overlay_api::v1;
use serde::Serialize;

use super::{lines, optional, pairs};
use crate::output::{Inspected, Listed};

/// A node of the cluster.
#[derive(Serialize, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the document")]
pub(crate) struct Node {
    id: String,
    name: String,
    /// `manager` or `worker`.
    role: &'static str,
    /// Verdict of gossip: `alive`, `dead`, `left` or `unknown`.
    liveness: &'static str,
    leader: bool,
    /// `active`, `pause` or `drain`.
    availability: &'static str,
    labels: BTreeMap<String, String>,
    /// It is the node that was asked.
    current: bool,
    control: String,
    gossip: String,
    data_path: String,
    /// `kernel` or `user`.
    dataplane: &'static str,
    encryption: bool,
    ipv6: bool,
    feature_level: u32,
    /// `None`: the node has not said.
    kernel: Option<String>,
    /// What the host lacks for the kernel dataplane, and how to get it.
    missing: Vec<String>,
    data_path_mtu: Option<u32>,
    created_at: u64,
    changed_at: u64,
}

/// A role as it is written.
pub(crate) fn role(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Manager => "manager",
        v1::Role::Worker => "worker",
        v1::Role::Unspecified => "unknown",
    }
}

/// A dataplane as it is written.
pub(super) fn dataplane(kind: v1::DataplaneKind) -> &'static str {
    match kind {
        v1::DataplaneKind::Kernel => "kernel",
        v1::DataplaneKind::User => "user",
        v1::DataplaneKind::Unspecified => "unknown",
    }
}

/// A verdict of gossip as it is written.
pub(super) fn liveness(liveness: v1::Liveness) -> &'static str {
    match liveness {
        v1::Liveness::Alive => "alive",
        v1::Liveness::Dead => "dead",
        v1::Liveness::Left => "left",
        v1::Liveness::Unknown => "unknown",
    }
}

impl Node {
    /// `current` is the id of the node that was asked.
    pub(crate) fn new(status: v1::NodeStatus, current: &str) -> Self {
        let (liveness, leader) = (status.liveness(), status.leader);
        let mut node = status.node.unwrap_or_default();
        let capabilities = node.capabilities.unwrap_or_default();
        let meta = node.meta.unwrap_or_default();
        let data_path_mtu = node.host.as_ref().map(|host| host.data_path_mtu);
        let host = node.host.take().unwrap_or_default();
        Self {
            role: role(node.role()),
            liveness: self::liveness(liveness),
            leader,
            availability: match node.availability() {
                v1::Availability::Active => "active",
                v1::Availability::Pause => "pause",
                v1::Availability::Drain => "drain",
            },
            labels: node.labels,
            current: node.id == current,
            dataplane: dataplane(capabilities.dataplane()),
            encryption: capabilities.encryption,
            ipv6: capabilities.ipv6,
            feature_level: capabilities.level,
            kernel: optional(&host.kernel),
            missing: host.missing,
            data_path_mtu,
            created_at: meta.created_at,
            changed_at: meta.changed_at,
            id: node.id,
            name: node.name,
            control: node.control,
            gossip: node.gossip,
            data_path: node.data_path,
        }
    }

    /// Docker's words for the availability.
    fn availability(&self) -> &'static str {
        match self.availability {
            "pause" => "Pause",
            "drain" => "Drain",
            _ => "Active",
        }
    }

    /// Docker's words for the role and the state of a manager; nothing for workers.
    fn manager_status(&self) -> &'static str {
        match (self.role, self.leader, self.liveness) {
            (_, true, _) => "Leader",
            ("manager", _, "alive") => "Reachable",
            ("manager", _, "dead" | "left") => "Unreachable",
            ("manager", ..) => "Unknown",
            _ => "",
        }
    }
}

impl Listed for Node {
    const COLUMNS: &'static [&'static str] =
        &["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "DATA PATH", "DATAPLANE"];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn mark(&self) -> &'static str {
        if self.current { " *" } else { "" }
    }

    fn cells(&self) -> Vec<String> {
        let status = match self.liveness {
            "alive" => "Ready",
            "dead" => "Down",
            "left" => "Left",
            _ => "Unknown",
        };
        vec![
            self.name.clone(),
            status.into(),
            self.availability().into(),
            self.manager_status().into(),
            self.data_path.clone(),
            self.dataplane.into(),
        ]
    }
}

impl Inspected for Node {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ID", self.id.clone()),
            ("Hostname", self.name.clone()),
            ("Role", self.role.into()),
            ("Status", self.liveness.into()),
            ("Availability", self.availability().into()),
            ("Manager status", self.manager_status().into()),
            ("Control", self.control.clone()),
            ("Gossip", self.gossip.clone()),
            ("Data path", self.data_path.clone()),
            ("Data path MTU", self.data_path_mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
            ("Dataplane", self.dataplane.into()),
            ("Kernel", self.kernel.clone().unwrap_or_default()),
            ("Missing", lines(self.missing.iter())),
            ("Encryption", self.encryption.to_string()),
            ("IPv6", self.ipv6.to_string()),
            ("Feature level", self.feature_level.to_string()),
            ("Labels", pairs(&self.labels)),
        ]
    }
}
