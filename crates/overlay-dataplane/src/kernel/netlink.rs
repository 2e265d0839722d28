//! Netlink as this dataplane speaks it (RFC 3549): messages and attributes are bytes, built and read
//! without a socket; the socket sends many in one call and keeps the kernel's own words in errors.

mod attribute;
pub(super) mod family;
#[cfg(test)]
pub(super) mod fuse;
mod message;
mod reply;
mod socket;

pub(super) use attribute::{Attributes, text};
pub(super) use message::Message;
pub use reply::Refusal;
pub(super) use reply::{Reply, replies};
pub(super) use socket::{RouteSocket, close, with_buffer};
