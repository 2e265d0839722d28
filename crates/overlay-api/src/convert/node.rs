//! Cluster and node.

use core::time::Duration;

use overlay_types::{
    Availability, Capabilities, Cluster, DataplaneKind, DefaultPool, Encapsulation, FeatureLevel,
    HostReport, Node, Revision, Role, Root, SpecError, UnixMillis,
};

use super::{meta, name, parse, required, small};
use crate::v1;

impl From<&Cluster> for v1::Cluster {
    fn from(cluster: &Cluster) -> Self {
        Self {
            id: cluster.id.to_string(),
            meta: Some(cluster.meta.into()),
            vxlan_port: cluster.vxlan_port.into(),
            encrypted_vxlan_port: cluster.encrypted_vxlan_port.into(),
            esp_port: match cluster.esp {
                Encapsulation::Udp(port) => port.into(),
                Encapsulation::None => 0,
            },
            default_pools: cluster.default_pools.iter().map(Into::into).collect(),
            rotation_period_ms: u64::try_from(cluster.rotation_period.as_millis())
                .unwrap_or(u64::MAX),
            autolock: cluster.autolock,
            removed_nodes: cluster
                .removed_nodes
                .iter()
                .map(|(node, until)| v1::RemovedNode { node: node.to_string(), until: until.0 })
                .collect(),
            level: cluster.level.get(),
            roots: cluster.roots.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Cluster> for Cluster {
    type Error = SpecError;

    fn try_from(message: v1::Cluster) -> Result<Self, SpecError> {
        Ok(Self {
            id: parse("cluster.id", &message.id)?,
            meta: meta(message.meta),
            vxlan_port: small("vxlan_port", message.vxlan_port)?,
            encrypted_vxlan_port: small("encrypted_vxlan_port", message.encrypted_vxlan_port)?,
            esp: match small("esp_port", message.esp_port)? {
                0 => Encapsulation::None,
                port => Encapsulation::Udp(port),
            },
            default_pools: message
                .default_pools
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            rotation_period: Duration::from_millis(message.rotation_period_ms),
            autolock: message.autolock,
            removed_nodes: message
                .removed_nodes
                .into_iter()
                .map(|m| Ok((parse("removed_nodes.node", &m.node)?, UnixMillis(m.until))))
                .collect::<Result<_, SpecError>>()?,
            level: FeatureLevel::new(message.level),
            roots: message.roots.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Root> for v1::Root {
    fn from(root: &Root) -> Self {
        Self {
            id: root.id.to_string(),
            certificate: root.certificate.clone(),
            cross_certificate: root.cross.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Root> for Root {
    type Error = SpecError;

    fn try_from(message: v1::Root) -> Result<Self, SpecError> {
        let cross = message.cross_certificate;
        Ok(Self {
            id: parse("roots.id", &message.id)?,
            certificate: message.certificate,
            cross: (!cross.is_empty()).then_some(cross),
        })
    }
}

impl From<&DefaultPool> for v1::DefaultPool {
    fn from(pool: &DefaultPool) -> Self {
        Self { pool: pool.pool.to_string(), subnet_len: pool.subnet_len.into() }
    }
}

impl TryFrom<v1::DefaultPool> for DefaultPool {
    type Error = SpecError;

    fn try_from(message: v1::DefaultPool) -> Result<Self, SpecError> {
        Ok(Self {
            pool: parse("default_pools.pool", &message.pool)?,
            subnet_len: small("default_pools.subnet_len", message.subnet_len)?,
        })
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Manager => Self::Manager,
            Role::Worker => Self::Worker,
        }
    }
}

impl TryFrom<v1::Role> for Role {
    type Error = SpecError;

    fn try_from(message: v1::Role) -> Result<Self, SpecError> {
        match message {
            v1::Role::Manager => Ok(Self::Manager),
            v1::Role::Worker => Ok(Self::Worker),
            v1::Role::Unspecified => Err(SpecError::new("role", "", "a role is manager or worker")),
        }
    }
}

impl From<Availability> for v1::Availability {
    fn from(availability: Availability) -> Self {
        match availability {
            Availability::Active => Self::Active,
            Availability::Pause => Self::Pause,
            Availability::Drain => Self::Drain,
        }
    }
}

impl From<v1::Availability> for Availability {
    fn from(message: v1::Availability) -> Self {
        match message {
            v1::Availability::Active => Self::Active,
            v1::Availability::Pause => Self::Pause,
            v1::Availability::Drain => Self::Drain,
        }
    }
}

/// An availability as a message has it.
pub fn availability(value: i32) -> Result<Availability, SpecError> {
    v1::Availability::try_from(value).map(Into::into).map_err(|_| {
        SpecError::new("availability", value, "an availability is active, pause or drain")
    })
}

impl From<DataplaneKind> for v1::DataplaneKind {
    fn from(kind: DataplaneKind) -> Self {
        match kind {
            DataplaneKind::Kernel => Self::Kernel,
            DataplaneKind::User => Self::User,
        }
    }
}

impl From<Capabilities> for v1::Capabilities {
    fn from(capabilities: Capabilities) -> Self {
        Self {
            dataplane: v1::DataplaneKind::from(capabilities.dataplane).into(),
            encryption: capabilities.encryption,
            ipv6: capabilities.ipv6,
            level: capabilities.level.get(),
        }
    }
}

impl TryFrom<v1::Capabilities> for Capabilities {
    type Error = SpecError;

    fn try_from(message: v1::Capabilities) -> Result<Self, SpecError> {
        let dataplane = match message.dataplane() {
            v1::DataplaneKind::Kernel => DataplaneKind::Kernel,
            v1::DataplaneKind::User => DataplaneKind::User,
            v1::DataplaneKind::Unspecified => {
                let reason = "a dataplane is kernel or user";
                return Err(SpecError::new("capabilities.dataplane", message.dataplane, reason));
            }
        };
        let level = FeatureLevel::new(message.level);
        Ok(Self { dataplane, encryption: message.encryption, ipv6: message.ipv6, level })
    }
}

impl From<&HostReport> for v1::HostReport {
    fn from(host: &HostReport) -> Self {
        Self {
            kernel: host.kernel.clone(),
            missing: host.missing.clone(),
            data_path_mtu: host.data_path_mtu.into(),
            plain_mtu: host.plain_mtu.into(),
            encrypted_mtu: host.encrypted_mtu.into(),
        }
    }
}

impl TryFrom<v1::HostReport> for HostReport {
    type Error = SpecError;

    fn try_from(message: v1::HostReport) -> Result<Self, SpecError> {
        let mtu = |field, mtu: u32| {
            let refuse = |_| SpecError::new(field, mtu, "an MTU is 65535 at most");
            u16::try_from(mtu).map_err(refuse)
        };
        Ok(Self {
            kernel: message.kernel,
            missing: message.missing,
            data_path_mtu: mtu("host.data_path_mtu", message.data_path_mtu)?,
            plain_mtu: mtu("host.plain_mtu", message.plain_mtu)?,
            encrypted_mtu: mtu("host.encrypted_mtu", message.encrypted_mtu)?,
        })
    }
}

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            meta: Some(node.meta.into()),
            name: node.name.to_string(),
            role: v1::Role::from(node.role).into(),
            control: node.control.to_string(),
            gossip: node.gossip.to_string(),
            data_path: node.data_path.to_string(),
            capabilities: Some(node.capabilities.into()),
            availability: v1::Availability::from(node.availability).into(),
            labels: node.labels.clone(),
            root: node.root.to_string(),
            role_since: node.role_since.get(),
            host: node.host.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = SpecError;

    fn try_from(message: v1::Node) -> Result<Self, SpecError> {
        Ok(Self {
            id: parse("node.id", &message.id)?,
            role: message.role().try_into()?,
            meta: meta(message.meta),
            name: name("node.name", &message.name)?,
            control: parse("node.control", &message.control)?,
            gossip: parse("node.gossip", &message.gossip)?,
            data_path: parse("node.data_path", &message.data_path)?,
            capabilities: required("node.capabilities", message.capabilities)?.try_into()?,
            availability: availability(message.availability)?,
            labels: message.labels,
            root: parse("node.root", &message.root)?,
            role_since: Revision::new(message.role_since),
            host: message.host.map(|host| host.try_into().map(Box::new)).transpose()?,
        })
    }
}
