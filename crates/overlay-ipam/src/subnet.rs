//! One subnet of a network: its layout and which of its addresses are taken.

use core::net::IpAddr;
use std::collections::BTreeMap;

use overlay_types::{SpecError, Subnet, SubnetSpec, unicast};
use serde::{Deserialize, Serialize};

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
pub(crate) struct SubnetRepr {
    spec: SubnetSpec,
    taken: OffsetSetRepr,
    cursor: u128,
}

/// What follows from a valid [`SubnetSpec`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    gateway: IpAddr,
    reserved: BTreeMap<u128, Reservation>,
    /// First and last address of the range.
    first: u128,
    last: u128,
    /// Addresses of the range that are not reserved.
    capacity: u128,
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

impl Layout {
    fn of(spec: &SubnetSpec) -> Result<Self, SpecError> {
        let subnet = spec.subnet;
        unicast::check("subnet", subnet)?;
        let range = spec.ip_range.unwrap_or(subnet);
        let (Some(first), Some(last)) =
            (subnet.offset_of(range.first()), subnet.offset_of(range.last()))
        else {
            let reason = format!("it does not lie in the subnet {subnet}");
            return Err(SpecError::new("ip-range", range, reason));
        };
        let last_host = if subnet.is_ipv4() { subnet.size() - 2 } else { subnet.size() - 1 };
        let (first, last) = (first.max(1), last.min(last_host));

        let mut reserved = edges(subnet);
        if let Some(gateway) = spec.gateway {
            reserve(&mut reserved, subnet, "gateway", gateway, gateway, Reservation::Gateway)?;
        }
        reserve_aux(&mut reserved, spec)?;
        let gateway = match spec.gateway {
            Some(gateway) => gateway,
            None => reserve_default_gateway(&mut reserved, subnet, last_host)?,
        };

        let inside = reserved.keys().filter(|offset| (first..=last).contains(*offset)).count();
        let capacity = (last + 1).saturating_sub(first).saturating_sub(inside as u128);
        if capacity == 0 {
            let field = if spec.ip_range.is_some() { "ip-range" } else { "subnet" };
            let reason = "its reserved addresses leave none for an endpoint; make it larger";
            return Err(SpecError::new(field, range, reason));
        }
        Ok(Self { gateway, reserved, first, last, capacity })
    }
}

/// Addresses at the edges of a subnet that name no host.
fn edges(subnet: Subnet) -> BTreeMap<u128, Reservation> {
    if subnet.is_ipv4() {
        let broadcast = subnet.size() - 1;
        [(0, Reservation::Network), (broadcast, Reservation::Broadcast)].into()
    } else {
        [(0, Reservation::RouterAnycast)].into()
    }
}

fn reserve(
    reserved: &mut BTreeMap<u128, Reservation>,
    subnet: Subnet,
    field: &'static str,
    value: impl ToString,
    address: IpAddr,
    reservation: Reservation,
) -> Result<(), SpecError> {
    let Some(offset) = subnet.offset_of(address) else {
        return Err(SpecError::new(
            field,
            value,
            format!("it does not lie in the subnet {subnet}"),
        ));
    };
    if let Some(other) = reserved.get(&offset) {
        return Err(SpecError::new(field, value, format!("{address} is {other}")));
    }
    reserved.insert(offset, reservation);
    Ok(())
}

fn reserve_aux(
    reserved: &mut BTreeMap<u128, Reservation>,
    spec: &SubnetSpec,
) -> Result<(), SpecError> {
    let most = SubnetSpec::MAX_AUX_ADDRESSES;
    if spec.aux_addresses.len() > most {
        let reason = format!("a subnet has at most {most}; use an ip-range instead");
        return Err(SpecError::new("aux-address", spec.aux_addresses.len(), reason));
    }
    for (name, address) in &spec.aux_addresses {
        let value = format!("{name}={address}");
        let reservation = Reservation::Aux(name.clone());
        reserve(reserved, spec.subnet, "aux-address", value, *address, reservation)?;
    }
    Ok(())
}

fn reserve_default_gateway(
    reserved: &mut BTreeMap<u128, Reservation>,
    subnet: Subnet,
    last_host: u128,
) -> Result<IpAddr, SpecError> {
    let free = (1..=last_host).find(|offset| !reserved.contains_key(offset));
    let Some((offset, gateway)) = free.and_then(|offset| Some((offset, subnet.nth(offset)?)))
    else {
        let reason = "its aux addresses leave none for the gateway; make it larger";
        return Err(SpecError::new("subnet", subnet, reason));
    };
    reserved.insert(offset, Reservation::Gateway);
    Ok(gateway)
}

fn host_bits(subnet: Subnet) -> u32 {
    u32::from(if subnet.is_ipv4() { 32 } else { 128 } - subnet.prefix_len())
}
