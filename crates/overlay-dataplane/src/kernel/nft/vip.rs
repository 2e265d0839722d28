//! Virtual addresses of services, in an endpoint's own namespace (S01): a new connection to one goes
//! to the backend whose turn it is, and stays with it for as long as connection tracking knows it.
//!
//! ```text
//!  output      ─┬─ through the endpoint's device? ── vip ── address in vips4, vips6? ── service_ID
//!  prerouting  ─┘                                     │                                      │
//!              translated ◄── backends4_N: address and turn → backend ◄── one after the other┘
//!                                                     │
//!                       address in addresses4, addresses6? ── unanswered
//!                                                                 │
//!  echo: by this namespace itself, TCP: reset, else: unreachable ◄┘
//! ```
//!
//! - What a service's chain says depends on the number of its backends alone; who they are is in the
//!   maps, by address and turn. So a change writes that chain and the turns that it moves, whatever
//!   else there is.
//! - After a transaction the kernel goes through all chains that verdict maps lead to. So a service's chain
//!   is as short as can be: what becomes of connections that no backend gets is said once.
//! - Turns from [`PARKED`] on never come: there are the backends that keep flows and get none. What
//!   is to lose its flows is there until they are cut, so that a crash in between is made up for.
//! - A backend's element ends with the id of its endpoint, which nothing but [`read`] looks at.
//!
//! [`content`] is what the maps say, as a value; [`plan`] is the way from one to another; [`change`]
//! writes it.

pub(in crate::kernel) mod change;
pub(in crate::kernel) mod content;
pub(in crate::kernel) mod plan;

use core::net::IpAddr;

use overlay_types::{EndpointId, ServiceId};

use self::content::{Content, Face, Target};
use super::{
    expr::{Expr, Meta, NatKind, Numbers, Reg, Verdict},
    packet::{R0, destination, version},
    set::{self, Data, DataSpec, Field, Key, Set, SetSpec},
    table::{Chain, ChainKind, Family, Hook, HookPoint, Rule, Table, TableId},
};

/// `dstnat` of the `nft` command.
const PRIORITY: i32 = -100;
/// The chain that virtual addresses are looked up in.
pub(in crate::kernel) const LOOK_UP: &str = "vip";
/// The chain of what no backend answers.
const UNANSWERED: &str = "unanswered";
/// A service's chain is named by its id.
const SERVICE: &str = "service_";
/// Virtual addresses, by their version of IP.
const VIPS: [&str; 2] = ["vips4", "vips6"];
/// The same, as sets.
const ADDRESSES: [&str; 2] = ["addresses4", "addresses6"];
/// Turns of virtual addresses, by their version of IP. A number follows.
const BACKENDS: [&str; 2] = ["backends4_", "backends6_"];
/// Maps that the turns are spread over. For each element that comes the kernel goes through the rules
/// that look into its map, and for each such rule through the map's elements.
const SHARDS: u8 = 64;
/// Turns from here on never come.
const PARKED: u32 = 1 << 31;
/// Octets of an id.
const ID_LEN: usize = 16;
/// Where the backend is loaded.
const BACKEND: Reg = Reg::new(8);
const TCP: u8 = 6;
const ICMP: [u8; 2] = [1, 58];

/// The table of an endpoint.
pub(in crate::kernel) fn table_id(endpoint: EndpointId) -> TableId {
    TableId::new(Family::Inet, &format!("overlay_vip_{endpoint}"))
}

/// The table in a gate's namespace.
pub(in crate::kernel) fn gate_table_id() -> TableId {
    TableId::new(Family::Inet, "overlay_vip_gate")
}

/// The table for an endpoint behind this device.
pub(in crate::kernel) fn table(device: &str, content: &Content) -> Table {
    let mut table = Table {
        comment: Some("overlay networks: virtual addresses of services".into()),
        ..Table::default()
    };
    add_hooks(&mut table, device);
    for ipv6 in [false, true] {
        let at = usize::from(ipv6);
        table.sets.insert(VIPS[at].into(), Set::new(vips(ipv6)));
        table.sets.insert(ADDRESSES[at].into(), Set::new(addresses(ipv6)));
    }
    for (vip, face) in content.faces() {
        let ipv6 = vip.is_ipv6();
        if let Some(service) = face.service {
            let at = usize::from(ipv6);
            for (name, data) in [(VIPS[at], Some(jump(service))), (ADDRESSES[at], None)] {
                let set = table.sets.get_mut(name);
                set.map(|set| set.elements.insert(vip_key(*vip), data));
            }
        }
        let map = table.sets.entry(shard(*vip)).or_insert_with(|| Set::new(turns(ipv6)));
        map.elements.extend(elements(*vip, face).map(|(key, data)| (key, Some(data))));
    }
    for (service, vips) in content.services() {
        let lots = content.lots(vips.iter());
        table.chains.insert(chain_name(*service), chain(&lots));
    }
    table
}

/// What a table says. What makes no sense in it is left out.
pub(in crate::kernel) fn read(table: &Table) -> Content {
    let mut content = Content::default();
    for name in table.chains.keys() {
        content.add_service(service_of(name));
    }
    for name in VIPS {
        for (key, data) in table.sets.get(name).iter().flat_map(|set| &set.elements) {
            if let (Some(vip), Some(Data::Verdict(Verdict::Jump(chain)))) =
                (address(&key.first), data)
            {
                content.add_vip(vip, service_of(chain));
            }
        }
    }
    let mut found: Vec<_> =
        table.sets.iter().flat_map(|(name, set)| parse_all(name, set)).collect();
    found.sort_unstable();
    for (vip, turn, target) in found {
        content.add_backend(vip, turn >= PARKED, target);
    }
    content
}

fn parse_all<'a>(
    name: &'a str,
    set: &'a Set,
) -> impl Iterator<Item = (IpAddr, u32, Target)> + use<'a> {
    let is_ours = BACKENDS.iter().any(|prefix| name.starts_with(prefix))
        && matches!(set.spec.data, Some(DataSpec::Value(_)));
    let elements = set.elements.iter().filter(move |_| is_ours);
    elements.filter_map(parse).filter(move |(vip, ..)| shard(*vip) == name)
}

fn parse((key, data): (&Key, &Option<Data>)) -> Option<(IpAddr, u32, Target)> {
    let (vip, turn) = key.first.split_last_chunk()?;
    let Some(Data::Value(data)) = data else { return None };
    let (backend, endpoint) = data.split_last_chunk::<ID_LEN>()?;
    let target = Target { address: address(backend)?, endpoint: EndpointId::from_bytes(*endpoint) };
    Some((address(vip)?, u32::from_ne_bytes(*turn), target))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
    v4().or_else(|| Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)))
}

fn add_hooks(table: &mut Table, device: &str) {
    let name = set::device(device);
    // A route has been looked up for what this namespace sends, not yet for what it forwards.
    let sent = Expr::Meta { key: Meta::OutputName, to: R0 };
    let forwarded = Expr::DeviceTo { to: R0 };
    for (chain, point, device) in
        [("output", HookPoint::Output, sent), ("prerouting", HookPoint::Prerouting, forwarded)]
    {
        let hook = Some(Hook::new(ChainKind::Nat, point, PRIORITY));
        let rules = vec![Rule::new([device, Expr::eq(R0, &name), Expr::jump(LOOK_UP)])];
        table.chains.insert(chain.into(), Chain { hook, rules });
    }
    let mut rules = [false, true].map(look_up).to_vec();
    rules.extend([false, true].map(give_up));
    table.chains.insert(LOOK_UP.into(), Chain { hook: None, rules });
    table.chains.insert(UNANSWERED.into(), Chain { hook: None, rules: unanswered() });
}

fn look_up(ipv6: bool) -> Rule {
    let [family, is_it] = version(ipv6);
    let verdict = Expr::LookupVerdict { set: VIPS[usize::from(ipv6)].into(), from: R0 };
    Rule::new([family, is_it, destination(ipv6, R0), verdict])
}

/// For a virtual address whose backends did not get the connection.
fn give_up(ipv6: bool) -> Rule {
    let [family, is_it] = version(ipv6);
    let set = ADDRESSES[usize::from(ipv6)].into();
    let is_virtual = Expr::Lookup { set, from: R0, to: None };
    Rule::new([family, is_it, destination(ipv6, R0), is_virtual, Expr::goto(UNANSWERED)])
}

fn unanswered() -> Vec<Rule> {
    let protocol = Expr::Meta { key: Meta::Protocol, to: R0 };
    let echo = |ipv6: bool| {
        let [family, is_it] = version(ipv6);
        let is_icmp = Expr::eq(R0, &[ICMP[usize::from(ipv6)]]);
        Rule::new([family, is_it, protocol.clone(), is_icmp, Expr::Redirect { port: None }])
    };
    vec![
        echo(false),
        echo(true),
        Rule::new([protocol.clone(), Expr::eq(R0, &[TCP]), Expr::Reset]),
        Rule::new([Expr::Unreachable]),
    ]
}

/// The chain of a service with so many backends on each of its addresses that has any.
fn chain(lots: &[(IpAddr, usize)]) -> Chain {
    let rules = lots.iter().map(|(vip, turns)| balance(*vip, *turns)).collect();
    Chain { hook: None, rules }
}

fn balance(vip: IpAddr, turns: usize) -> Rule {
    let ipv6 = vip.is_ipv6();
    let [family, is_it] = version(ipv6);
    let turn = Reg::new(if ipv6 { 4 } else { 1 });
    let numbers = Numbers::Incremental;
    Rule::new([
        family,
        is_it,
        Expr::Meta { key: Meta::Protocol, to: R0 },
        Expr::ne(R0, &[ICMP[usize::from(ipv6)]]),
        destination(ipv6, R0),
        Expr::Number { numbers, modulus: turns as u32, offset: 0, to: turn },
        Expr::Lookup { set: shard(vip), from: R0, to: Some(BACKEND) },
        Expr::Nat { kind: NatKind::Destination, ipv6, address: BACKEND, port: None },
    ])
}

const fn ip(ipv6: bool) -> Field {
    if ipv6 { Field::Ipv6 } else { Field::Ipv4 }
}

fn vips(ipv6: bool) -> SetSpec {
    SetSpec::verdict_map([ip(ipv6)])
}

fn addresses(ipv6: bool) -> SetSpec {
    SetSpec::set([ip(ipv6)])
}

/// An id has as many octets as an IPv6 address.
fn turns(ipv6: bool) -> SetSpec {
    SetSpec::map([ip(ipv6), Field::Mark], [ip(ipv6), Field::Ipv6])
}

/// Name of the map that an address's turns are in.
fn shard(vip: IpAddr) -> String {
    let last = match vip {
        IpAddr::V4(vip) => vip.octets()[3],
        IpAddr::V6(vip) => vip.octets()[15],
    };
    format!("{}{}", BACKENDS[usize::from(vip.is_ipv6())], last % SHARDS)
}

fn chain_name(service: ServiceId) -> String {
    format!("{SERVICE}{service}")
}

fn service_of(chain: &str) -> Option<ServiceId> {
    chain.strip_prefix(SERVICE)?.parse().ok()
}

fn jump(service: ServiceId) -> Data {
    Data::Verdict(Verdict::Jump(chain_name(service)))
}

fn vip_key(vip: IpAddr) -> Key {
    Key::new(&[&set::address(vip)])
}

fn turn_key(vip: IpAddr, turn: u32) -> Key {
    Key::new(&[&set::address(vip), &turn.to_ne_bytes()])
}

fn backend(target: &Target) -> Data {
    Data::new(&[&set::address(target.address), &target.endpoint.to_bytes()])
}

fn elements(vip: IpAddr, face: &Face) -> impl Iterator<Item = (Key, Data)> + use<'_> {
    let (turns, parked) = ((0..).zip(&face.turns), (PARKED..).zip(&face.parked));
    turns.chain(parked).map(move |(turn, target)| (turn_key(vip, turn), backend(target)))
}

#[cfg(test)]
mod tests;
