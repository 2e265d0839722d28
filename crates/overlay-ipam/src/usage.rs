//! What the addresses of a subnet are used for.

use core::fmt;

use overlay_types::{Name, Subnet};
use serde::{Deserialize, Serialize};

/// What one address is.
///
/// ```text
///              allocate                  release
///   free ───────────────────► allocated ─────────► quarantined
///    ▲                            ▲                  │     │
///    │                            └──────────────────┘     │
///    │             requested, or nothing else is left      │
///    └─────────────────────────────────────────────────────┘
///                  enough others were released after it
///
///   reserved   from the start and for good
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressState {
    /// Nobody's.
    Free,
    /// Somebody has it.
    Allocated,
    /// It was released a short while ago.
    Quarantined,
    /// It is never handed out.
    Reserved(Reservation),
}

/// Why an address is never handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// The IPv4 address of the subnet itself: the host bits are zero.
    Network,
    /// The IPv4 broadcast address: the host bits are ones.
    Broadcast,
    /// The IPv6 subnet-router anycast address (RFC 4291 §2.6.1): the host bits are zero.
    RouterAnycast,
    /// The gateway.
    Gateway,
    /// Used by something else, known under this name.
    Aux(Name),
}

impl fmt::Display for AddressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::Allocated => f.write_str("in use"),
            Self::Quarantined => f.write_str("in quarantine"),
            Self::Reserved(reservation) => reservation.fmt(f),
        }
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("the address of the subnet itself"),
            Self::Broadcast => f.write_str("the broadcast address"),
            Self::RouterAnycast => f.write_str("the subnet-router anycast address"),
            Self::Gateway => f.write_str("the gateway"),
            Self::Aux(name) => write!(f, "the aux address {name}"),
        }
    }
}

/// Exact count of the addresses of one subnet:
/// `size = used + reserved + quarantined + free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetUsage {
    /// The subnet.
    pub subnet: Subnet,
    /// All its addresses.
    pub size: u128,
    /// Allocated ones.
    pub used: u128,
    /// Those that are never handed out: network, broadcast, anycast, gateway, aux.
    pub reserved: u128,
    /// Released ones that wait.
    pub quarantined: u128,
    /// The others.
    pub free: u128,
    /// Free or quarantined ones in the `ip-range`: what a request for *any* address can get.
    pub available: u128,
}

/// Quarantined addresses of the `ip-range` show as free: they can be had.
impl fmt::Display for SubnetUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subnet, used, reserved, quarantined, free, available, .. } = self;
        write!(f, "{subnet}: {used} used, {reserved} reserved, ")?;
        match (available, free + quarantined - available) {
            (available, 0) => write!(f, "{available} free"),
            (0, outside) => write!(f, "{outside} free outside its ip-range"),
            (available, outside) => {
                write!(f, "{available} free, {outside} more outside its ip-range")
            }
        }
    }
}
