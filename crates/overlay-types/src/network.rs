//! What a user asks of an overlay network.

use core::{net::IpAddr, ops::Deref};
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Name, SpecError, Subnet, Vni, label, number::from_digits, unicast};

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

    /// Takes one `--opt KEY[=VALUE]`. Docker's spellings are understood beside the short ones.
    pub fn set_option(&mut self, option: &str) -> Result<(), SpecError> {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let flag = || match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => {
                Err(SpecError::new("opt", value, "expected true or false").found_in(option, value))
            }
        };
        match key {
            "encrypted" => self.encrypted = flag()?,
            "multicast" => self.multicast = flag()?,
            "mtu" | "com.docker.network.driver.mtu" => {
                let mtu = from_digits(value).ok_or_else(|| {
                    SpecError::new("mtu", value, "an MTU is a number").found_in(option, value)
                })?;
                self.mtu = Some(mtu);
            }
            "vni" | "com.docker.network.driver.overlay.vxlanid_list" => {
                self.vni = Some(value.parse().map_err(|e: SpecError| e.found_in(option, value))?);
            }
            _ => {
                let reason = "options are encrypted, multicast, mtu and vni";
                return Err(SpecError::new("opt", key, reason).found_in(option, key));
            }
        }
        Ok(())
    }

    /// Takes the flags `--subnet`, `--ip-range`, `--gateway` and `--aux-address NAME=ADDRESS`,
    /// each in any number: ranges, gateways and addresses go to the subnet that contains them.
    pub fn set_subnets(
        &mut self,
        subnets: &[String],
        ip_ranges: &[String],
        gateways: &[String],
        aux_addresses: &[String],
    ) -> Result<(), SpecError> {
        let mut specs = Vec::with_capacity(subnets.len());
        for text in subnets {
            specs.push(SubnetSpec::new(Subnet::parse("subnet", text)?));
        }
        for text in ip_ranges {
            let range = Subnet::parse("ip-range", text)?;
            let spec = owner(&mut specs, "ip-range", text, |s| s.contains_subnet(range))?;
            set_once("ip-range", text, &mut spec.ip_range, range)?;
        }
        for text in gateways {
            let gateway = parse_ip("gateway", text)?;
            let spec = owner(&mut specs, "gateway", text, |s| s.contains(gateway))?;
            set_once("gateway", text, &mut spec.gateway, gateway)?;
        }
        for text in aux_addresses {
            let (name, address) = text.split_once('=').ok_or_else(|| {
                SpecError::new("aux-address", text, "expected NAME=ADDRESS, like router=10.0.9.5")
            })?;
            let name = Name::parse("aux-address", name)?;
            let address = parse_ip("aux-address", address)?;
            let spec = owner(&mut specs, "aux-address", text, |s| s.contains(address))?;
            if spec.aux_addresses.insert(name, address).is_some() {
                return Err(SpecError::new("aux-address", text, "the name is given twice"));
            }
        }
        self.subnets = specs;
        Ok(())
    }
}

fn parse_ip(field: &'static str, text: &str) -> Result<IpAddr, SpecError> {
    text.parse().map_err(|_| SpecError::new(field, text, "expected an IPv4 or IPv6 address"))
}

fn owner<'a>(
    specs: &'a mut [SubnetSpec],
    field: &'static str,
    text: &str,
    contains: impl Fn(Subnet) -> bool,
) -> Result<&'a mut SubnetSpec, SpecError> {
    specs
        .iter_mut()
        .find(|spec| contains(spec.subnet))
        .ok_or_else(|| SpecError::new(field, text, "it lies in no --subnet of this network"))
}

fn set_once<T>(
    field: &'static str,
    text: &str,
    place: &mut Option<T>,
    value: T,
) -> Result<(), SpecError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(SpecError::new(field, text, "its subnet has one already")),
    }
}

/// A network that makes sense in itself. Read it like a [`NetworkDraft`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "NetworkDraft", into = "NetworkDraft")]
pub struct NetworkSpec(NetworkDraft);

impl NetworkSpec {
    /// Most subnets of one network.
    pub const MAX_SUBNETS: usize = 64;
    /// Smallest MTU of an IPv4-only network (RFC 791 §3.1).
    pub const MIN_MTU_V4: u16 = 68;
    /// Smallest MTU of a network with IPv6 (RFC 8200 §5).
    pub const MIN_MTU_V6: u16 = 1280;

    /// A draft with the same content, to be changed and checked again.
    pub fn into_draft(self) -> NetworkDraft {
        self.0
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
        spec.0
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
        Ok(Self(draft))
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
mod tests {
    use core::net::Ipv4Addr;

    use rstest::rstest;

    use super::*;

    fn draft() -> NetworkDraft {
        NetworkDraft::new("net".parse().unwrap())
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    /// Flags as `network create` gets them; the error's field and value, if it is refused.
    fn check(
        subnets: &[&str],
        ranges: &[&str],
        gateways: &[&str],
        aux: &[&str],
        options: &[&str],
    ) -> Result<NetworkSpec, (&'static str, String)> {
        let mut draft = draft();
        let outcome = (|| {
            draft.ipv6 = subnets.iter().any(|s| s.contains(':'));
            draft.set_subnets(
                &strings(subnets),
                &strings(ranges),
                &strings(gateways),
                &strings(aux),
            )?;
            options.iter().try_for_each(|o| draft.set_option(o))?;
            NetworkSpec::try_from(draft)
        })();
        outcome.map_err(|e: SpecError| (e.field(), e.value().to_owned()))
    }

    #[test]
    fn n01_flags_go_to_the_subnet_that_contains_them() {
        let spec = check(
            &["10.11.0.0/16", "fd00:9::/64"],
            &["10.11.4.0/24"],
            &["fd00:9::1", "10.11.0.2"],
            &["router=10.11.0.5"],
            &["encrypted", "com.docker.network.driver.mtu=1300", "vni=5000"],
        )
        .unwrap();
        assert_eq!(spec.subnets[0].ip_range, Some("10.11.4.0/24".parse().unwrap()));
        assert_eq!(spec.subnets[0].gateway, Some("10.11.0.2".parse().unwrap()));
        assert_eq!(spec.subnets[0].aux_addresses["router"], "10.11.0.5".parse::<IpAddr>().unwrap());
        assert_eq!(spec.subnets[1].gateway, Some("fd00:9::1".parse().unwrap()));
        assert_eq!((spec.encrypted, spec.mtu, spec.vni), (true, Some(1300), Vni::new(5000)));
    }

    #[rstest]
    #[case(&["10.11.0.1/16"], &[], &[], &[], &[], "subnet", "10.11.0.1/16")]
    #[case(&["10.11.0.0/31"], &[], &[], &[], &[], "subnet", "10.11.0.0/31")]
    #[case(&["224.0.0.0/8"], &[], &[], &[], &[], "subnet", "224.0.0.0/8")]
    #[case(&["192.0.0.0/2"], &[], &[], &[], &[], "subnet", "192.0.0.0/2")]
    #[case(&["127.0.0.0/8"], &[], &[], &[], &[], "subnet", "127.0.0.0/8")]
    #[case(&["fe80::/64"], &[], &[], &[], &[], "subnet", "fe80::/64")]
    #[case(&["10.1.0.0/16", "10.1.2.0/24"], &[], &[], &[], &[], "subnet", "10.1.2.0/24")]
    #[case(&["10.1.0.0/16"], &["10.2.0.0/24"], &[], &[], &[], "ip-range", "10.2.0.0/24")]
    #[case(&["10.1.0.0/16"], &[], &["10.1.0.0"], &[], &[], "gateway", "10.1.0.0")]
    #[case(&["10.1.0.0/16"], &[], &["10.1.255.255"], &[], &[], "gateway", "10.1.255.255")]
    #[case(&["10.1.0.0/16"], &[], &["10.1.0.1", "10.1.0.2"], &[], &[], "gateway", "10.1.0.2")]
    #[case(&[], &[], &["10.1.0.1"], &[], &[], "gateway", "10.1.0.1")]
    #[case(&["10.1.0.0/16"], &[], &[], &["10.1.0.9"], &[], "aux-address", "10.1.0.9")]
    #[case(&["10.1.0.0/16"], &[], &["10.1.0.9"], &["a=10.1.0.9"], &[], "aux-address", "10.1.0.9")]
    #[case(&[], &[], &[], &[], &["mtu=67"], "mtu", "67")]
    #[case(&["fd00::/64"], &[], &[], &[], &["mtu=1279"], "mtu", "1279")]
    #[case(&[], &[], &[], &[], &["mtu=x"], "mtu", "x")]
    #[case(&[], &[], &[], &[], &["mtu=+1400"], "mtu", "+1400")]
    #[case(&[], &[], &[], &[], &["vni=4095"], "vni", "4095")]
    #[case(&[], &[], &[], &[], &["vni=+5000"], "vni", "+5000")]
    #[case(&[], &[], &[], &[], &["encrypted=maybe"], "opt", "maybe")]
    #[case(&[], &[], &[], &[], &["colour=red"], "opt", "colour")]
    fn n01_refusals_name_field_and_value(
        #[case] subnets: &[&str],
        #[case] ranges: &[&str],
        #[case] gateways: &[&str],
        #[case] aux: &[&str],
        #[case] options: &[&str],
        #[case] field: &'static str,
        #[case] value: &str,
    ) {
        let refused = check(subnets, ranges, gateways, aux, options).unwrap_err();
        assert_eq!(refused, (field, value.to_owned()));
    }

    #[test]
    fn n12_a_subnet_needs_its_family() {
        let v6 = SubnetSpec::new("fd00:9::/64".parse().unwrap());
        let without = NetworkDraft { subnets: vec![v6.clone()], ..draft() };
        assert_eq!(NetworkSpec::try_from(without).unwrap_err().field(), "subnet");
        let only_v6 = NetworkDraft { subnets: vec![v6], ipv4: false, ipv6: true, ..draft() };
        assert!(NetworkSpec::try_from(only_v6).is_ok());
        let none = NetworkDraft { ipv4: false, ..draft() };
        assert_eq!(NetworkSpec::try_from(none).unwrap_err().field(), "ipv4");
    }

    fn refused(draft: NetworkDraft) -> (&'static str, String) {
        let error = NetworkSpec::try_from(draft).unwrap_err();
        (error.field(), error.value().to_owned())
    }

    #[test]
    fn r06_aux_addresses_of_a_subnet_are_bounded() {
        let with = |count: u32| {
            let mut spec = SubnetSpec::new("10.11.0.0/16".parse().unwrap());
            spec.aux_addresses = (0..count)
                .map(|n| (format!("a{n}").parse().unwrap(), Ipv4Addr::from(0x0a0b_0101 + n).into()))
                .collect();
            NetworkDraft { subnets: vec![spec], ..draft() }
        };
        assert!(NetworkSpec::try_from(with(256)).is_ok());
        assert_eq!(refused(with(257)), ("aux-address", "257".to_owned()));
    }

    #[test]
    fn r06_labels_and_subnets_of_a_network_are_bounded() {
        let labels = |count: u32| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert!(NetworkSpec::try_from(NetworkDraft { labels: labels(64), ..draft() }).is_ok());
        let many = NetworkDraft { labels: labels(65), ..draft() };
        assert_eq!(refused(many), ("label", "65".to_owned()));
        let subnet = |n| SubnetSpec::new(format!("10.{n}.0.0/16").parse().unwrap());
        let many = NetworkDraft { subnets: (0..65).map(subnet).collect(), ..draft() };
        assert_eq!(refused(many), ("subnet", "65".to_owned()));
    }
}
