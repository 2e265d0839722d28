//! What a user asks of a service.

use core::{fmt, ops::Deref, str::FromStr};
use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Name, NetworkId, PortSpec, SpecError, label, port::PublishMode};

/// How the name of a service resolves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// To one virtual address per network, behind which flows are spread over the tasks.
    #[default]
    Vip,
    /// To the addresses of all tasks, in random order.
    Dnsrr,
}

impl EndpointMode {
    /// The mode's name as `--endpoint-mode` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vip => "vip",
            Self::Dnsrr => "dnsrr",
        }
    }
}

impl fmt::Display for EndpointMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EndpointMode {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "vip" => Ok(Self::Vip),
            "dnsrr" => Ok(Self::Dnsrr),
            _ => Err(SpecError::new("endpoint-mode", text, "an endpoint mode is vip or dnsrr")),
        }
    }
}

/// How many tasks a service shall have. Whoever starts tasks reads it; nothing here does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Not said.
    #[default]
    Open,
    /// This many.
    Replicas(u32),
    /// One on each node.
    Global,
}

/// A network that a service is on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// The network.
    pub network: NetworkId,
    /// Further names of the service on this network.
    pub aliases: Vec<Name>,
}

/// A service as it was asked for, before it is known to make sense.
///
/// [`ServiceSpec::try_from`] checks it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceDraft {
    /// Name of the service, unique in the cluster.
    pub name: Name,
    /// Labels for the user's own purposes.
    pub labels: BTreeMap<String, String>,
    /// How the name resolves.
    pub mode: EndpointMode,
    /// The networks it is on. None: the ingress network.
    pub networks: Vec<ServiceNetwork>,
    /// Ports that it publishes.
    pub ports: Vec<PortSpec>,
    /// A node's published ports lead to its own tasks as long as one of them takes flows.
    pub prefer_local: bool,
    /// How many tasks it shall have.
    pub scale: Scale,
}

impl ServiceDraft {
    /// A service in VIP mode that names no network and publishes no port.
    pub const fn new(name: Name) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            mode: EndpointMode::Vip,
            networks: Vec::new(),
            ports: Vec::new(),
            prefer_local: false,
            scale: Scale::Open,
        }
    }
}

/// A service that makes sense in itself. Read it like a [`ServiceDraft`]. Clones share it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "ServiceDraft", into = "ServiceDraft")]
pub struct ServiceSpec(Arc<ServiceDraft>);

impl ServiceSpec {
    /// Most networks of one service, most aliases on each.
    pub const MAX_NETWORKS: usize = 64;
    /// Most published ports of one service.
    pub const MAX_PORTS: usize = 1024;
    /// Most tasks that a service can be to have.
    pub const MAX_REPLICAS: u32 = 100_000;

    /// Ports that answer on the nodes of its tasks only.
    pub fn host_ports(&self) -> impl Iterator<Item = &PortSpec> {
        self.ports.iter().filter(|port| port.mode == PublishMode::Host)
    }

    /// Ports that answer on every node, through the routing mesh.
    pub fn mesh_ports(&self) -> impl Iterator<Item = &PortSpec> {
        self.ports.iter().filter(|port| port.mode == PublishMode::Ingress)
    }

    /// A draft with the same content, to be changed and checked again.
    pub fn into_draft(self) -> ServiceDraft {
        Arc::unwrap_or_clone(self.0)
    }
}

impl Deref for ServiceSpec {
    type Target = ServiceDraft;

    fn deref(&self) -> &ServiceDraft {
        &self.0
    }
}

impl From<ServiceSpec> for ServiceDraft {
    fn from(spec: ServiceSpec) -> Self {
        spec.into_draft()
    }
}

impl TryFrom<ServiceDraft> for ServiceSpec {
    type Error = SpecError;

    fn try_from(draft: ServiceDraft) -> Result<Self, SpecError> {
        label::check(&draft.labels)?;
        if draft.networks.len() > Self::MAX_NETWORKS {
            let reason = "a service is on at most 64 networks";
            return Err(SpecError::new("network", draft.networks.len(), reason));
        }
        for (index, attachment) in draft.networks.iter().enumerate() {
            if draft.networks[..index].iter().any(|n| n.network == attachment.network) {
                return Err(SpecError::new("network", attachment.network, "it is named twice"));
            }
            if attachment.aliases.len() > Self::MAX_NETWORKS {
                let reason = "a service has at most 64 aliases on a network";
                return Err(SpecError::new("alias", attachment.aliases.len(), reason));
            }
        }
        if let Scale::Replicas(count) = draft.scale
            && count > Self::MAX_REPLICAS
        {
            return Err(SpecError::new("replicas", count, "a service has at most 100000 tasks"));
        }
        check_ports(&draft.ports)?;
        let ingress = draft.ports.iter().find(|p| p.mode == PublishMode::Ingress);
        if let (EndpointMode::Dnsrr, Some(port)) = (draft.mode, ingress) {
            let reason = "a service in dnsrr mode has no virtual address for the routing mesh; \
                          publish with mode=host or use --endpoint-mode vip";
            return Err(SpecError::new("publish", port, reason));
        }
        Ok(Self(Arc::new(draft)))
    }
}

/// Refuses ports that exclude each other, and too many of them.
pub(crate) fn check_ports(ports: &[PortSpec]) -> Result<(), SpecError> {
    if ports.len() > ServiceSpec::MAX_PORTS {
        return Err(SpecError::new("publish", ports.len(), "at most 1024 ports can be published"));
    }
    for (index, port) in ports.iter().enumerate() {
        let clash = |other: &&PortSpec| *other == port || other.is_same_socket(port);
        if let Some(other) = ports[..index].iter().find(clash) {
            let reason = format!("it excludes {other} of the same spec; publish the port once");
            return Err(SpecError::new("publish", port, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn with_ports(mode: EndpointMode, ports: &[&str]) -> Result<ServiceSpec, SpecError> {
        let ports = ports.iter().flat_map(|p| PortSpec::parse(p).unwrap()).collect();
        ServiceDraft { mode, ports, ..ServiceDraft::new("web".parse().unwrap()) }.try_into()
    }

    #[rstest]
    #[case(&["8080:80", "8080:81"])]
    #[case(&["80", "80"])]
    #[case(&["8080:80", "published=8080,target=80,mode=host"])]
    #[case(&["0.0.0.0:8080:80", "192.0.2.7:8080:80"])]
    // A task would need the port of its node twice.
    #[case(&["published=8080,target=80,mode=host", "published=8080,target=81,mode=host"])]
    fn s09_ports_that_exclude_each_other(#[case] ports: &[&str]) {
        assert_eq!(with_ports(EndpointMode::Vip, ports).unwrap_err().field(), "publish");
    }

    #[test]
    fn s02_dnsrr_cannot_publish_in_ingress_mode() {
        assert!(with_ports(EndpointMode::Dnsrr, &["8080:80"]).is_err());
        assert!(with_ports(EndpointMode::Dnsrr, &["published=8080,target=80,mode=host"]).is_ok());
        assert!(with_ports(EndpointMode::Vip, &["8080:80", "8080:80/udp"]).is_ok());
    }

    #[test]
    fn a_network_is_named_once() {
        let network = ServiceNetwork {
            network: NetworkId::from_u128(7),
            aliases: vec!["db".parse().unwrap()],
        };
        let draft = ServiceDraft {
            networks: vec![network.clone(), network],
            ..ServiceDraft::new("web".parse().unwrap())
        };
        assert_eq!(ServiceSpec::try_from(draft).unwrap_err().field(), "network");
    }

    #[test]
    fn r06_parts_of_a_service_are_bounded() {
        let draft = || ServiceDraft::new("web".parse().unwrap());
        let network = |id: u128, aliases: usize| ServiceNetwork {
            network: NetworkId::from_u128(id),
            aliases: (0..aliases).map(|n| format!("a{n}").parse().unwrap()).collect(),
        };
        let port = |n: u16| PortSpec::parse(&format!("{n}:80")).unwrap().remove(0);
        let mut cases = vec![
            (ServiceDraft { networks: (0..65).map(|n| network(n, 0)).collect(), ..draft() }, "65"),
            (ServiceDraft { networks: vec![network(1, 65)], ..draft() }, "65"),
            (ServiceDraft { ports: (1..=1025).map(port).collect(), ..draft() }, "1025"),
        ];
        let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        cases.push((ServiceDraft { labels, ..draft() }, "65"));
        let fields = ["network", "alias", "publish", "label"];
        for ((draft, value), field) in cases.into_iter().zip(fields) {
            let error = ServiceSpec::try_from(draft).unwrap_err();
            assert_eq!((error.field(), error.value()), (field, value));
        }
    }
}
