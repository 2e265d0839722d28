//! Endpoints.

use core::net::IpAddr;

use overlay_types::{
    Addresses, Endpoint, EndpointDraft, EndpointSpec, SpecError, object::EndpointExtras,
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
        }
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = SpecError;

    fn try_from(message: v1::Endpoint) -> Result<Self, SpecError> {
        let extras = EndpointExtras {
            aliases: names("endpoint.aliases", &message.aliases)?,
            ports: ports(message.ports)?,
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
            extras: (extras != EndpointExtras::default()).then(|| Box::new(extras)),
        })
    }
}
