//! The error of this crate.

use core::{
    fmt::{self, Display},
    net::IpAddr,
};

use overlay_types::{DefaultPool, SpecError, Subnet};

use crate::{
    family::Family,
    usage::{AddressState, SubnetUsage},
};

/// How many items of a list a message shows before it counts the rest.
const SHOWN: usize = 4;

/// A refused call. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// A field of a request makes no sense, in itself or beside another field.
    #[error(transparent)]
    Spec(#[from] SpecError),

    /// The requested subnet is in use.
    #[error("subnet \"{subnet}\" overlaps {occupied} ({owner}); {}", Free(free.as_ref()))]
    Overlap {
        /// What was asked for.
        subnet: Subnet,
        /// What it overlaps.
        occupied: Subnet,
        /// Whose that is, like `network web`.
        owner: String,
        /// The next free subnet of the default pools.
        free: Option<Subnet>,
    },

    /// The default pools have no subnet left.
    #[error(
        "no free {family} subnet in the default address pools ({}){}; give a --subnet",
        List(pools),
        Largest(largest.as_ref())
    )]
    NoFreeSubnet {
        /// Family that was asked for.
        family: Family,
        /// The pools of that family.
        pools: Vec<DefaultPool>,
        /// The largest block that takes up a part of the pools, and whose it is.
        largest: Option<(Subnet, String)>,
    },

    /// Fewer addresses of the network are available than one call asks for.
    #[error("not enough free {family} addresses ({}); release some or add a subnet", List(usage))]
    Exhausted {
        /// Family that was asked for.
        family: Family,
        /// The network's subnets of that family.
        usage: Vec<SubnetUsage>,
    },

    /// The network has no subnet of this family.
    #[error("the network has no {family} subnet; add one")]
    NoSubnet {
        /// Family that was asked for.
        family: Family,
    },

    /// The address lies in none of the network's subnets.
    #[error("address \"{address}\" is in no subnet of the network, which has {}", List(subnets))]
    Outside {
        /// The address.
        address: IpAddr,
        /// The network's subnets.
        subnets: Vec<Subnet>,
    },

    /// The requested address is taken.
    #[error("address \"{address}\" is {state}; {}", Free(free.as_ref()))]
    Taken {
        /// What was asked for.
        address: IpAddr,
        /// What it is used for.
        state: AddressState,
        /// An address of the same family that is free.
        free: Option<IpAddr>,
    },

    /// One call asks for the same address twice.
    #[error("address \"{address}\" is requested twice")]
    RequestedTwice {
        /// The address.
        address: IpAddr,
    },

    /// Only an allocated address can be released.
    #[error("address \"{address}\" cannot be released: it is {state}, not allocated")]
    NotAllocated {
        /// The address.
        address: IpAddr,
        /// What it is.
        state: AddressState,
    },
}

impl IpamError {
    /// Name of the offending field, as `network create` and `endpoint attach` call it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Spec(error) => error.field(),
            Self::Overlap { .. } | Self::NoFreeSubnet { .. } => "subnet",
            Self::Exhausted { .. }
            | Self::NoSubnet { .. }
            | Self::Outside { .. }
            | Self::Taken { .. }
            | Self::RequestedTwice { .. }
            | Self::NotAllocated { .. } => "address",
        }
    }

    /// The offending value; the family where any value of it was asked for.
    pub fn value(&self) -> String {
        match self {
            Self::Spec(error) => error.value().to_owned(),
            Self::Overlap { subnet, .. } => subnet.to_string(),
            Self::NoFreeSubnet { family, .. }
            | Self::Exhausted { family, .. }
            | Self::NoSubnet { family } => family.to_string(),
            Self::Outside { address, .. }
            | Self::Taken { address, .. }
            | Self::RequestedTwice { address }
            | Self::NotAllocated { address, .. } => address.to_string(),
        }
    }
}

struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, item) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

struct Free<T>(Option<T>);

impl<T: Display> Display for Free<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(free) => write!(f, "{free} is free"),
            None => f.write_str("none is free"),
        }
    }
}

struct Largest<'a>(Option<&'a (Subnet, String)>);

impl Display for Largest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((subnet, owner)) => write!(f, ", the largest part taken by {subnet} ({owner})"),
            None => Ok(()),
        }
    }
}
