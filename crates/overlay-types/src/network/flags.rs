//! The flags of `network create`.

use core::net::IpAddr;

use super::{NetworkDraft, SubnetSpec};
use crate::{Name, SpecError, Subnet, number::from_digits};

impl NetworkDraft {
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
