//! The `overlay.v1` protocol: generated messages and services, conversions from and to the types
//! of [`overlay_types`], and a client for the unix socket of a node.
//!
//! Owns the wire form of every object and call. Decides nothing: a message that converts is as
//! valid as a value that was parsed from text, and one that does not is refused with the name of
//! the field and its value.
//!
//! ```text
//! overlayctl, orchestrators ──► v1 (messages, stubs) ◄──convert──► overlay_types
//! managers among themselves ──► internal::v1 ◄── overlay-cluster
//! ```
//!
//! - [`v1`]: what users call; documented in `proto/overlay/v1/*.proto`
//! - [`internal`]: what managers say to one another and keep on disk
//! - [`convert`]: between messages and the types of every layer
//! - `codec`: how messages are encoded
//! - [`client`]: a channel to a node's unix socket, lists page by page, and many writes over one call
//! - [`status`]: refusals as gRPC statuses, with field, value and reason code

#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("overlay.v1");
}

/// The `.proto` files of [`v1`], with their comments: a `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("overlay.v1");

/// What managers store and send to one another: commands, raft's records, snapshots.
pub mod internal {
    #[allow(
        missing_docs,
        unused_qualifications,
        clippy::all,
        clippy::pedantic,
        reason = "generated; documented in the .proto files"
    )]
    pub mod v1 {
        tonic::include_proto!("overlay.internal.v1");
    }
}

pub mod client;
pub mod codec;
pub mod convert;
pub mod status;
