//! Endpoints.

use core::{net::IpAddr, time::Duration};

use overlay_types::{
    Addresses, Endpoint, EndpointDraft, EndpointRole, EndpointSpec, HealthDraft, HealthProbe,
    Readiness, SpecError, object::EndpointExtras,
};

use super::{meta, name, names, parse, parse_optional, port::ports, text};
use crate::v1;

/// At most one address of each family.
pub(super) fn addresses(field: &'static str, texts: &[String]) -> Result<Addresses, SpecError> {
    let mut addresses = Addresses::default();
    for text in texts {
        let address: IpAddr = parse(field, text)?;
        let taken = match address {
            IpAddr::V4(_) => addresses.v4.is_some(),
            IpAddr::V6(_) => addresses.v6.is_some(),
        };
        if taken {
            return Err(SpecError::new(field, text, "at most one address of each family"));
        }
        addresses.set(address);
    }
    Ok(addresses)
}

fn optional_name(
    field: &'static str,
    text: &str,
) -> Result<Option<overlay_types::Name>, SpecError> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

impl From<EndpointRole> for v1::EndpointRole {
    fn from(role: EndpointRole) -> Self {
        match role {
            EndpointRole::Workload => Self::Workload,
            EndpointRole::Mesh => Self::Mesh,
        }
    }
}

impl From<v1::EndpointRole> for EndpointRole {
    fn from(message: v1::EndpointRole) -> Self {
        match message {
            v1::EndpointRole::Workload => Self::Workload,
            v1::EndpointRole::Mesh => Self::Mesh,
        }
    }
}

fn role(field: &'static str, number: i32) -> Result<EndpointRole, SpecError> {
    let role = v1::EndpointRole::try_from(number);
    role.map(Into::into).map_err(|_| SpecError::new(field, number, "a role is workload or mesh"))
}

impl From<Readiness> for v1::Readiness {
    fn from(readiness: Readiness) -> Self {
        match readiness {
            Readiness::Ready => Self::Ready,
            Readiness::Starting => Self::Starting,
            Readiness::Failing => Self::Failing,
            Readiness::Draining => Self::Draining,
        }
    }
}

/// The readiness that a number of the protocol stands for.
pub fn readiness(field: &'static str, number: i32) -> Result<Readiness, SpecError> {
    match v1::Readiness::try_from(number) {
        Ok(v1::Readiness::Ready) => Ok(Readiness::Ready),
        Ok(v1::Readiness::Starting) => Ok(Readiness::Starting),
        Ok(v1::Readiness::Failing) => Ok(Readiness::Failing),
        Ok(v1::Readiness::Draining) => Ok(Readiness::Draining),
        Err(_) => {
            let reason = "it is ready, starting, failing or draining";
            Err(SpecError::new(field, number, reason))
        }
    }
}

impl From<&HealthProbe> for v1::HealthProbe {
    fn from(probe: &HealthProbe) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            check: probe.check.to_string(),
            interval_ms: millis(probe.interval),
            timeout_ms: millis(probe.timeout),
            retries: probe.retries,
            start_period_ms: millis(probe.start_period),
        }
    }
}

impl TryFrom<v1::HealthProbe> for HealthProbe {
    type Error = SpecError;

    fn try_from(message: v1::HealthProbe) -> Result<Self, SpecError> {
        HealthDraft {
            check: message.check.parse()?,
            interval: Duration::from_millis(message.interval_ms),
            timeout: Duration::from_millis(message.timeout_ms),
            retries: message.retries,
            start_period: Duration::from_millis(message.start_period_ms),
        }
        .try_into()
    }
}

impl From<&EndpointSpec> for v1::EndpointSpec {
    fn from(spec: &EndpointSpec) -> Self {
        Self {
            network: spec.network.to_string(),
            node: spec.node.to_string(),
            service: text(spec.service),
            name: text(spec.name.as_ref()),
            aliases: spec.aliases.iter().map(ToString::to_string).collect(),
            addresses: spec.addresses.iter().map(|a| a.to_string()).collect(),
            mac: text(spec.mac),
            ports: spec.ports.iter().map(Into::into).collect(),
            role: v1::EndpointRole::from(spec.role).into(),
            readiness: v1::Readiness::from(spec.readiness).into(),
            health: spec.health.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::EndpointSpec> for EndpointSpec {
    type Error = SpecError;

    fn try_from(message: v1::EndpointSpec) -> Result<Self, SpecError> {
        EndpointDraft {
            network: parse("network", &message.network)?,
            node: parse("node", &message.node)?,
            service: parse_optional("service", &message.service)?,
            name: optional_name("name", &message.name)?,
            aliases: names("aliases", &message.aliases)?,
            addresses: addresses("addresses", &message.addresses)?,
            mac: parse_optional("mac", &message.mac)?,
            ports: ports(message.ports)?,
            role: role("role", message.role)?,
            readiness: readiness("readiness", message.readiness)?,
            health: message.health.map(TryInto::try_into).transpose()?,
        }
        .try_into()
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.to_string(),
            meta: Some(endpoint.meta.into()),
            network: endpoint.network.to_string(),
            node: endpoint.node.to_string(),
            service: text(endpoint.service),
            name: text(endpoint.name.as_ref()),
            aliases: endpoint.aliases().iter().map(ToString::to_string).collect(),
            addresses: endpoint.addresses.iter().map(|a| a.to_string()).collect(),
            mac: endpoint.mac.to_string(),
            ports: endpoint.ports().iter().map(Into::into).collect(),
            role: v1::EndpointRole::from(endpoint.role).into(),
            readiness: v1::Readiness::from(endpoint.readiness).into(),
            health: endpoint.health().map(Into::into),
        }
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = SpecError;

    fn try_from(message: v1::Endpoint) -> Result<Self, SpecError> {
        let extras = EndpointExtras {
            aliases: names("endpoint.aliases", &message.aliases)?,
            ports: ports(message.ports)?,
            health: message.health.map(TryInto::try_into).transpose()?,
        };
        Ok(Self {
            id: parse("endpoint.id", &message.id)?,
            meta: meta(message.meta),
            network: parse("endpoint.network", &message.network)?,
            node: parse("endpoint.node", &message.node)?,
            service: parse_optional("endpoint.service", &message.service)?,
            name: optional_name("endpoint.name", &message.name)?,
            addresses: addresses("endpoint.addresses", &message.addresses)?,
            mac: parse("endpoint.mac", &message.mac)?,
            role: role("endpoint.role", message.role)?,
            readiness: readiness("endpoint.readiness", message.readiness)?,
            extras: (extras != EndpointExtras::default()).then(|| Box::new(extras)),
        })
    }
}
