//! Endpoints.

use std::fmt;

use overlay_api::v1;
use serde::Serialize;

use super::{
    Names, Reference, joined, lines, optional,
    port::{Port, ports},
};
use crate::output::{Inspected, Listed, short};

/// An endpoint: one interface on one network.
#[derive(Serialize, Debug)]
pub(crate) struct Endpoint {
    id: String,
    name: Option<String>,
    network: Reference,
    node: Reference,
    service: Option<Reference>,
    aliases: Vec<String>,
    addresses: Vec<String>,
    mac: String,
    ports: Vec<Port>,
    created_at: u64,
    changed_at: u64,
}

impl Endpoint {
    /// Objects that it refers to get their names from `names`.
    pub(crate) fn new(message: v1::Endpoint, names: &Names) -> Self {
        let meta = message.meta.unwrap_or_default();
        Self {
            name: optional(&message.name),
            network: names.of(&message.network),
            node: names.of(&message.node),
            service: names.of_optional(&message.service),
            ports: ports(&message.ports),
            id: message.id,
            aliases: message.aliases,
            addresses: message.addresses,
            mac: message.mac,
            created_at: meta.created_at,
            changed_at: meta.changed_at,
        }
    }

    /// By name, then id.
    pub(super) fn sorted(messages: Vec<v1::Endpoint>, names: &Names) -> Vec<Self> {
        let mut endpoints: Vec<_> = messages.into_iter().map(|m| Self::new(m, names)).collect();
        endpoints.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        endpoints
    }
}

/// One line of a network's or service's endpoints.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_else(|| short(&self.id));
        write!(f, "{name} {} on {}", self.addresses.join(","), self.node)
    }
}

impl Listed for Endpoint {
    const COLUMNS: &'static [&'static str] =
        &["ENDPOINT ID", "NAME", "NETWORK", "SERVICE", "NODE", "ADDRESSES", "MAC ADDRESS", "PORTS"];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name().to_owned(),
            self.network.to_string(),
            self.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.node.to_string(),
            self.addresses.join(","),
            self.mac.clone(),
            joined(&self.ports, ", "),
        ]
    }
}

impl Inspected for Endpoint {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ID", self.id.clone()),
            ("Name", self.name().to_owned()),
            ("Network", self.network.to_string()),
            ("Service", self.service.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("Node", self.node.to_string()),
            ("Aliases", lines(&self.aliases)),
            ("Addresses", lines(&self.addresses)),
            ("MAC address", self.mac.clone()),
            ("Ports", lines(&self.ports)),
        ]
    }
}
