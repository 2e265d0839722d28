//! One subnet of a network: its layout and which of its addresses are taken.

mod layout;

use core::net::IpAddr;

use overlay_types::{SpecError, Subnet, SubnetSpec};
use serde::{Deserialize, Serialize};

use self::layout::Layout;
use crate::{
    offset_set::{OffsetSet, OffsetSetRepr},
    usage::{Reservation, SubnetUsage},
};

/// A subnet. Addresses are offsets from its first one.
///
/// ```text
///  0   1     first                    cursor                 last       size
///  ├─┬─┬───────┬────────────────────────┬──────────────────────┬─────────┬┤
///   │ └ gateway└──── ip-range: any address comes from here ────┘         └ broadcast (IPv4)
///   └ network or anycast                └ next-fit starts here
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SubnetIpam {
    /// With the gateway settled.
    spec: SubnetSpec,
    /// Allocated, quarantined and reserved addresses.
    taken: OffsetSet,
    cursor: u128,
    #[serde(skip)]
    layout: Layout,
    /// Members of `taken` that are in quarantine. All lie in the range.
    #[serde(skip)]
    quarantined: u128,
    /// Addresses of the range that are not taken.
    #[serde(skip)]
    fresh: u128,
}

/// What a [`SubnetIpam`] serialises to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubnetRepr {
    spec: SubnetSpec,
    taken: OffsetSetRepr,
    cursor: u128,
}

impl SubnetIpam {
    pub(crate) fn new(mut spec: SubnetSpec) -> Result<Self, SpecError> {
        let layout = Layout::of(&spec)?;
        spec.gateway = Some(layout.gateway);
        let mut taken = OffsetSet::new(host_bits(spec.subnet));
        for offset in layout.reserved.keys() {
            taken.insert(*offset);
        }
        Ok(Self {
            spec,
            taken,
            cursor: layout.first,
            quarantined: 0,
            fresh: layout.capacity,
            layout,
        })
    }

    /// The subnet that serialised to `repr`, with nothing in quarantine yet; the error says what no
    /// serialiser writes.
    pub(crate) fn restore(repr: SubnetRepr) -> Result<Self, String> {
        let mut restored = Self::new(repr.spec).map_err(|error| error.to_string())?;
        let bits = host_bits(restored.spec.subnet);
        restored.taken = OffsetSet::restore(bits, repr.taken)?;
        restored.cursor = repr.cursor;
        if !restored.in_range(repr.cursor) {
            return Err("the cursor is outside the ip-range".into());
        }
        if !restored.layout.reserved.keys().all(|offset| restored.taken.contains(*offset)) {
            return Err("a reserved address is not marked as taken".into());
        }
        let Layout { first, last, .. } = restored.layout;
        restored.fresh = last - first + 1 - restored.taken_in_range();
        Ok(restored)
    }

    /// Counts an address that is taken as quarantined; refuses those that cannot be.
    pub(crate) fn restore_quarantined(&mut self, offset: u128) -> Result<(), &'static str> {
        let reserved = self.layout.reserved.contains_key(&offset);
        if reserved || !self.in_range(offset) || !self.taken.contains(offset) {
            return Err("an address in quarantine was never handed out");
        }
        self.quarantined += 1;
        Ok(())
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.spec.subnet
    }

    pub(crate) fn gateway(&self) -> IpAddr {
        self.layout.gateway
    }

    /// The reservation of an address that has one.
    pub(crate) fn reservation(&self, offset: u128) -> Option<&Reservation> {
        self.layout.reserved.get(&offset)
    }

    /// Whether an address is allocated, quarantined or reserved.
    pub(crate) fn is_taken(&self, offset: u128) -> bool {
        self.taken.contains(offset)
    }

    /// Whether a request for any address can get this one.
    pub(crate) fn in_range(&self, offset: u128) -> bool {
        (self.layout.first..=self.layout.last).contains(&offset)
    }

    /// Fresh and quarantined addresses.
    pub(crate) fn available(&self) -> u128 {
        self.fresh + self.quarantined
    }

    /// The address that [`SubnetIpam::take_next`] would give.
    pub(crate) fn peek_next(&self) -> Option<u128> {
        if self.fresh == 0 {
            return None;
        }
        let Layout { first, last, .. } = self.layout;
        let ahead = self.taken.next_missing(self.cursor, last);
        ahead.or_else(|| self.taken.next_missing(first, last))
    }

    /// Takes the next fresh address at or after the cursor, around the end of the range.
    pub(crate) fn take_next(&mut self) -> Option<IpAddr> {
        let offset = self.peek_next()?;
        self.take(offset);
        self.cursor = if offset == self.layout.last { self.layout.first } else { offset + 1 };
        self.spec.subnet.nth(offset)
    }

    /// Marks a free address as allocated.
    pub(crate) fn take(&mut self, offset: u128) {
        let added = self.taken.insert(offset);
        debug_assert!(added, "{offset} of {} is taken already", self.spec.subnet);
        if self.in_range(offset) {
            self.fresh -= 1;
        }
    }

    /// Marks an allocated address as free.
    pub(crate) fn free(&mut self, offset: u128) {
        let removed = self.taken.remove(offset);
        debug_assert!(removed, "{offset} of {} is free already", self.spec.subnet);
        if self.in_range(offset) {
            self.fresh += 1;
        }
    }

    /// Counts an allocated address as quarantined.
    pub(crate) fn quarantine(&mut self) {
        self.quarantined += 1;
    }

    /// Counts a quarantined address as allocated.
    pub(crate) fn unquarantine(&mut self) {
        self.quarantined -= 1;
    }

    pub(crate) fn usage(&self) -> SubnetUsage {
        let size = self.spec.subnet.size();
        let reserved = self.layout.reserved.len() as u128;
        SubnetUsage {
            subnet: self.spec.subnet,
            size,
            used: self.taken.len() - reserved - self.quarantined,
            reserved,
            quarantined: self.quarantined,
            free: size - self.taken.len(),
            available: self.available(),
        }
    }

    /// Allocated and quarantined addresses, ascending.
    pub(crate) fn handed_out(&self) -> impl Iterator<Item = IpAddr> {
        let handed_out = self.taken.iter().filter(|offset| self.reservation(*offset).is_none());
        handed_out.filter_map(|offset| self.spec.subnet.nth(offset))
    }

    fn taken_in_range(&self) -> u128 {
        if self.spec.ip_range.is_some() {
            return self.taken.iter().filter(|offset| self.in_range(*offset)).count() as u128;
        }
        // Without an ip-range only reserved addresses lie outside: no need to look at the others.
        let outside = self.layout.reserved.keys().filter(|offset| !self.in_range(**offset));
        self.taken.len() - outside.count() as u128
    }
}

fn host_bits(subnet: Subnet) -> u32 {
    u32::from(if subnet.is_ipv4() { 32 } else { 128 } - subnet.prefix_len())
}
