//! Services.

use overlay_types::{
    Addresses, EndpointMode, NetworkId, Scale, Service, ServiceDraft, ServiceNetwork, ServiceSpec,
    SpecError,
};

use super::{endpoint::addresses, meta, name, names, parse, port::ports, required};
use crate::v1::{self, service_spec};

impl From<EndpointMode> for v1::EndpointMode {
    fn from(mode: EndpointMode) -> Self {
        match mode {
            EndpointMode::Vip => Self::Vip,
            EndpointMode::Dnsrr => Self::Dnsrr,
        }
    }
}

impl From<v1::EndpointMode> for EndpointMode {
    fn from(message: v1::EndpointMode) -> Self {
        match message {
            v1::EndpointMode::Vip => Self::Vip,
            v1::EndpointMode::Dnsrr => Self::Dnsrr,
        }
    }
}

impl From<&ServiceSpec> for v1::ServiceSpec {
    fn from(spec: &ServiceSpec) -> Self {
        let network = |n: &ServiceNetwork| v1::ServiceNetwork {
            network: n.network.to_string(),
            aliases: n.aliases.iter().map(ToString::to_string).collect(),
        };
        Self {
            name: spec.name.to_string(),
            labels: spec.labels.clone(),
            mode: v1::EndpointMode::from(spec.mode).into(),
            networks: spec.networks.iter().map(network).collect(),
            ports: spec.ports.iter().map(Into::into).collect(),
            prefer_local: spec.prefer_local,
            scale: match spec.scale {
                Scale::Open => None,
                Scale::Replicas(count) => Some(service_spec::Scale::Replicas(count)),
                Scale::Global => Some(service_spec::Scale::Global(v1::Unit {})),
            },
        }
    }
}

impl TryFrom<v1::ServiceSpec> for ServiceSpec {
    type Error = SpecError;

    fn try_from(message: v1::ServiceSpec) -> Result<Self, SpecError> {
        let mode = v1::EndpointMode::try_from(message.mode).map_err(|_| {
            SpecError::new("mode", message.mode, "an endpoint mode is vip or dnsrr")
        })?;
        let network = |n: &v1::ServiceNetwork| {
            Ok(ServiceNetwork {
                network: parse("networks.network", &n.network)?,
                aliases: names("networks.aliases", &n.aliases)?,
            })
        };
        ServiceDraft {
            name: name("name", &message.name)?,
            labels: message.labels,
            mode: mode.into(),
            networks: message.networks.iter().map(network).collect::<Result<_, SpecError>>()?,
            ports: ports(message.ports)?,
            prefer_local: message.prefer_local,
            scale: match message.scale {
                None => Scale::Open,
                Some(service_spec::Scale::Replicas(count)) => Scale::Replicas(count),
                Some(service_spec::Scale::Global(v1::Unit {})) => Scale::Global,
            },
        }
        .try_into()
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        let vip = |(network, addresses): (&NetworkId, &Addresses)| v1::VirtualAddresses {
            network: network.to_string(),
            addresses: addresses.iter().map(|a| a.to_string()).collect(),
        };
        Self {
            id: service.id.to_string(),
            meta: Some(service.meta.into()),
            spec: Some((&service.spec).into()),
            vips: service.vips.iter().map(vip).collect(),
            previous: service.previous.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = SpecError;

    fn try_from(message: v1::Service) -> Result<Self, SpecError> {
        let vip = |v: &v1::VirtualAddresses| {
            let network = parse("service.vips.network", &v.network)?;
            Ok((network, addresses("service.vips.addresses", &v.addresses)?))
        };
        Ok(Self {
            id: parse("service.id", &message.id)?,
            meta: meta(message.meta),
            spec: required("service.spec", message.spec)?.try_into()?,
            vips: message.vips.iter().map(vip).collect::<Result<_, SpecError>>()?,
            previous: message.previous.map(ServiceSpec::try_from).transpose()?.map(Box::new),
        })
    }
}
