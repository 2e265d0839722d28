//! What an endpoint may send.
//!
//! ```text
//! port ─► its own Ethernet address? ─► IP from its own address? ──► bridge
//!                                ├───► ARP, neighbour discovery about itself ─► bridge
//!                                └───► anything else: dropped, and counted by its reason
//!
//! VXLAN device ─► a VLAN tag? ─► dropped, and counted
//!             └─► anything else ─► bridge
//! ```
//!
//! The table is in the network's namespace. A chain of a device can have no device added on kernels
//! before 6.4, so each port has one. All that is known of an endpoint are elements of sets that all
//! ports share. They name endpoints by their Ethernet addresses, which are checked before anything is
//! looked up. The user dataplane allows and drops the same (`user/engine/ingress.rs`).
//!
//! Frames that take the short way (`kernel/shortcut`) do not come here: it asks the same of them.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use overlay_types::{Addresses, MacAddr};

use super::{
    expr::{ACCEPT, Base, Cmp, DROP, Expr, Meta, Reg},
    packet::{R0, source},
    set::{self, Field, Key, Set, SetSpec},
    table::{Chain, ChainKind, Family, Hook, HookPoint, Rule, Table, TableId},
};
use crate::{
    user::engine::{DropReason, link_local},
    wire::{
        ethernet::ethertype::{ARP, IPV4, IPV6, QINQ, QINQ_OLD, VLAN},
        ndp, protocol,
    },
};

/// Sets: Ethernet address and what it may send from.
const OWN: [&str; 2] = ["own4", "own6"];
/// From which it may only speak to groups, and ask for neighbours: its link-local address, and none.
const UNROUTED: &str = "unrouted6";
/// Ethernet address, and what may stand in its ARP.
const ARP_SENDERS: &str = "arp";
/// EtherTypes of IP, and of tags.
const IP: &str = "ip";
const TAGS: &str = "tags";

/// Chains that all ports share.
const FRAMES: &str = "frames";
const DISCOVERY: &str = "discovery";
const ARP_CHAIN: &str = "arp";

/// The comment of a rule that drops, and what the switch in user space calls that.
pub type Reason = (&'static str, DropReason);

const OTHER_MAC: Reason = ("another Ethernet address", DropReason::SpoofedMac);
const OTHER_IP: Reason = ("another IP address", DropReason::SpoofedIp);
const OTHER_ARP: Reason = ("ARP for another", DropReason::Arp);
const OTHER_NEIGHBOR: Reason = ("neighbour discovery for another", DropReason::NeighborDiscovery);
const TAGGED: Reason = ("VLAN tag", DropReason::VlanTagged);
const TAGGED_THERE: Reason = ("VLAN tag from another node", DropReason::VlanTagged);
const NO_IP: Reason = ("neither IP nor ARP", DropReason::EtherType);

/// Why frames are dropped here.
pub const REASONS: [Reason; 7] =
    [OTHER_MAC, OTHER_IP, OTHER_ARP, OTHER_NEIGHBOR, TAGGED, TAGGED_THERE, NO_IP];

/// Ethernet, IPv4, and their lengths (RFC 826).
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Types of ICMPv6.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Registers behind one Ethernet address, and behind two.
const R2: Reg = Reg::new(2);
const R4: Reg = Reg::new(4);

/// An endpoint's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Index of the device.
    pub index: u32,
    /// Ethernet address of the endpoint.
    pub mac: MacAddr,
    /// Addresses of the endpoint.
    pub addresses: Addresses,
    /// It is a gate, which sends packets of clients: from any IP address.
    pub forwards: bool,
}

/// The fence of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Ports, by the names of their devices.
    pub ports: BTreeMap<String, Port>,
    /// Name and index of the VXLAN device.
    pub tunnel: (String, u32),
}

/// The table's name.
pub fn table_id() -> TableId {
    TableId::new(Family::Netdev, "overlay_fence")
}

impl Fence {
    /// The table that it is.
    pub fn table(&self) -> Table {
        let comment = Some("overlay networks: what endpoints may send".into());
        let mut table = Table { comment, sets: self.sets(), ..Table::default() };
        for (name, port) in &self.ports {
            let chain = Chain { hook: Some(at(name)), rules: at_port(port) };
            table.chains.insert(name.clone(), chain);
        }
        let (tunnel, _) = &self.tunnel;
        let chains = [
            (tunnel.as_str(), Some(at(tunnel)), at_tunnel()),
            (FRAMES, None, frames()),
            (DISCOVERY, None, discovery()),
            (ARP_CHAIN, None, arp()),
        ];
        for (name, hook, rules) in chains {
            table.chains.insert(name.into(), Chain { hook, rules });
        }
        table
    }

    fn sets(&self) -> BTreeMap<String, Set> {
        let types = |types: &[u16]| {
            let mut set = Set::new(SetSpec::set([Field::EtherType]));
            set.elements.extend(types.iter().map(|t| (Key::new(&[&t.to_be_bytes()]), None)));
            set
        };
        let empty = |fields: &[Field]| Set::new(SetSpec::set(fields));
        let mut own = [empty(&[Field::Mac, Field::Ipv4]), empty(&[Field::Mac, Field::Ipv6])];
        let mut unrouted = own[1].clone();
        let mut arp = empty(&[Field::Mac, Field::Mac, Field::Ipv4]);
        for port in self.ports.values() {
            let mac = &port.mac.0;
            for address in port.addresses.iter() {
                let own = &mut own[usize::from(address.is_ipv6())];
                own.elements.insert(Key::new(&[mac, &set::address(address)]), None);
            }
            for address in [link_local(port.mac), Ipv6Addr::UNSPECIFIED] {
                unrouted.elements.insert(Key::new(&[mac, &address.octets()]), None);
            }
            // A probe for an address names no sender (RFC 5227 §2.1).
            for address in port.addresses.v4.into_iter().chain([Ipv4Addr::UNSPECIFIED]) {
                arp.elements.insert(Key::new(&[mac, mac, &address.octets()]), None);
            }
        }
        let [own4, own6] = own;
        let sets = [
            (OWN[0], own4),
            (OWN[1], own6),
            (UNROUTED, unrouted),
            (ARP_SENDERS, arp),
            (IP, types(&[IPV4, IPV6])),
            (TAGS, types(&[VLAN, QINQ, QINQ_OLD])),
        ];
        sets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect()
    }
}

fn at(device: &str) -> Hook {
    let device = Some(device.to_owned());
    Hook { device, ..Hook::new(ChainKind::Filter, HookPoint::Ingress, 0) }
}

/// What a port sends.
fn at_port(port: &Port) -> Vec<Rule> {
    let mut rules = Vec::new();
    if port.forwards {
        rules.extend(at_gate(port.mac));
    }
    rules.push(Rule::new([link(6, 6), Expr::eq(R0, &port.mac.0), Expr::goto(FRAMES)]));
    rules.push(refuse([], OTHER_MAC));
    rules
}

/// What the VXLAN device receives.
fn at_tunnel() -> Vec<Rule> {
    vec![refuse([link(12, 2), within(TAGS, R0)], TAGGED_THERE)]
}

/// What a port sends under its own Ethernet address.
fn frames() -> Vec<Rule> {
    let own = |ipv6: bool| {
        let mut exprs = carries(if ipv6 { IPV6 } else { IPV4 });
        exprs.extend(comes_from(OWN[usize::from(ipv6)], ipv6));
        exprs.push(ACCEPT);
        Rule::new(exprs)
    };
    let mut neighbors = carries(IPV6);
    neighbors.extend(to_discovery());
    let mut to_group = carries(IPV6);
    to_group.extend([
        link(0, 1),
        Expr::Bitwise { from: R0, to: R0, mask: vec![1], xor: vec![0] },
        Expr::ne(R0, &[0]),
    ]);
    to_group.extend(comes_from(UNROUTED, true));
    to_group.push(ACCEPT);
    vec![
        own(false),
        Rule::new(neighbors),
        own(true),
        Rule::new(to_group).comment("listeners of groups"),
        Rule::new([carries(ARP), vec![Expr::goto(ARP_CHAIN)]].concat()),
        refuse([link(12, 2), within(IP, R0)], OTHER_IP),
        refuse([link(12, 2), within(TAGS, R0)], TAGGED),
        refuse([], NO_IP),
    ]
}

/// What a gate sends that others must not: IP from anywhere. Of neighbours it speaks for itself only.
fn at_gate(mac: MacAddr) -> Vec<Rule> {
    let carries = |ethertype: u16| {
        let station = [&mac.0[..], &ethertype.to_be_bytes()].concat();
        vec![link(6, 8), Expr::eq(R0, &station)]
    };
    vec![
        Rule::new([carries(IPV4), vec![ACCEPT]].concat()).comment("from clients"),
        Rule::new([carries(IPV6), to_discovery().into()].concat()),
        Rule::new([carries(IPV6), vec![ACCEPT]].concat()).comment("from clients"),
    ]
}

/// Goes on with neighbour discovery, if IPv6 is that.
fn to_discovery() -> [Expr; 6] {
    let compare = |op, number: &u8| Expr::Cmp { from: R0, op, value: vec![*number] };
    [
        Expr::Meta { key: Meta::Protocol, to: R0 },
        Expr::eq(R0, &[protocol::ICMPV6]),
        transport(0, 1, R0),
        compare(Cmp::Ge, ndp::TYPES.start()),
        compare(Cmp::Le, ndp::TYPES.end()),
        Expr::goto(DISCOVERY),
    ]
}

/// Neighbour discovery: who is asked for, and what one says of oneself.
fn discovery() -> Vec<Rule> {
    let mut rules = Vec::new();
    for set in [OWN[1], UNROUTED] {
        let asks = [transport(0, 1, R0), Expr::eq(R0, &[SOLICITATION])];
        rules.push(Rule::new([&asks[..], &comes_from(set, true), &[ACCEPT]].concat()));
        let tells = [transport(0, 1, R0), Expr::eq(R0, &[ADVERTISEMENT])];
        let target = [transport(8, 16, R2), within(set, R0)];
        let exprs = [&tells[..], &comes_from(set, true), &target, &[ACCEPT]].concat();
        rules.push(Rule::new(exprs));
    }
    rules.push(refuse([], OTHER_NEIGHBOR));
    rules
}

fn arp() -> Vec<Rule> {
    let header = |offset, len, to| Expr::Payload { base: Base::Network, offset, len, to };
    let own = [
        header(0, 6, R0),
        Expr::eq(R0, &ARP_OF_IPV4),
        link(6, 6),
        header(8, 6, R2),
        header(14, 4, R4),
        within(ARP_SENDERS, R0),
        ACCEPT,
    ];
    vec![Rule::new(own), refuse([], OTHER_ARP)]
}

fn refuse<const N: usize>(exprs: [Expr; N], (reason, _): Reason) -> Rule {
    Rule::new([&exprs[..], &[Expr::Counter, DROP]].concat()).comment(reason)
}

/// Loads octets of the Ethernet header. A tag that the kernel took off is back in its place there.
const fn link(offset: u32, len: u32) -> Expr {
    Expr::Payload { base: Base::Link, offset, len, to: R0 }
}

const fn transport(offset: u32, len: u32, to: Reg) -> Expr {
    Expr::Payload { base: Base::Transport, offset, len, to }
}

fn carries(ethertype: u16) -> Vec<Expr> {
    vec![link(12, 2), Expr::eq(R0, &ethertype.to_be_bytes())]
}

/// Holds when Ethernet address and source address are in a set.
fn comes_from(set: &str, ipv6: bool) -> [Expr; 3] {
    [link(6, 6), source(ipv6, R2), within(set, R0)]
}

fn within(set: &str, from: Reg) -> Expr {
    Expr::Lookup { set: set.into(), from, to: None }
}
