//! Networks as the cluster made them.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{NetworkId, NetworkSpec, Subnet, Vni};

/// An overlay network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// The network's id.
    pub id: NetworkId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// Its subnets, requested or taken from the default pools.
    pub subnets: Vec<NetworkSubnet>,
}

/// A subnet of a network, with its gateway settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetworkSubnet {
    /// The subnet.
    pub subnet: Subnet,
    /// Its gateway.
    pub gateway: IpAddr,
}
