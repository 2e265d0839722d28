//! The cluster itself.

use core::{fmt, time::Duration};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Meta, Root, UnixMillis};
use crate::{ClusterId, FeatureLevel, NodeId, Subnet};

/// What holds for the whole cluster; one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id.
    pub id: ClusterId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// UDP port of plain VXLAN, 1024-49151.
    pub vxlan_port: u16,
    /// UDP port of VXLAN inside ESP; never seen outside it.
    pub encrypted_vxlan_port: u16,
    /// How ESP travels.
    pub esp: Encapsulation,
    /// Pools for networks without a requested subnet, in order of preference.
    pub default_pools: Vec<DefaultPool>,
    /// Time from one key epoch to the next.
    pub rotation_period: Duration,
    /// Managers keep what they store under an unlock key, which is not on their hosts.
    pub autolock: bool,
    /// Nodes that were removed while a certificate of theirs may still be valid, and until when:
    /// nobody talks to them.
    pub removed_nodes: BTreeMap<NodeId, UnixMillis>,
    /// What all its nodes know; it never falls.
    pub level: FeatureLevel,
    /// Roots that nodes trust, oldest first. Join tokens name the first, the last signs. There are
    /// several while a root rotation runs.
    pub roots: Vec<Root>,
}

/// How ESP travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Encapsulation {
    /// In UDP from and to this port (RFC 3948), 1024-49151: what networks between hosts carry everywhere.
    Udp(u16),
    /// As IP protocol 50 (RFC 4303): smaller by the header of UDP, and blocked by many clouds.
    None,
}

/// In UDP, port 4500 (RFC 3948 §2).
impl Default for Encapsulation {
    fn default() -> Self {
        Self::Udp(4500)
    }
}

/// A pool that networks without a requested subnet take theirs from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DefaultPool {
    /// The pool.
    pub pool: Subnet,
    /// Length of the prefix of each subnet cut from it.
    pub subnet_len: u8,
}

/// `10.0.0.0/8 in /24`
impl fmt::Display for DefaultPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in /{}", self.pool, self.subnet_len)
    }
}
