//! Commands.

use core::time::Duration;
use std::collections::BTreeSet;

use overlay_api::{
    convert::{bytes32, parse, readiness},
    internal::v1::{self as pb, command::Action as Message},
    v1,
};
use overlay_types::{
    EndpointId, Epoch, EpochState, FeatureLevel, GossipKey, Revision, SpecError, Subnet, UnixMillis,
};

use super::{WireError, reading, required};
use crate::state::{
    Action, ClusterUpdate, Command, HealthReport, InitCluster, Kind, MoveNode, OpaqueSecret,
    Rejection, Successor, Trust, Wanted,
};

pub(super) const COMMAND: &str = "command";

impl From<&Command> for pb::Command {
    fn from(command: &Command) -> Self {
        Self {
            request: command.request.to_string(),
            at: command.at.0,
            action: Some((&command.action).into()),
        }
    }
}

impl TryFrom<pb::Command> for Command {
    type Error = WireError;

    fn try_from(message: pb::Command) -> Result<Self, WireError> {
        Ok(Self {
            request: reading(COMMAND, parse("request", &message.request))?,
            at: UnixMillis(message.at),
            action: required(COMMAND, "action", message.action)?.try_into()?,
        })
    }
}

impl From<&Action> for Message {
    fn from(action: &Action) -> Self {
        match action {
            Action::InitCluster(init) => Self::InitCluster((&**init).into()),
            Action::JoinNode(node) => Self::JoinNode(node.into()),
            Action::UpdateNode { node, based_on } => Self::UpdateNode(pb::UpdateNode {
                node: Some(node.into()),
                based_on: based_on.get(),
            }),
            Action::MoveNode(to) => Self::MoveNode(to.into()),
            Action::RemoveNode(id) => Self::RemoveNode(id.to_string()),
            Action::CreateNetwork { id, spec, host_routes } => {
                Self::CreateNetwork(pb::CreateNetwork {
                    id: id.to_string(),
                    spec: Some(spec.into()),
                    host_routes: texts(host_routes),
                })
            }
            Action::UpdateNetwork { id, based_on, spec, host_routes } => {
                Self::UpdateNetwork(pb::UpdateNetwork {
                    id: id.to_string(),
                    based_on: based_on.get(),
                    spec: Some(spec.into()),
                    host_routes: texts(host_routes),
                })
            }
            Action::RemoveNetwork(wanted) => Self::RemoveNetwork(wanted.to_string()),
            Action::CreateService { id, spec } => Self::CreateService(pb::CreateService {
                id: id.to_string(),
                spec: Some(spec.into()),
            }),
            Action::UpdateService { id, based_on, spec } => {
                Self::UpdateService(pb::UpdateService {
                    id: id.to_string(),
                    based_on: based_on.get(),
                    spec: Some(spec.into()),
                })
            }
            Action::RemoveService(wanted) => Self::RemoveService(wanted.to_string()),
            Action::RotateJoinSecret { role, secret } => {
                Self::RotateJoinSecret(pb::RotateJoinSecret {
                    role: v1::Role::from(*role).into(),
                    secret: secret.0.clone(),
                })
            }
            Action::UpdateCluster(update) => Self::UpdateCluster(update.into()),
            Action::RotateUnlockKey(key) => Self::RotateUnlockKey(key.0.clone()),
            Action::AnnounceLevel { node, level } => Self::AnnounceLevel(pb::AnnounceLevel {
                node: node.to_string(),
                level: level.get(),
            }),
            Action::AnnounceCapabilities { node, capabilities, host } => {
                Self::AnnounceCapabilities(pb::AnnounceCapabilities {
                    node: node.to_string(),
                    capabilities: Some((*capabilities).into()),
                    host: Some((&**host).into()),
                })
            }
            Action::RotateRoot { replaces, root, successor } => Self::RotateRoot(pb::RotateRoot {
                replaces: replaces.to_string(),
                root: Some(root.into()),
                successor: Some(successor.into()),
            }),
            Action::NoteCertificate { node, root } => Self::NoteCertificate(pb::NoteCertificate {
                node: node.to_string(),
                root: root.to_string(),
            }),
            Action::FinishRootRotation(root) => Self::FinishRootRotation(root.to_string()),
            others => of_endpoint_action(others),
        }
    }
}

impl From<&ClusterUpdate> for pb::UpdateCluster {
    fn from(update: &ClusterUpdate) -> Self {
        let lock = |key: &Option<OpaqueSecret>| pb::Autolock {
            unlock_key: key.as_ref().map(|key| key.0.clone()),
        };
        let millis = |period: Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Self {
            autolock: update.autolock.as_ref().map(lock),
            rotation_period_ms: update.rotation_period.map(millis),
        }
    }
}

impl From<pb::UpdateCluster> for ClusterUpdate {
    fn from(message: pb::UpdateCluster) -> Self {
        Self {
            autolock: message.autolock.map(|lock| lock.unlock_key.map(OpaqueSecret)),
            rotation_period: message.rotation_period_ms.map(Duration::from_millis),
        }
    }
}

/// The message of an action on endpoints.
fn of_endpoint_action(action: &Action) -> Message {
    match action {
        Action::AttachEndpoint { id, spec } => Message::AttachEndpoint(pb::AttachEndpoint {
            id: id.to_string(),
            spec: Some(spec.into()),
        }),
        Action::DetachEndpoint(id) => Message::DetachEndpoint(id.to_string()),
        Action::SetReadiness { id, to } => Message::SetReadiness(pb::SetReadiness {
            id: id.to_string(),
            readiness: v1::Readiness::from(*to).into(),
        }),
        Action::ReportHealth(report) => Message::ReportHealth(report.into()),
        keys => of_key_action(keys),
    }
}

/// The message of an action on keys.
fn of_key_action(action: &Action) -> Message {
    match action {
        Action::PublishNodeKey { node, epoch, public } => {
            Message::PublishNodeKey(pb::PublishNodeKey {
                node: node.to_string(),
                epoch: epoch.get(),
                public: public.to_vec(),
            })
        }
        Action::ReportEpochReady { node, epoch, public } => {
            Message::ReportEpochReady(pb::ReportEpochReady {
                node: node.to_string(),
                epoch: epoch.get(),
                public: public.to_vec(),
            })
        }
        Action::StartRotation { epoch, deadline } => {
            Message::StartRotation(pb::StartRotation { epoch: epoch.get(), deadline: deadline.0 })
        }
        Action::AdvanceEpoch { epoch, to, deadline, drained } => {
            Message::AdvanceEpoch(pb::AdvanceEpoch {
                epoch: epoch.get(),
                to: v1::EpochState::from(*to).into(),
                deadline: deadline.0,
                drained: drained.0,
            })
        }
        Action::RemoveEpoch(epoch) => Message::RemoveEpoch(epoch.get()),
        Action::RotateGossipKey { key, deadline } => {
            Message::RotateGossipKey(pb::RotateGossipKey {
                key: Some(of_gossip_key(key)),
                deadline: deadline.0,
            })
        }
        Action::AdvanceGossipKey { to, deadline } => {
            Message::AdvanceGossipKey(pb::AdvanceGossipKey {
                epoch: to.get(),
                deadline: deadline.0,
            })
        }
        objects => objects.into(),
    }
}

impl TryFrom<Message> for Action {
    type Error = WireError;

    fn try_from(message: Message) -> Result<Self, WireError> {
        Ok(match message {
            Message::InitCluster(m) => Self::InitCluster(Box::new(m.try_into()?)),
            Message::JoinNode(m) => Self::JoinNode(reading(COMMAND, m.try_into())?),
            Message::UpdateNode(m) => Self::UpdateNode {
                node: reading(COMMAND, required(COMMAND, "node", m.node)?.try_into())?,
                based_on: Revision::new(m.based_on),
            },
            Message::MoveNode(m) => Self::MoveNode(reading(COMMAND, m.try_into())?),
            Message::RemoveNode(id) => Self::RemoveNode(reading(COMMAND, parse("id", &id))?),
            Message::AnnounceLevel(m) => Self::AnnounceLevel {
                node: reading(COMMAND, parse("node", &m.node))?,
                level: FeatureLevel::new(m.level),
            },
            Message::AnnounceCapabilities(m) => announcement(m)?,
            Message::CreateNetwork(m) => Self::CreateNetwork {
                id: reading(COMMAND, parse("id", &m.id))?,
                spec: reading(COMMAND, required(COMMAND, "spec", m.spec)?.try_into())?,
                host_routes: subnets(&m.host_routes)?,
            },
            Message::UpdateNetwork(m) => Self::UpdateNetwork {
                id: reading(COMMAND, parse("id", &m.id))?,
                based_on: Revision::new(m.based_on),
                spec: reading(COMMAND, required(COMMAND, "spec", m.spec)?.try_into())?,
                host_routes: subnets(&m.host_routes)?,
            },
            Message::RemoveNetwork(text) => Self::RemoveNetwork(wanted(Kind::Network, text)?),
            Message::CreateService(m) => Self::CreateService {
                id: reading(COMMAND, parse("id", &m.id))?,
                spec: reading(COMMAND, required(COMMAND, "spec", m.spec)?.try_into())?,
            },
            Message::UpdateService(m) => Self::UpdateService {
                id: reading(COMMAND, parse("id", &m.id))?,
                based_on: Revision::new(m.based_on),
                spec: reading(COMMAND, required(COMMAND, "spec", m.spec)?.try_into())?,
            },
            Message::RemoveService(text) => Self::RemoveService(wanted(Kind::Service, text)?),
            Message::AttachEndpoint(m) => Self::AttachEndpoint {
                id: reading(COMMAND, parse("id", &m.id))?,
                spec: reading(COMMAND, required(COMMAND, "spec", m.spec)?.try_into())?,
            },
            Message::DetachEndpoint(id) => {
                Self::DetachEndpoint(reading(COMMAND, parse("id", &id))?)
            }
            Message::SetReadiness(m) => Self::SetReadiness {
                id: reading(COMMAND, parse("id", &m.id))?,
                to: reading(COMMAND, readiness("readiness", m.readiness))?,
            },
            Message::ReportHealth(m) => Self::ReportHealth(reading(COMMAND, m.try_into())?),
            Message::RotateJoinSecret(m) => Self::RotateJoinSecret {
                role: reading(COMMAND, m.role().try_into())?,
                secret: OpaqueSecret(m.secret),
            },
            Message::UpdateCluster(m) => Self::UpdateCluster(m.into()),
            Message::RotateUnlockKey(key) => Self::RotateUnlockKey(OpaqueSecret(key)),
            Message::RotateRoot(m) => Self::RotateRoot {
                replaces: reading(COMMAND, parse("replaces", &m.replaces))?,
                root: reading(COMMAND, required(COMMAND, "root", m.root)?.try_into())?,
                successor: required(COMMAND, "successor", m.successor)?.into(),
            },
            Message::NoteCertificate(m) => Self::NoteCertificate {
                node: reading(COMMAND, parse("node", &m.node))?,
                root: reading(COMMAND, parse("root", &m.root))?,
            },
            Message::FinishRootRotation(id) => {
                Self::FinishRootRotation(reading(COMMAND, parse("id", &id))?)
            }
            keys => return to_key_action(keys),
        })
    }
}

/// What a node says of itself.
fn announcement(message: pb::AnnounceCapabilities) -> Result<Action, WireError> {
    let capabilities = required(COMMAND, "capabilities", message.capabilities)?;
    let host = required(COMMAND, "host", message.host)?;
    Ok(Action::AnnounceCapabilities {
        node: reading(COMMAND, parse("node", &message.node))?,
        capabilities: reading(COMMAND, capabilities.try_into())?,
        host: Box::new(reading(COMMAND, host.try_into())?),
    })
}

/// The action on keys of a message.
fn to_key_action(message: Message) -> Result<Action, WireError> {
    Ok(match message {
        Message::PublishNodeKey(m) => Action::PublishNodeKey {
            node: reading(COMMAND, parse("node", &m.node))?,
            epoch: Epoch::new(m.epoch),
            public: reading(COMMAND, bytes32("public", &m.public))?,
        },
        Message::ReportEpochReady(m) => Action::ReportEpochReady {
            node: reading(COMMAND, parse("node", &m.node))?,
            epoch: Epoch::new(m.epoch),
            public: reading(COMMAND, bytes32("public", &m.public))?,
        },
        Message::StartRotation(m) => {
            Action::StartRotation { epoch: Epoch::new(m.epoch), deadline: UnixMillis(m.deadline) }
        }
        Message::AdvanceEpoch(m) => Action::AdvanceEpoch {
            epoch: Epoch::new(m.epoch),
            to: reading(COMMAND, EpochState::try_from(m.to()))?,
            deadline: UnixMillis(m.deadline),
            drained: UnixMillis(m.drained),
        },
        Message::RemoveEpoch(epoch) => Action::RemoveEpoch(Epoch::new(epoch)),
        Message::RotateGossipKey(m) => Action::RotateGossipKey {
            key: reading(COMMAND, gossip_key(&required(COMMAND, "key", m.key)?))?,
            deadline: UnixMillis(m.deadline),
        },
        Message::AdvanceGossipKey(m) => {
            Action::AdvanceGossipKey { to: Epoch::new(m.epoch), deadline: UnixMillis(m.deadline) }
        }
        objects => return objects.try_into(),
    })
}

impl From<&MoveNode> for pb::MoveNode {
    fn from(to: &MoveNode) -> Self {
        Self {
            node: to.node.to_string(),
            control: to.control.to_string(),
            gossip: to.gossip.to_string(),
            data_path: to.data_path.to_string(),
            vacated: to.vacated.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<pb::MoveNode> for MoveNode {
    type Error = SpecError;

    fn try_from(message: pb::MoveNode) -> Result<Self, SpecError> {
        Ok(Self {
            node: parse("node", &message.node)?,
            control: parse("control", &message.control)?,
            gossip: parse("gossip", &message.gossip)?,
            data_path: parse("data_path", &message.data_path)?,
            vacated: message
                .vacated
                .iter()
                .map(|id| parse("vacated", id))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&HealthReport> for pb::ReportHealth {
    fn from(report: &HealthReport) -> Self {
        let ids = |ids: &BTreeSet<EndpointId>| ids.iter().map(ToString::to_string).collect();
        Self {
            node: report.node.to_string(),
            passing: ids(&report.passing),
            failing: ids(&report.failing),
        }
    }
}

impl TryFrom<pb::ReportHealth> for HealthReport {
    type Error = SpecError;

    fn try_from(message: pb::ReportHealth) -> Result<Self, SpecError> {
        let ids = |field, texts: &[String]| {
            texts.iter().map(|text| parse(field, text)).collect::<Result<_, SpecError>>()
        };
        Ok(Self {
            node: parse("node", &message.node)?,
            passing: ids("passing", &message.passing)?,
            failing: ids("failing", &message.failing)?,
        })
    }
}

impl From<&InitCluster> for pb::InitCluster {
    fn from(init: &InitCluster) -> Self {
        Self {
            cluster: Some((&init.cluster).into()),
            trust: Some((&init.trust).into()),
            unlock_key: init.unlock_key.as_ref().map(|key| key.0.clone()),
            node: Some((&init.node).into()),
            gossip_key: Some(of_gossip_key(&init.gossip_key)),
            ingress: init.ingress.to_string(),
            host_routes: texts(&init.host_routes),
        }
    }
}

impl TryFrom<pb::InitCluster> for InitCluster {
    type Error = WireError;

    fn try_from(message: pb::InitCluster) -> Result<Self, WireError> {
        let key = required(COMMAND, "gossip_key", message.gossip_key)?;
        let cluster = required(COMMAND, "cluster", message.cluster)?;
        Ok(Self {
            cluster: reading(COMMAND, cluster.try_into())?,
            trust: reading(COMMAND, required(COMMAND, "trust", message.trust)?.try_into())?,
            unlock_key: message.unlock_key.map(OpaqueSecret),
            node: reading(COMMAND, required(COMMAND, "node", message.node)?.try_into())?,
            gossip_key: reading(COMMAND, gossip_key(&key))?,
            ingress: reading(COMMAND, parse("ingress", &message.ingress))?,
            host_routes: subnets(&message.host_routes)?,
        })
    }
}

impl From<&Trust> for pb::Trust {
    fn from(trust: &Trust) -> Self {
        Self {
            root_certificate: trust.root_certificate.clone(),
            private_key: trust.private_key.clone(),
            worker_secret: trust.worker_secret.clone(),
            manager_secret: trust.manager_secret.clone(),
            successor: trust.successor.as_ref().map(Into::into),
            former_roots: trust.former_roots.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<pb::Trust> for Trust {
    type Error = SpecError;

    fn try_from(message: pb::Trust) -> Result<Self, SpecError> {
        let former_roots = message.former_roots.iter().map(|id| parse("former_roots", id));
        Ok(Self {
            root_certificate: message.root_certificate,
            private_key: message.private_key,
            worker_secret: message.worker_secret,
            manager_secret: message.manager_secret,
            successor: message.successor.map(Into::into),
            former_roots: former_roots.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Successor> for pb::Successor {
    fn from(successor: &Successor) -> Self {
        Self {
            root_certificate: successor.root_certificate.clone(),
            private_key: successor.private_key.clone(),
        }
    }
}

impl From<pb::Successor> for Successor {
    fn from(message: pb::Successor) -> Self {
        Self { root_certificate: message.root_certificate, private_key: message.private_key }
    }
}

fn wanted(kind: Kind, text: String) -> Result<Wanted, WireError> {
    let refuse = |why: Rejection| SpecError::new("wanted", "", why.to_string());
    reading(COMMAND, Wanted::new(kind, text).map_err(refuse))
}

fn texts(subnets: &[Subnet]) -> Vec<String> {
    subnets.iter().map(ToString::to_string).collect()
}

fn subnets(texts: &[String]) -> Result<Vec<Subnet>, WireError> {
    let subnets = texts.iter().map(|text| Subnet::parse("host_routes", text));
    reading(COMMAND, subnets.collect())
}

fn of_gossip_key(key: &GossipKey) -> v1::GossipKey {
    v1::GossipKey { epoch: key.epoch.get(), key: key.key.to_vec() }
}

fn gossip_key(message: &v1::GossipKey) -> Result<GossipKey, SpecError> {
    Ok(GossipKey { epoch: Epoch::new(message.epoch), key: bytes32("key", &message.key)? })
}
