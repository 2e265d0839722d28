//! Endpoints.

use std::fmt;

use overlay_api::{convert::readiness, v1};
use overlay_types::{EndpointRole, Readiness};
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
    role: EndpointRole,
    readiness: Readiness,
    health: Option<Health>,
    created_at: u64,
    changed_at: u64,
}

/// How its node finds out whether it can take traffic.
#[derive(Serialize, Debug)]
struct Health {
    check: String,
    interval_ms: u64,
    timeout_ms: u64,
    retries: u32,
    start_period_ms: u64,
}

impl From<v1::HealthProbe> for Health {
    fn from(probe: v1::HealthProbe) -> Self {
        let v1::HealthProbe { check, interval_ms, timeout_ms, retries, start_period_ms } = probe;
        Self { check, interval_ms, timeout_ms, retries, start_period_ms }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, interval_ms, timeout_ms, retries, start_period_ms } = self;
        write!(f, "{check} each {interval_ms} ms, within {timeout_ms} ms, {retries} failures")?;
        if *start_period_ms > 0 { write!(f, " after {start_period_ms} ms") } else { Ok(()) }
    }
}

impl Endpoint {
    /// Objects that it refers to get their names from `names`.
    pub(crate) fn new(message: v1::Endpoint, names: &Names) -> Self {
        let meta = message.meta.unwrap_or_default();
        Self {
            role: message.role().into(),
            readiness: readiness("readiness", message.readiness).unwrap_or_default(),
            health: message.health.clone().map(Health::from),
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

    /// What a list of tasks says of it: name, service, network, node, readiness, addresses.
    pub(super) fn task_cells(&self) -> Vec<String> {
        vec![
            self.name().to_owned(),
            self.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.network.to_string(),
            self.node.to_string(),
            self.readiness.to_string(),
            self.addresses.join(","),
        ]
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
        write!(f, "{name} {} on {}", self.addresses.join(","), self.node)?;
        match self.readiness {
            Readiness::Ready => Ok(()),
            other => write!(f, " ({other})"),
        }
    }
}

impl Listed for Endpoint {
    const COLUMNS: &'static [&'static str] = &[
        "ENDPOINT ID",
        "NAME",
        "NETWORK",
        "SERVICE",
        "NODE",
        "READINESS",
        "ADDRESSES",
        "MAC ADDRESS",
        "PORTS",
    ];

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
            self.readiness.to_string(),
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
            ("Role", self.role.to_string()),
            ("Readiness", self.readiness.to_string()),
            ("Health", self.health.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("Aliases", lines(&self.aliases)),
            ("Addresses", lines(&self.addresses)),
            ("MAC address", self.mac.clone()),
            ("Ports", lines(&self.ports)),
        ]
    }
}
