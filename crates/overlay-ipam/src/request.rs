//! What a caller asks for: any of a family, or exactly this one.

use core::net::IpAddr;

use overlay_types::Subnet;
use serde::{Deserialize, Serialize};

use crate::family::Family;

/// A wish for a `T` (an [`IpAddr`] or a [`Subnet`]); part of replicated commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request<T> {
    /// Whichever of this family is next.
    Any(Family),
    /// This one or an error.
    Exactly(T),
}

impl<T> From<Family> for Request<T> {
    fn from(family: Family) -> Self {
        Self::Any(family)
    }
}

impl From<IpAddr> for Request<IpAddr> {
    fn from(address: IpAddr) -> Self {
        Self::Exactly(address)
    }
}

impl From<Subnet> for Request<Subnet> {
    fn from(subnet: Subnet) -> Self {
        Self::Exactly(subnet)
    }
}
