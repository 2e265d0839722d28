//! Services as the cluster made them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Meta;
use crate::{Addresses, NetworkId, ServiceId, ServiceSpec};

/// A service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// The service's id.
    pub id: ServiceId,
    /// Writes that made and changed it.
    pub meta: Meta,
    /// What was asked for.
    pub spec: ServiceSpec,
    /// The networks it is on, each with its virtual addresses: none in dnsrr mode.
    pub vips: BTreeMap<NetworkId, Addresses>,
    /// The spec before the last update of it, to go back to.
    pub previous: Option<Box<ServiceSpec>>,
}

impl Service {
    /// The networks that it is on or asks to be on; one may come twice.
    pub fn networks(&self) -> impl Iterator<Item = NetworkId> {
        let asked = self.spec.networks.iter().map(|attachment| attachment.network);
        asked.chain(self.vips.keys().copied())
    }
}
