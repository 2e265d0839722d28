//! What a caller asks for: any of a family, or exactly this one.

use core::{fmt, net::IpAddr};

use overlay_types::Subnet;
use serde::{Deserialize, Serialize};

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Family of a subnet.
    pub const fn of_subnet(subnet: Subnet) -> Self {
        if subnet.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

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
