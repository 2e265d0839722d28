//! Networks.

use std::collections::BTreeMap;

use overlay_types::{
    Network, NetworkDraft, NetworkSpec, NetworkSubnet, SpecError, Subnet, SubnetSpec, Vni,
};

use super::{meta, name, parse, parse_optional, required, small, text};
use crate::v1;

impl From<&SubnetSpec> for v1::SubnetSpec {
    fn from(spec: &SubnetSpec) -> Self {
        Self {
            subnet: spec.subnet.to_string(),
            ip_range: text(spec.ip_range),
            gateway: text(spec.gateway),
            aux_addresses: spec
                .aux_addresses
                .iter()
                .map(|(name, address)| (name.to_string(), address.to_string()))
                .collect(),
        }
    }
}

impl TryFrom<v1::SubnetSpec> for SubnetSpec {
    type Error = SpecError;

    fn try_from(message: v1::SubnetSpec) -> Result<Self, SpecError> {
        let mut aux_addresses = BTreeMap::new();
        for (key, address) in &message.aux_addresses {
            let key = name("aux_addresses", key)?;
            aux_addresses.insert(key, parse("aux_addresses", address)?);
        }
        let ip_range = match message.ip_range.as_str() {
            "" => None,
            range => Some(Subnet::parse("ip_range", range)?),
        };
        Ok(Self {
            subnet: Subnet::parse("subnet", &message.subnet)?,
            ip_range,
            gateway: parse_optional("gateway", &message.gateway)?,
            aux_addresses,
        })
    }
}

impl From<&NetworkSpec> for v1::NetworkSpec {
    fn from(spec: &NetworkSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            labels: spec.labels.clone(),
            subnets: spec.subnets.iter().map(Into::into).collect(),
            disable_ipv4: !spec.ipv4,
            ipv6: spec.ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            encrypted: spec.encrypted,
            multicast: spec.multicast,
            mtu: spec.mtu.map_or(0, Into::into),
            vni: spec.vni.map_or(0, Vni::get),
        }
    }
}

impl TryFrom<v1::NetworkSpec> for NetworkSpec {
    type Error = SpecError;

    fn try_from(message: v1::NetworkSpec) -> Result<Self, SpecError> {
        let subnets = message.subnets.into_iter().map(TryInto::try_into);
        NetworkDraft {
            name: name("name", &message.name)?,
            labels: message.labels,
            subnets: subnets.collect::<Result<_, _>>()?,
            ipv4: !message.disable_ipv4,
            ipv6: message.ipv6,
            internal: message.internal,
            attachable: message.attachable,
            ingress: message.ingress,
            encrypted: message.encrypted,
            multicast: message.multicast,
            mtu: match message.mtu {
                0 => None,
                mtu => Some(small("mtu", mtu)?),
            },
            vni: match message.vni {
                0 => None,
                vni => Some(Vni::for_overlay(vni)?),
            },
        }
        .try_into()
    }
}

impl From<&Network> for v1::Network {
    fn from(network: &Network) -> Self {
        let subnet = |s: &NetworkSubnet| v1::NetworkSubnet {
            subnet: s.subnet.to_string(),
            gateway: s.gateway.to_string(),
        };
        Self {
            id: network.id.to_string(),
            meta: Some(network.meta.into()),
            spec: Some((&network.spec).into()),
            vni: network.vni.get(),
            subnets: network.subnets.iter().map(subnet).collect(),
        }
    }
}

impl TryFrom<v1::Network> for Network {
    type Error = SpecError;

    fn try_from(message: v1::Network) -> Result<Self, SpecError> {
        let subnet = |s: &v1::NetworkSubnet| {
            Ok(NetworkSubnet {
                subnet: Subnet::parse("network.subnets.subnet", &s.subnet)?,
                gateway: parse("network.subnets.gateway", &s.gateway)?,
            })
        };
        Ok(Self {
            id: parse("network.id", &message.id)?,
            meta: meta(message.meta),
            spec: required("network.spec", message.spec)?.try_into()?,
            vni: message.vni.try_into()?,
            subnets: message.subnets.iter().map(subnet).collect::<Result<_, SpecError>>()?,
        })
    }
}
