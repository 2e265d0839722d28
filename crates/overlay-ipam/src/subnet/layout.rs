//! Which addresses of a subnet are reserved, and which its range has.

use core::net::IpAddr;
use std::collections::BTreeMap;

use overlay_types::{SpecError, Subnet, SubnetSpec, unicast};

use crate::usage::Reservation;

/// What follows from a valid [`SubnetSpec`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) gateway: IpAddr,
    pub(super) reserved: BTreeMap<u128, Reservation>,
    /// First and last address of the range.
    pub(super) first: u128,
    pub(super) last: u128,
    /// Addresses of the range that are not reserved.
    pub(super) capacity: u128,
}

impl Layout {
    pub(super) fn of(spec: &SubnetSpec) -> Result<Self, SpecError> {
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
