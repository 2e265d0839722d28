//! Services.

use std::collections::BTreeMap;

use overlay_api::v1;
use serde::Serialize;

use super::{
    Endpoint, Names, Reference, joined, lines, pairs,
    port::{Port, ports},
};
use crate::output::{Inspected, Listed};

/// A service.
#[derive(Serialize, Debug)]
pub(crate) struct Service {
    id: String,
    name: String,
    /// `vip` or `dnsrr`.
    endpoint_mode: &'static str,
    networks: Vec<Attachment>,
    vips: Vec<Vip>,
    ports: Vec<Port>,
    labels: BTreeMap<String, String>,
    created_at: u64,
    changed_at: u64,
}

#[derive(Serialize, Debug)]
struct Attachment {
    network: Reference,
    aliases: Vec<String>,
}

/// Virtual addresses on one network.
#[derive(Serialize, Debug)]
struct Vip {
    network: Reference,
    addresses: Vec<String>,
}

impl Service {
    /// Networks get their names from `names`.
    pub(crate) fn new(message: v1::Service, names: &Names) -> Self {
        let meta = message.meta.unwrap_or_default();
        let spec = message.spec.unwrap_or_default();
        let attachment = |n: &v1::ServiceNetwork| Attachment {
            network: names.of(&n.network),
            aliases: n.aliases.clone(),
        };
        let vip =
            |v: v1::VirtualAddresses| Vip { network: names.of(&v.network), addresses: v.addresses };
        Self {
            id: message.id,
            endpoint_mode: match spec.mode() {
                v1::EndpointMode::Vip => "vip",
                v1::EndpointMode::Dnsrr => "dnsrr",
            },
            networks: spec.networks.iter().map(attachment).collect(),
            vips: message.vips.into_iter().map(vip).collect(),
            ports: ports(&spec.ports),
            name: spec.name,
            labels: spec.labels,
            created_at: meta.created_at,
            changed_at: meta.changed_at,
        }
    }

    fn vip_texts(&self) -> Vec<String> {
        let text = |v: &Vip| format!("{}: {}", v.network, v.addresses.join(","));
        self.vips.iter().map(text).collect()
    }
}

impl Listed for Service {
    const COLUMNS: &'static [&'static str] =
        &["ID", "NAME", "ENDPOINT MODE", "NETWORKS", "VIRTUAL IPS", "PORTS"];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.endpoint_mode.into(),
            joined(self.networks.iter().map(|n| &n.network), ","),
            self.vip_texts().join("; "),
            joined(&self.ports, ", "),
        ]
    }
}

/// A service with its tasks.
#[derive(Serialize, Debug)]
pub(crate) struct ServiceDetail {
    #[serde(flatten)]
    service: Service,
    tasks: Vec<Endpoint>,
}

impl ServiceDetail {
    /// Networks and nodes get their names from `names`.
    pub(crate) fn new(service: v1::Service, tasks: Vec<v1::Endpoint>, names: Names) -> Self {
        let names = names.with_services(std::slice::from_ref(&service));
        Self { tasks: Endpoint::sorted(tasks, &names), service: Service::new(service, &names) }
    }
}

impl Inspected for ServiceDetail {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let service = &self.service;
        let network = |n: &Attachment| match n.aliases.as_slice() {
            [] => n.network.to_string(),
            aliases => format!("{} as {}", n.network, aliases.join(",")),
        };
        vec![
            ("ID", service.id.clone()),
            ("Name", service.name.clone()),
            ("Endpoint mode", service.endpoint_mode.into()),
            ("Networks", lines(service.networks.iter().map(network))),
            ("Virtual IPs", service.vip_texts().join("\n")),
            ("Ports", lines(&service.ports)),
            ("Labels", pairs(&service.labels)),
            ("Tasks", lines(&self.tasks)),
        ]
    }
}
