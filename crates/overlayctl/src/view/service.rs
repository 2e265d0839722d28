//! Services.

use std::{collections::BTreeMap, fmt};

use overlay_api::v1::{self, service_spec};
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
    #[serde(flatten)]
    spec: Spec,
    vips: Vec<Vip>,
    /// The spec before the last update.
    previous: Option<Spec>,
    created_at: u64,
    changed_at: u64,
}

/// What was asked for.
#[derive(Serialize, Debug)]
struct Spec {
    name: String,
    /// `vip` or `dnsrr`.
    endpoint_mode: &'static str,
    networks: Vec<Attachment>,
    ports: Vec<Port>,
    prefer_local: bool,
    scale: Scale,
    labels: BTreeMap<String, String>,
}

/// How many tasks it shall have.
#[derive(Serialize, Clone, Copy, Debug)]
#[serde(rename_all = "lowercase")]
enum Scale {
    Open,
    Replicas(u32),
    Global,
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => Ok(()),
            Self::Replicas(count) => count.fmt(f),
            Self::Global => f.write_str("global"),
        }
    }
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
        let vip =
            |v: v1::VirtualAddresses| Vip { network: names.of(&v.network), addresses: v.addresses };
        Self {
            id: message.id,
            spec: Spec::new(message.spec.unwrap_or_default(), names),
            vips: message.vips.into_iter().map(vip).collect(),
            previous: message.previous.map(|spec| Spec::new(spec, names)),
            created_at: meta.created_at,
            changed_at: meta.changed_at,
        }
    }

    fn vip_texts(&self) -> Vec<String> {
        let text = |v: &Vip| format!("{}: {}", v.network, v.addresses.join(","));
        self.vips.iter().map(text).collect()
    }
}

impl Spec {
    fn new(spec: v1::ServiceSpec, names: &Names) -> Self {
        let attachment = |n: &v1::ServiceNetwork| Attachment {
            network: names.of(&n.network),
            aliases: n.aliases.clone(),
        };
        Self {
            endpoint_mode: match spec.mode() {
                v1::EndpointMode::Vip => "vip",
                v1::EndpointMode::Dnsrr => "dnsrr",
            },
            networks: spec.networks.iter().map(attachment).collect(),
            ports: ports(&spec.ports),
            prefer_local: spec.prefer_local,
            scale: match spec.scale {
                None => Scale::Open,
                Some(service_spec::Scale::Replicas(count)) => Scale::Replicas(count),
                Some(service_spec::Scale::Global(_)) => Scale::Global,
            },
            name: spec.name,
            labels: spec.labels,
        }
    }
}

impl Listed for Service {
    const COLUMNS: &'static [&'static str] =
        &["ID", "NAME", "ENDPOINT MODE", "SCALE", "NETWORKS", "VIRTUAL IPS", "PORTS"];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.spec.name
    }

    fn cells(&self) -> Vec<String> {
        let spec = &self.spec;
        vec![
            spec.name.clone(),
            spec.endpoint_mode.into(),
            spec.scale.to_string(),
            joined(spec.networks.iter().map(|n| &n.network), ","),
            self.vip_texts().join("; "),
            joined(&spec.ports, ", "),
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
        let (service, spec) = (&self.service, &self.service.spec);
        let network = |n: &Attachment| match n.aliases.as_slice() {
            [] => n.network.to_string(),
            aliases => format!("{} as {}", n.network, aliases.join(",")),
        };
        vec![
            ("ID", service.id.clone()),
            ("Name", spec.name.clone()),
            ("Endpoint mode", spec.endpoint_mode.into()),
            ("Scale", spec.scale.to_string()),
            ("Networks", lines(spec.networks.iter().map(network))),
            ("Virtual IPs", service.vip_texts().join("\n")),
            ("Ports", lines(&spec.ports)),
            ("Prefer local", if spec.prefer_local { "yes".into() } else { String::new() }),
            ("Labels", pairs(&spec.labels)),
            ("Tasks", lines(&self.tasks)),
        ]
    }
}

/// A task of a service.
#[derive(Serialize, Debug)]
pub(crate) struct Task {
    #[serde(flatten)]
    endpoint: Endpoint,
    /// What of the service's ports answers on the task's node only.
    host_ports: Vec<Port>,
}

impl Task {
    /// The tasks of a service.
    pub(crate) fn of(service: &v1::Service, tasks: Vec<v1::Endpoint>, names: &Names) -> Vec<Self> {
        let names = names.clone().with_services(std::slice::from_ref(service));
        let on_host = |port: &&v1::PortSpec| port.mode() == v1::PublishMode::Host;
        let spec = service.spec.iter();
        let host: Vec<_> = spec.flat_map(|spec| &spec.ports).filter(on_host).cloned().collect();
        let task = |endpoint| Self { endpoint, host_ports: ports(&host) };
        Endpoint::sorted(tasks, &names).into_iter().map(task).collect()
    }
}

impl Listed for Task {
    const COLUMNS: &'static [&'static str] =
        &["ENDPOINT ID", "NAME", "SERVICE", "NETWORK", "NODE", "READINESS", "ADDRESSES", "PORTS"];

    fn id(&self) -> &str {
        self.endpoint.id()
    }

    fn name(&self) -> &str {
        self.endpoint.name()
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = self.endpoint.task_cells();
        cells.push(joined(&self.host_ports, ", "));
        cells
    }
}
