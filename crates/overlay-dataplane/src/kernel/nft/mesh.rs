//! The routing mesh as tables (S10, S11): on the host, in the gate's namespace, and in tasks'.
//!
//! ```text
//!  client ─► host: published port ─► virtual address of the service, target
//!                    │ the cable
//!         gate's namespace: virtual address ─► backend (`vip`), largest segment cut to fit
//!                    │ the ingress network; the source is the client's
//!         task's namespace: remembers the gate by its Ethernet address (`answer`)
//! ```
//!
//! Sources that are not the cluster's alone, 127.0.0.1 and those of containers that some table of the
//! host masquerades, become the host's address on the cable, and behind it the gate's own.

pub mod answer;

use std::collections::BTreeSet;

use ipnet::IpNet;
use overlay_types::Subnet;

use super::{
    expr::{Base, Cmp, Ct, DROP, Expr, ct_status},
    packet::{R0, bits, came_through, leaves_through, of_no_connection, source, version},
    publish::{self, Ports},
    set::{self, Field, Key, Set, SetSpec},
    table::{Chain, ChainKind, Family, Hook, HookPoint, Rule, Table, TableId},
};

/// Priorities of `nft`: raw, filter, srcnat.
const RAW: i32 = -300;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
const TCP: u8 = 6;
const SYN: u8 = 2;

/// The cluster's own addresses, by the version of IP.
const OWN: [&str; 2] = ["own4", "own6"];

/// The name of the tables on the host and in the gate's namespace.
pub fn table_id() -> TableId {
    TableId::new(Family::Inet, "overlay_mesh")
}

/// The host's side: published ports, and the cable to the gate's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Name of the cable's end.
    pub cable: String,
    /// Published ports, and the virtual addresses and targets that they lead to.
    pub ports: Ports,
}

impl Host {
    /// The table that it is.
    pub fn table(&self) -> Table {
        let comment = Some("overlay networks: published ports of services".into());
        let mut table = Table { comment, ..Table::default() };
        publish::add_to(&mut table, &self.ports);
        let chains = [
            ("guard", ChainKind::Filter, HookPoint::Prerouting, RAW, vec![self.guard()]),
            ("forward", ChainKind::Filter, HookPoint::Forward, FILTER, self.forward()),
            ("postrouting", ChainKind::Nat, HookPoint::Postrouting, SRCNAT, vec![self.local()]),
        ];
        table.chains.extend(chains.map(hooked));
        table
    }

    /// Behind the cable nobody is asked for what listens on the host's loopback addresses only.
    fn guard(&self) -> Rule {
        let mut exprs = came_through(&self.cable, Cmp::Eq).to_vec();
        exprs.extend(on_loopback(16));
        exprs.extend([Expr::Counter, DROP]);
        Rule::new(exprs).comment("to the host's loopback")
    }

    /// What was not translated does not belong on the cable, in either direction.
    fn forward(&self) -> Vec<Rule> {
        [came_through(&self.cable, Cmp::Eq), leaves_through(&self.cable, Cmp::Eq)]
            .map(|on_cable| unpublished(&on_cable))
            .concat()
    }

    fn local(&self) -> Rule {
        let mut exprs = leaves_through(&self.cable, Cmp::Eq).to_vec();
        exprs.extend(on_loopback(12));
        exprs.push(Expr::Masquerade);
        Rule::new(exprs).comment("from the host's loopback")
    }
}

/// The gate's namespace, beside the virtual addresses of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Name of the gate's interface on the ingress network.
    pub interface: String,
    /// Name of the cable's end.
    pub cable: String,
    /// Subnets of the cluster's networks: what comes by the cable and says that it is from there is
    /// forged, by somebody on the host's network or in a container.
    pub subnets: BTreeSet<Subnet>,
    /// The host's addresses on the cable.
    pub host: Vec<IpNet>,
    /// All packets of clients get the gate's address as their source, not only those that come
    /// from the host's.
    pub masquerade: bool,
}

impl Gate {
    /// The table that it is.
    pub fn table(&self) -> Table {
        let comment = Some("overlay networks: the gate of the routing mesh".into());
        let chains = [
            ("forward", ChainKind::Filter, HookPoint::Forward, FILTER, self.forward()),
            ("postrouting", ChainKind::Nat, HookPoint::Postrouting, SRCNAT, self.postrouting()),
        ];
        let chains = chains.into_iter().map(hooked).collect();
        let mut table = Table { comment, chains, ..Table::default() };
        table.sets.extend([false, true].map(|ipv6| self.own(ipv6)));
        table
    }

    fn forward(&self) -> Vec<Rule> {
        let between =
            [came_through(&self.interface, Cmp::Eq), leaves_through(&self.interface, Cmp::Eq)];
        let between = [&between.concat()[..], &[Expr::Counter, DROP]].concat();
        let mut rules = Vec::from([false, true].map(|ipv6| self.forged(ipv6)));
        rules.push(Rule::new(between).comment("between endpoints"));
        rules.extend(unpublished(&[]));
        rules.push(Rule::new(clamp()).comment("segments that fit the network"));
        rules
    }

    /// The host's address on the cable is no client's, wherever the cable has it from.
    fn forged(&self, ipv6: bool) -> Rule {
        let mut exprs = came_through(&self.cable, Cmp::Eq).to_vec();
        exprs.extend(version(ipv6));
        exprs.push(source(ipv6, R0));
        let host = self.host.iter().map(IpNet::addr).filter(|host| host.is_ipv6() == ipv6);
        exprs.extend(host.map(|host| Expr::ne(R0, &set::address(host))));
        let set = OWN[usize::from(ipv6)].into();
        exprs.extend([Expr::Lookup { set, from: R0, to: None }, Expr::Counter, DROP]);
        Rule::new(exprs).comment("from the cluster's own addresses")
    }

    fn own(&self, ipv6: bool) -> (String, Set) {
        let key = if ipv6 { Field::Ipv6 } else { Field::Ipv4 };
        let mut set = Set::new(SetSpec::set([key]).interval());
        let all = || self.subnets.iter().filter(|subnet| subnet.is_ipv4() != ipv6);
        // Ranges of a set must not overlap.
        let is_outermost =
            |s: &&Subnet| !all().any(|other| other != *s && other.contains_subnet(**s));
        let range =
            |s: &Subnet| Key::range(&[&set::address(s.first())], &[&set::address(s.last())]);
        set.elements.extend(all().filter(is_outermost).map(|subnet| (range(subnet), None)));
        (OWN[usize::from(ipv6)].to_owned(), set)
    }

    fn postrouting(&self) -> Vec<Rule> {
        let out = leaves_through(&self.interface, Cmp::Eq);
        if self.masquerade {
            let exprs = [&out[..], &[Expr::Masquerade]].concat();
            return vec![Rule::new(exprs).comment("answers come back here")];
        }
        let from = |net: &IpNet| {
            let ipv6 = net.addr().is_ipv6();
            let mut exprs = [&out[..], &version(ipv6)].concat();
            exprs.extend([source(ipv6, R0), Expr::eq(R0, &set::address(net.addr()))]);
            exprs.push(Expr::Masquerade);
            Rule::new(exprs).comment("from the host itself")
        };
        self.host.iter().map(from).collect()
    }
}

type Hooked<'a> = (&'a str, ChainKind, HookPoint, i32, Vec<Rule>);

fn hooked((name, kind, point, priority, rules): Hooked<'_>) -> (String, Chain) {
    (name.to_owned(), Chain { hook: Some(Hook::new(kind, point, priority)), rules })
}

/// Drops what connection tracking knows no published port of.
fn unpublished(of: &[Expr]) -> [Rule; 2] {
    let drop = [Expr::Counter, DROP];
    let unknown = [of, &of_no_connection(), &drop].concat();
    let untranslated =
        [&[Expr::Ct { key: Ct::Status, to: R0 }][..], &bits(ct_status::DNAT, Cmp::Eq)];
    let untranslated = [of, &untranslated.concat(), &drop].concat();
    [
        Rule::new(unknown).comment("of no connection"),
        Rule::new(untranslated).comment("to or from what is not published"),
    ]
}

/// Whoever opens a TCP connection through here hears of the smallest link on the way at once: a router
/// between that loses ICMP loses no connection.
fn clamp() -> Vec<Expr> {
    vec![
        Expr::Meta { key: super::expr::Meta::Protocol, to: R0 },
        Expr::eq(R0, &[TCP]),
        Expr::Payload { base: Base::Transport, offset: 13, len: 1, to: R0 },
        Expr::Bitwise { from: R0, to: R0, mask: vec![SYN], xor: vec![0] },
        Expr::ne(R0, &[0]),
        Expr::SegmentSize { to: R0 },
        Expr::ToNetworkOrder { from: R0, to: R0 },
        Expr::SetSegmentSize { from: R0 },
    ]
}

/// Holds for IPv4 with a loopback address at this offset of its header.
fn on_loopback(offset: u32) -> Vec<Expr> {
    let mut exprs = version(false).to_vec();
    exprs.push(Expr::Payload { base: Base::Network, offset, len: 1, to: R0 });
    exprs.push(Expr::eq(R0, &[127]));
    exprs
}
