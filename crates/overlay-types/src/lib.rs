//! What every layer talks about: identifiers, addresses, specs and replicated objects.
//!
//! Owns the vocabulary: a value of a spec or id type is valid, because parsing is the only way to
//! it. Does no I/O, reads no clock, draws no random numbers, and knows no other crate of the
//! workspace.
//!
//! ```text
//! flags, messages ──parse──► NetworkSpec, ServiceSpec, EndpointSpec
//!                                    │ replicated, made whole (ids, addresses, VNI)
//!                                    ▼
//!                  Network, Service, Endpoint, Node, KeyEpoch ──Change──► View
//! ```
//!
//! - [`id`]: ids of clusters, nodes, networks, services, endpoints, requests, roots
//! - [`feature`]: what a release knows
//! - [`health`]: how a node finds out whether an endpoint can take traffic
//! - [`number`]: VNI, SPI, epoch, revision, incarnation
//! - [`mac`], [`subnet`], [`name`]: addresses and names
//! - [`unicast`]: which subnets endpoints can live in
//! - [`label`]: bounds of labels
//! - [`port`]: published ports, in both grammars
//! - [`network`], [`service`], [`endpoint`]: what users ask for
//! - [`object`]: what the cluster made of it, and changes to it
//! - [`view`]: the objects that a node holds
//! - [`error`]: the error that points at the offending part of an input

pub mod endpoint;
pub mod error;
pub mod feature;
pub mod health;
pub mod id;
pub mod label;
pub mod mac;
pub mod mtu;
pub mod name;
pub mod network;
pub mod number;
pub mod object;
pub mod port;
pub mod service;
pub mod subnet;
pub mod unicast;
pub mod view;

pub use endpoint::{Addresses, EndpointDraft, EndpointSpec};
pub use error::SpecError;
pub use feature::FeatureLevel;
pub use health::{HealthCheck, HealthDraft, HealthProbe};
pub use id::{ClusterId, EndpointId, NetworkId, NodeId, RequestId, RootId, ServiceId};
pub use mac::MacAddr;
pub use name::Name;
pub use network::{NetworkDraft, NetworkSpec, SubnetSpec};
pub use number::{Epoch, Incarnation, Revision, Spi, Vni};
pub use object::{
    Availability, Capabilities, Change, Cluster, DataplaneKind, DefaultPool, Encapsulation,
    Endpoint, EndpointRole, EpochState, GossipKey, GossipKeys, HostReport, KeyEpoch, Meta, Network,
    NetworkSubnet, Node, NodeKey, Object, ObjectKey, Readiness, Role, Root, Service, UnixMillis,
};
pub use port::{PortSpec, Protocol, PublishMode};
pub use service::{EndpointMode, Scale, ServiceDraft, ServiceNetwork, ServiceSpec};
pub use subnet::Subnet;
pub use view::View;
