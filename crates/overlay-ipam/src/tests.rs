//! Sequences of calls against a naive model, and what each refusal says.

mod model;
mod offset_set;
mod pools;
mod refusals;
mod serialised;
mod tables;

use core::net::IpAddr;

use overlay_types::{Subnet, SubnetSpec};

use crate::NetworkIpam;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

/// `SUBNET [range=…] [gateway=…] [NAME=ADDRESS]…`
fn spec(text: &str) -> SubnetSpec {
    let mut words = text.split_whitespace();
    let mut spec = SubnetSpec::new(subnet(words.next().unwrap()));
    for word in words {
        match word.split_once('=').unwrap() {
            ("range", value) => spec.ip_range = Some(subnet(value)),
            ("gateway", value) => spec.gateway = Some(ip(value)),
            (name, value) => {
                spec.aux_addresses.insert(name.parse().unwrap(), ip(value));
            }
        }
    }
    spec
}

fn network(specs: &[&str]) -> NetworkIpam {
    NetworkIpam::new(specs.iter().map(|text| spec(text))).unwrap()
}
