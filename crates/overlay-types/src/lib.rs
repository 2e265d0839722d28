//! What every layer talks about: identifiers, addresses, specs and replicated objects.
//!
//! Owns the vocabulary: a value of a type of this crate is valid, because parsing is the only way
//! to it. Does no I/O, reads no clock, draws no random numbers, and knows no other crate of the
//! workspace.
//!
//! - [`id`]: ids of clusters, nodes, networks, services, endpoints, requests
//! - [`number`]: VNI, SPI, epoch, revision, incarnation
//! - [`mac`], [`subnet`], [`name`]: addresses and names
//! - [`error`]: the error that points at the offending part of an input

pub mod error;
pub mod id;
pub mod mac;
pub mod name;
pub mod number;
pub mod subnet;

pub use error::SpecError;
pub use id::{ClusterId, EndpointId, NetworkId, NodeId, RequestId, ServiceId};
pub use mac::MacAddr;
pub use name::Name;
pub use number::{Epoch, Incarnation, Revision, Spi, Vni};
pub use subnet::Subnet;
