//! Published ports as maps from where they answer to where they lead.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{Addresses, Protocol};

use super::{
    expr::{Expr, FibAddress, LOCAL, Meta, NatKind, Reg},
    packet::{R0, destination, destination_port, protocol, version},
    set::{self, Data, Field, Key, Set, SetSpec},
    table::{Chain, ChainKind, Hook, HookPoint, Rule, Table},
};

/// `dstnat` of the `nft` command.
const PRIORITY: i32 = -100;
/// The chain that ports are looked up in.
const CHAIN: &str = "publish";
/// Ports that answer on one address, by its version of IP.
const ON_ADDRESS: [&str; 2] = ["on_address4", "on_address6"];
/// Ports that answer on all addresses of the namespace.
const ON_ALL: [&str; 2] = ["on_all4", "on_all6"];
/// Octets of a register, which the fields of a concatenation fill.
const WORD: usize = 4;
/// Where the target is loaded.
const TARGET: Reg = Reg::new(8);

/// Ports that are published in a namespace, and where they lead.
pub type Ports = BTreeMap<HostPort, Target>;

/// Where a published port answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The only address that it answers on; `None` for all of the namespace's, an unspecified one
    /// for all of its version of IP.
    pub address: Option<IpAddr>,
    /// Number.
    pub port: u16,
}

/// Where a published port leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The endpoint's addresses. A version of IP that it does not have is not published.
    pub addresses: Addresses,
    /// Port that the endpoint listens on.
    pub port: u16,
}

/// One port that a table leads somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The only address that it answers on.
    pub on: Option<IpAddr>,
    /// Number of the transport protocol.
    pub protocol: u8,
    /// The published port.
    pub port: u16,
    /// Where it leads.
    pub to: (IpAddr, u16),
}

/// Where a table that was read leads published ports.
pub fn ways(table: &Table) -> BTreeSet<Way> {
    let names = ON_ADDRESS.into_iter().chain(ON_ALL);
    let sets = names.filter_map(|name| table.sets.get(name));
    let elements = sets.flat_map(|set| &set.elements);
    elements.filter_map(|(key, data)| way(key, data.as_ref()?)).collect()
}

fn way(key: &Key, data: &Data) -> Option<Way> {
    // Each field of a concatenation has whole words.
    let port = |word: &[u8]| Some(u16::from_be_bytes(*word.first_chunk()?));
    let (rest, published) = key.first.split_last_chunk::<WORD>()?;
    let (on, protocol) = rest.split_last_chunk::<WORD>()?;
    let Data::Value(data) = data else { return None };
    let (address, target) = data.split_last_chunk::<WORD>()?;
    Some(Way {
        on: set::to_address(on),
        protocol: protocol[0],
        port: port(published)?,
        to: (set::to_address(address)?, port(target)?),
    })
}

/// Adds to a table what translates these ports, for packets that arrive and for those of the
/// namespace's own processes.
pub(super) fn add_to(table: &mut Table, ports: &Ports) {
    for ipv6 in [false, true] {
        let at = usize::from(ipv6);
        table.sets.insert(ON_ADDRESS[at].into(), Set::new(on_address(ipv6)));
        table.sets.insert(ON_ALL[at].into(), Set::new(on_all(ipv6)));
    }
    for (host, target) in ports {
        publish(table, *host, *target);
    }
    let rules = [false, true].map(|ipv6| [on_address_rule(ipv6), on_all_rule(ipv6)]);
    table.chains.insert(CHAIN.into(), Chain { hook: None, rules: rules.concat() });
    for (name, point) in [("prerouting", HookPoint::Prerouting), ("output", HookPoint::Output)] {
        let hook = Some(Hook::new(ChainKind::Nat, point, PRIORITY));
        let rules = vec![Rule::new([Expr::jump(CHAIN)])];
        table.chains.insert(name.into(), Chain { hook, rules });
    }
}

const fn ip(ipv6: bool) -> Field {
    if ipv6 { Field::Ipv6 } else { Field::Ipv4 }
}

fn on_address(ipv6: bool) -> SetSpec {
    SetSpec::map([ip(ipv6), Field::Protocol, Field::Port], [ip(ipv6), Field::Port])
}

fn on_all(ipv6: bool) -> SetSpec {
    SetSpec::map([Field::Protocol, Field::Port], [ip(ipv6), Field::Port])
}

fn publish(table: &mut Table, host: HostPort, target: Target) {
    let (protocol, port) = ([protocol(host.protocol)], host.port.to_be_bytes());
    for address in target.addresses.iter() {
        let at = usize::from(address.is_ipv6());
        let (name, key) = match host.address {
            Some(on) if on.is_ipv6() != address.is_ipv6() => continue,
            Some(on) if !on.is_unspecified() => {
                (ON_ADDRESS[at], Key::new(&[&set::address(on), &protocol, &port]))
            }
            _ => (ON_ALL[at], Key::new(&[&protocol, &port])),
        };
        let data = Data::new(&[&set::address(address), &target.port.to_be_bytes()]);
        table.sets.get_mut(name).map(|set| set.elements.insert(key, Some(data)));
    }
}

/// A port on one address goes before the same port on all of them.
fn on_address_rule(ipv6: bool) -> Rule {
    let words = words(ipv6);
    let mut exprs = version(ipv6).to_vec();
    exprs.extend([
        destination(ipv6, R0),
        Expr::Meta { key: Meta::Protocol, to: Reg::new(words) },
        destination_port(Reg::new(words + 1)),
        Expr::Lookup { set: ON_ADDRESS[usize::from(ipv6)].into(), from: R0, to: Some(TARGET) },
        translate(ipv6),
    ]);
    Rule::new(exprs)
}

/// But not on `::1`: the kernel sends nothing on from there, and who asks would wait for an answer.
fn on_all_rule(ipv6: bool) -> Rule {
    let mut exprs = version(ipv6).to_vec();
    if ipv6 {
        let loopback = set::address(IpAddr::V6(Ipv6Addr::LOCALHOST));
        exprs.extend([destination(ipv6, R0), Expr::ne(R0, &loopback)]);
    }
    exprs.extend([
        Expr::AddressType { of: FibAddress::Destination, to: R0 },
        Expr::eq(R0, &LOCAL.to_ne_bytes()),
        Expr::Meta { key: Meta::Protocol, to: R0 },
        destination_port(Reg::new(1)),
        Expr::Lookup { set: ON_ALL[usize::from(ipv6)].into(), from: R0, to: Some(TARGET) },
        translate(ipv6),
    ]);
    Rule::new(exprs)
}

const fn translate(ipv6: bool) -> Expr {
    let port = Some(Reg::new(8 + words(ipv6)));
    Expr::Nat { kind: NatKind::Destination, ipv6, address: TARGET, port }
}

/// Registers that an address takes.
const fn words(ipv6: bool) -> u8 {
    if ipv6 { 4 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s16_where_ports_lead_is_read_back() {
        let mut addresses = Addresses::default();
        addresses.set([172, 20, 0, 2].into());
        addresses.set([0xfd20, 0, 0, 0, 0, 0, 0, 2].into());
        let on = IpAddr::from([192, 0, 2, 1]);
        let host = |address, port| HostPort { protocol: Protocol::Udp, address, port };
        let target = Target { addresses, port: 53 };
        let mut table = Table::default();
        let ports = [(host(None, 5353), target), (host(Some(on), 53), target)];
        add_to(&mut table, &Ports::from(ports));
        let way = |on, port, to: IpAddr| Way { on, protocol: 17, port, to: (to, 53) };
        let [v4, v6] = [addresses.v4.unwrap().into(), addresses.v6.unwrap().into()];
        let expected = [way(None, 5353, v4), way(None, 5353, v6), way(Some(on), 53, v4)];
        assert_eq!(ways(&table), BTreeSet::from(expected));
        assert_eq!(ways(&Table::default()), BTreeSet::new());
    }

    #[test]
    fn s16_a_port_is_in_the_map_of_its_addresses() {
        let mut addresses = Addresses::default();
        addresses.set([172, 20, 0, 2].into());
        addresses.set([0xfd20, 0, 0, 0, 0, 0, 0, 2].into());
        let check = |address: Option<IpAddr>, expected: &[&str]| {
            let host = HostPort { protocol: Protocol::Tcp, address, port: 8080 };
            let mut table = Table::default();
            add_to(&mut table, &Ports::from([(host, Target { addresses, port: 80 })]));
            let found = table.sets.iter().filter(|(_, set)| !set.elements.is_empty());
            let found: Vec<_> = found.map(|(name, _)| name.as_str()).collect();
            assert_eq!(found, expected, "{address:?}");
        };
        check(None, &["on_all4", "on_all6"]);
        check(Some([0; 4].into()), &["on_all4"]);
        check(Some([0; 16].into()), &["on_all6"]);
        check(Some([192, 0, 2, 1].into()), &["on_address4"]);
        check(Some([0xfd99, 0, 0, 0, 0, 0, 0, 1].into()), &["on_address6"]);
    }
}
