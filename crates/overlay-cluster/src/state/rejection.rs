//! Why a command was refused.

mod class;
mod epoch_target;
mod list;
mod made;

use std::borrow::Cow;

use overlay_types::{
    Availability, DataplaneKind, EndpointId, Epoch, EpochState, FeatureLevel, MacAddr, Name,
    NodeId, PortSpec, RequestId, Revision, RootId, Vni,
};
use serde::{Deserialize, Serialize};

pub use class::Class;
pub use epoch_target::EpochTarget;
pub(super) use list::some_of;

use self::list::List;
use super::kind::Kind;

/// A command that was refused. It changed nothing.
///
/// Part of the replicated answer, so every replica says the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// The state belongs to no cluster yet.
    #[error("this node is in no cluster; run init or join first")]
    NoCluster,

    /// The state belongs to a cluster already.
    #[error("the cluster {cluster} exists already; leave it before making another")]
    ClusterExists {
        /// Its id.
        cluster: String,
    },

    /// There is no unlock key to rotate.
    #[error("managers are not locked; lock them first: overlayctl update --autolock=true")]
    NotLocked,

    /// No object answers to what was given.
    #[error("no {kind} {wanted:?}")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Name, id or prefix as it was given.
        wanted: String,
    },

    /// Several objects answer to what was given.
    #[error("{kind} {wanted:?} could be {}; give more of the id", List(candidates))]
    Ambiguous {
        /// What was looked for.
        kind: Kind,
        /// Name or prefix as it was given.
        wanted: String,
        /// `NAME (ID)` of each.
        candidates: Vec<String>,
    },

    /// The name is taken; case does not make it another.
    #[error("{kind} {name:?} exists already (id {id}); choose another name")]
    NameTaken {
        /// What was to be created.
        kind: Kind,
        /// The name.
        name: Name,
        /// Who has it.
        id: String,
    },

    /// The id is taken: a caller that draws ids at random never sees this.
    #[error("{kind} {id} exists already")]
    IdTaken {
        /// What was to be created.
        kind: Kind,
        /// The id.
        id: String,
    },

    /// The request makes no sense.
    #[error("{field} {value:?}: {reason}")]
    Invalid {
        /// The field as its user knows it.
        field: Cow<'static, str>,
        /// The offending value.
        value: String,
        /// What would be right.
        reason: String,
    },

    /// The id of a write was used for another write before.
    #[error("request id {request} was used for another call; draw a new one")]
    RequestReused {
        /// The id.
        request: RequestId,
    },

    /// The write was applied before, and what it made or changed is gone.
    #[error(
        "request {request} was applied before, and {kind} {id} was removed since; draw a new \
         request id to do it again"
    )]
    Undone {
        /// The id of the write.
        request: RequestId,
        /// What is gone.
        kind: Kind,
        /// Its id.
        id: String,
    },

    /// The update was made from an old object.
    #[error(
        "{kind} {name:?} was changed at revision {changed_at}, the update is based on \
         {based_on}; read it again and repeat"
    )]
    Stale {
        /// What was to be updated.
        kind: Kind,
        /// Its name.
        name: Name,
        /// What the update was made from.
        based_on: Revision,
        /// Revision of the last change.
        changed_at: Revision,
    },

    /// There are as many as there may be.
    #[error("the cluster has {limit} of kind {kind}, which is the limit; remove some")]
    TooMany {
        /// What was to be created.
        kind: Kind,
        /// The limit.
        limit: usize,
    },

    /// IPAM said no.
    #[error("{message}")]
    Addresses {
        /// What sort of trouble.
        class: Class,
        /// The field, as its user knows it.
        field: Cow<'static, str>,
        /// The offending value, or the address family.
        value: String,
        /// IPAM's words.
        message: String,
    },

    /// The network is used.
    #[error("network {network:?} is in use by {}; {remedy}", List(users))]
    NetworkInUse {
        /// Its name.
        network: Name,
        /// Endpoints and services.
        users: Vec<String>,
        /// What to do.
        remedy: Cow<'static, str>,
    },

    /// There is an ingress network already.
    #[error("network {name:?} is the ingress network; a cluster has one: remove it first")]
    IngressExists {
        /// Its name.
        name: Name,
    },

    /// A service publishes through the routing mesh, which is not there.
    #[error(
        "port {port} needs an ingress network and there is none; create one with \
         network create --ingress, or publish with mode=host"
    )]
    NoIngress {
        /// The port.
        port: PortSpec,
    },

    /// The network takes tasks of services only.
    #[error(
        "network {network:?} takes no standalone endpoints{}",
        if *ingress { ": it is the ingress network" } else { "; create it with --attachable" }
    )]
    NotAttachable {
        /// Its name.
        network: Name,
        /// It is the ingress network.
        ingress: bool,
    },

    /// A task wants to a network that its service is not on.
    #[error(
        "service {service:?} is not on network {network:?} but on {}; add the network to the \
         service first",
        List(networks)
    )]
    ServiceNotOnNetwork {
        /// The service.
        service: Name,
        /// The network.
        network: Name,
        /// Networks that the service is on.
        networks: Vec<String>,
    },

    /// The service has tasks.
    #[error("service {service:?} has tasks attached: {}; detach them first", List(endpoints))]
    ServiceInUse {
        /// Its name.
        service: Name,
        /// The tasks.
        endpoints: Vec<String>,
    },

    /// The node cannot do what the network needs (N19).
    #[error(
        "node {node:?} ({dataplane} dataplane) lacks {capability}, which network {network:?} needs"
    )]
    MissingCapability {
        /// The node's name.
        node: Name,
        /// Its dataplane.
        dataplane: DataplaneKind,
        /// What it lacks: `encryption` or `ipv6`.
        capability: Cow<'static, str>,
        /// The network.
        network: Name,
    },

    /// A node has one place in the routing mesh, and keeps it.
    #[error(
        "endpoint {endpoint} is the place of node {node:?} in the routing mesh; a node has one, and \
         it goes with the ingress network or with the node"
    )]
    MeshEndpoint {
        /// The endpoint.
        endpoint: EndpointId,
        /// The node's name.
        node: String,
    },

    /// Some node would not understand it.
    #[error(
        "this needs feature level {needed} on every node, and the cluster is at {level} because of \
         {}; install this release on them, or remove them",
        List(nodes)
    )]
    ClusterBehind {
        /// What it needs.
        needed: FeatureLevel,
        /// What the cluster has.
        level: FeatureLevel,
        /// Nodes of a lower level.
        nodes: Vec<String>,
    },

    /// The node would not understand what the cluster does.
    #[error(
        "the release on node {node:?} knows feature level {level}, and the cluster is at {needed}; \
         install the release of the other nodes on it"
    )]
    NodeBehind {
        /// The node's name.
        node: Name,
        /// What it knows.
        level: FeatureLevel,
        /// What the cluster has.
        needed: FeatureLevel,
    },

    /// The requested VNI is taken.
    #[error("vni \"{vni}\" is that of network {network:?}; {free} is free")]
    VniTaken {
        /// The VNI.
        vni: Vni,
        /// Whose it is.
        network: Name,
        /// One that is free.
        free: Vni,
    },

    /// The requested Ethernet address is taken.
    #[error("mac \"{mac}\" is that of endpoint {endpoint} on the same network; choose another")]
    MacTaken {
        /// The address.
        mac: MacAddr,
        /// Whose it is.
        endpoint: String,
    },

    /// The port is published by somebody else.
    #[error(
        "port {port} is published by {holder}; choose another published port, or leave it out \
         to get one from 30000-32767"
    )]
    PortTaken {
        /// The port as it was asked for.
        port: PortSpec,
        /// Who has it.
        holder: String,
    },

    /// No port is left to choose.
    #[error("every {protocol} port of 30000-32767 is published; name a free one for {port}")]
    NoFreePort {
        /// The port as it was asked for.
        port: PortSpec,
        /// Its protocol.
        protocol: String,
    },

    /// The cluster would be left without a manager.
    #[error(
        "node {node:?} is the only manager; promote another first (overlayctl node promote), or end \
         the cluster with leave --force on its nodes"
    )]
    LastManager {
        /// Its name.
        node: Name,
    },

    /// A manager cannot be removed as it is.
    #[error("node {node:?} is a manager; demote it first (overlayctl node demote {node})")]
    NodeIsManager {
        /// Its name.
        node: Name,
    },

    /// The node takes no endpoints.
    #[error(
        "node {node:?} takes no endpoints: its availability is {availability}; attach to another, \
         or set it to active (overlayctl node update --availability active {node})"
    )]
    NodeNotActive {
        /// Its name.
        node: Name,
        /// Its availability.
        availability: Availability,
    },

    /// A rotation is under way.
    #[error("key epoch {epoch} is {state}; a rotation ends before the next one starts")]
    RotationRunning {
        /// The epoch.
        epoch: Epoch,
        /// How far it is.
        state: EpochState,
    },

    /// The step was taken by somebody else, or is not the next one.
    #[error("key epoch {epoch} is {found}, so it cannot become {wanted}")]
    EpochStep {
        /// The epoch.
        epoch: Epoch,
        /// Its state.
        found: EpochState,
        /// What it was to become.
        wanted: EpochTarget,
    },

    /// The number is not the next one: another leader was faster.
    #[error("the next epoch is {next}, not {given}; read again and repeat")]
    EpochNumber {
        /// The next number.
        next: Epoch,
        /// What the command said.
        given: Epoch,
    },

    /// A node reported an epoch that it published no key or another key for, or which waits for
    /// keys.
    #[error("node {node} cannot be ready for key epoch {epoch}: {reason}")]
    NotReady {
        /// The node.
        node: NodeId,
        /// The epoch.
        epoch: Epoch,
        /// What is missing.
        reason: Cow<'static, str>,
    },

    /// The root is none that nodes trust now, or not the one that the step is about.
    #[error("root {given} is not {wanted} any more; the roots changed meanwhile: repeat it")]
    RootChanged {
        /// The root.
        given: RootId,
        /// What it should be.
        wanted: Cow<'static, str>,
    },

    /// A root rotation waits for nodes.
    #[error("the root rotation waits for certificates of nodes: {}", List(nodes))]
    RootInUse {
        /// Their names.
        nodes: Vec<String>,
    },

    /// The root was replaced so often while nodes were away that it would not go on for ever.
    #[error(
        "{limit} root rotations wait already, for nodes: {}; start these, or remove them \
         (overlayctl node rm), and the rotation ends",
        List(nodes)
    )]
    TooManyRoots {
        /// Most roots under way.
        limit: usize,
        /// Names of the nodes.
        nodes: Vec<String>,
    },
}
