//! What a user asks of an overlay network.

mod flags;

use core::{net::IpAddr, ops::Deref};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{Name, SpecError, Subnet, Vni, label, unicast};

/// A requested subnet and how addresses are handed out in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// The subnet.
    pub subnet: Subnet,
    /// The part of it that endpoints get addresses from; `None` for all of it.
    pub ip_range: Option<Subnet>,
    /// The gateway; `None` lets the cluster take the first usable address.
    pub gateway: Option<IpAddr>,
    /// Addresses that are used by something else, by name.
    pub aux_addresses: BTreeMap<Name, IpAddr>,
}

impl SubnetSpec {
    /// Most aux addresses of one subnet. They travel one by one in every snapshot; whole ranges are
    /// kept free by an `ip-range`.
    pub const MAX_AUX_ADDRESSES: usize = 256;

    /// A subnet whose every address may be handed out.
    pub const fn new(subnet: Subnet) -> Self {
        Self { subnet, ip_range: None, gateway: None, aux_addresses: BTreeMap::new() }
    }
}

/// A network as it was asked for, before it is known to make sense.
///
/// [`NetworkSpec::try_from`] checks it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of `network create`")]
pub struct NetworkDraft {
    /// Name of the network, unique in the cluster.
    pub name: Name,
    /// Labels for the user's own purposes.
    pub labels: BTreeMap<String, String>,
    /// Requested subnets. For a family without one the cluster takes one from its default pools.
    pub subnets: Vec<SubnetSpec>,
    /// Whether endpoints get IPv4 addresses.
    pub ipv4: bool,
    /// Whether endpoints get IPv6 addresses.
    pub ipv6: bool,
    /// No way out: no gateway, no forwarding of names.
    pub internal: bool,
    /// Standalone endpoints may attach, not only tasks of services.
    pub attachable: bool,
    /// The network of the routing mesh.
    pub ingress: bool,
    /// Traffic between hosts is sealed with ESP.
    pub encrypted: bool,
    /// Broadcast and multicast frames reach the other members.
    pub multicast: bool,
    /// MTU of the endpoints' interfaces; `None` derives it from the data path.
    pub mtu: Option<u16>,
    /// VXLAN network identifier; `None` lets the cluster choose.
    pub vni: Option<Vni>,
}

impl NetworkDraft {
    /// A plain IPv4 network with everything else left to the cluster.
    pub const fn new(name: Name) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            subnets: Vec::new(),
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            ingress: false,
            encrypted: false,
            multicast: false,
            mtu: None,
            vni: None,
        }
    }
}

/// A network that makes sense in itself. Read it like a [`NetworkDraft`]. Clones share it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "NetworkDraft", into = "NetworkDraft")]
pub struct NetworkSpec(Arc<NetworkDraft>);

impl NetworkSpec {
    /// Most subnets of one network.
    pub const MAX_SUBNETS: usize = 64;
    /// Smallest MTU of an IPv4-only network (RFC 791 §3.1).
    pub const MIN_MTU_V4: u16 = 68;
    /// Smallest MTU of a network with IPv6 (RFC 8200 §5).
    pub const MIN_MTU_V6: u16 = 1280;

    /// A draft with the same content, to be changed and checked again.
    pub fn into_draft(self) -> NetworkDraft {
        Arc::unwrap_or_clone(self.0)
    }
}

impl Deref for NetworkSpec {
    type Target = NetworkDraft;

    fn deref(&self) -> &NetworkDraft {
        &self.0
    }
}

impl From<NetworkSpec> for NetworkDraft {
    fn from(spec: NetworkSpec) -> Self {
        spec.into_draft()
    }
}

impl TryFrom<NetworkDraft> for NetworkSpec {
    type Error = SpecError;

    fn try_from(draft: NetworkDraft) -> Result<Self, SpecError> {
        label::check(&draft.labels)?;
        check_families(&draft)?;
        for (index, spec) in draft.subnets.iter().enumerate() {
            check_subnet(spec)?;
            if let Some(other) =
                draft.subnets[..index].iter().find(|s| s.subnet.overlaps(spec.subnet))
            {
                let reason = format!("it overlaps {} of the same network", other.subnet);
                return Err(SpecError::new("subnet", spec.subnet, reason));
            }
        }
        if let Some(vni) = draft.vni {
            Vni::for_overlay(vni.get())?;
        }
        if draft.ingress && draft.attachable {
            let reason = "the ingress network takes no standalone endpoints; leave one flag out";
            return Err(SpecError::new("attachable", "true", reason));
        }
        if draft.ingress && draft.internal {
            let reason = "published ports need a way in; leave out --internal or --ingress";
            return Err(SpecError::new("internal", "true", reason));
        }
        Ok(Self(Arc::new(draft)))
    }
}

fn check_families(draft: &NetworkDraft) -> Result<(), SpecError> {
    if !draft.ipv4 && !draft.ipv6 {
        return Err(SpecError::new("ipv4", "false", "a network needs IPv4, IPv6 or both"));
    }
    if draft.subnets.len() > NetworkSpec::MAX_SUBNETS {
        return Err(SpecError::new(
            "subnet",
            draft.subnets.len(),
            "a network has at most 64 subnets",
        ));
    }
    for spec in &draft.subnets {
        let (enabled, hint) = if spec.subnet.is_ipv4() {
            (draft.ipv4, "the network has IPv4 switched off")
        } else {
            (draft.ipv6, "the network has no IPv6; add --ipv6")
        };
        if !enabled {
            return Err(SpecError::new("subnet", spec.subnet, hint));
        }
    }
    let minimum = if draft.ipv6 { NetworkSpec::MIN_MTU_V6 } else { NetworkSpec::MIN_MTU_V4 };
    match draft.mtu {
        Some(mtu) if mtu < minimum => {
            let reason = format!("the smallest MTU of this network is {minimum}");
            Err(SpecError::new("mtu", mtu, reason))
        }
        _ => Ok(()),
    }
}

fn check_subnet(spec: &SubnetSpec) -> Result<(), SpecError> {
    let SubnetSpec { subnet, ip_range, gateway, aux_addresses } = spec;
    unicast::check("subnet", *subnet)?;
    if let Some(range) = ip_range.filter(|r| !subnet.contains_subnet(*r)) {
        let reason = format!("it does not lie in the subnet {subnet}");
        return Err(SpecError::new("ip-range", range, reason));
    }
    if let Some(gateway) = gateway {
        check_host("gateway", *gateway, *subnet)?;
    }
    let most = SubnetSpec::MAX_AUX_ADDRESSES;
    if aux_addresses.len() > most {
        let reason = format!("a subnet has at most {most}; use an ip-range instead");
        return Err(SpecError::new("aux-address", aux_addresses.len(), reason));
    }
    let mut used: BTreeSet<IpAddr> = gateway.iter().copied().collect();
    for address in aux_addresses.values() {
        check_host("aux-address", *address, *subnet)?;
        if !used.insert(*address) {
            let reason = "it is the gateway or another aux address already";
            return Err(SpecError::new("aux-address", address, reason));
        }
    }
    Ok(())
}

fn check_host(field: &'static str, address: IpAddr, subnet: Subnet) -> Result<(), SpecError> {
    let reason = if !subnet.contains(address) {
        format!("it does not lie in the subnet {subnet}")
    } else if address == subnet.first() {
        format!("it is the address of the subnet {subnet} itself")
    } else if subnet.is_ipv4() && address == subnet.last() {
        format!("it is the broadcast address of {subnet}")
    } else {
        return Ok(());
    };
    Err(SpecError::new(field, address, reason))
}

#[cfg(test)]
mod tests;
