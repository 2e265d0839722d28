//! Freed addresses that wait before they are handed out again.

use core::net::IpAddr;
use std::collections::{BTreeSet, VecDeque};

use serde::{Serialize, Serializer};

/// Freed addresses of one family of one network, oldest first.
///
/// ```text
///  release ──► [ newest … oldest ] ──► free again, when [`QUARANTINE_LIMIT`] addresses were freed after it
///                    │        └──────► allocated, when no other address is left
///                    └───────────────► allocated, when it is requested by name
/// ```
///
/// Counted in releases, not in time: replicas have no common clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Quarantine {
    queue: VecDeque<IpAddr>,
    members: BTreeSet<IpAddr>,
}

/// Addresses in quarantine, per network and family.
///
/// As many as a /24, the default subnet, has: there addresses are reused strictly in the order in
/// which they were freed. Larger subnets gain further distance from the next-fit cursor. More would
/// weigh on the snapshot: 4 000 networks at 256 addresses are 5 MB already.
pub const QUARANTINE_LIMIT: usize = 256;

impl Quarantine {
    /// The quarantine that serialised to `queue`; the error says what no serialiser writes.
    pub(crate) fn restore(queue: Vec<IpAddr>) -> Result<Self, &'static str> {
        let members: BTreeSet<_> = queue.iter().copied().collect();
        if queue.len() > QUARANTINE_LIMIT || members.len() != queue.len() {
            return Err("the quarantine is too long or holds an address twice");
        }
        Ok(Self { queue: queue.into(), members })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.members.contains(&address)
    }

    /// Adds an address that is not in it; returns the one that has waited long enough, if any.
    pub(crate) fn push(&mut self, address: IpAddr) -> Option<IpAddr> {
        self.queue.push_back(address);
        self.members.insert(address);
        if self.queue.len() > QUARANTINE_LIMIT { self.pop_oldest() } else { None }
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<IpAddr> {
        let oldest = self.queue.pop_front()?;
        self.members.remove(&oldest);
        Some(oldest)
    }

    /// Takes `address` out; whether it was in.
    pub(crate) fn remove(&mut self, address: IpAddr) -> bool {
        let found = self.members.remove(&address);
        if found {
            self.queue.retain(|member| *member != address);
        }
        found
    }

    /// The addresses, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.queue.iter().copied()
    }
}

impl Serialize for Quarantine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.queue)
    }
}
