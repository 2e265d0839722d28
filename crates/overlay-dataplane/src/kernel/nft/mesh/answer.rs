//! What sends a task's answers back to the gate that the question came through, in the task's own
//! namespace (S11).
//!
//! ```text
//!  in:   from a gate's Ethernet address? ─► number of the gate ─► zone and mark of the connection
//!  out:  mark of the connection ─► mark of the packet ─► (a rule of routing) ─► next hop NEXT_HOP
//!        at the interface: to NEXT_HOP_MAC? ─► the packet's mark ─► Ethernet address of the gate
//! ```
//!
//! A packet costs a look-up on each way, however many gates there are. All of it is about connections
//! that came through a gate; the namespace's own routes serve everything else, and where there are none,
//! what takes the way to the next hop without a mark is refused as if there were none.
//!
//! A client uses one port towards several nodes, one after the other or at once: they are different
//! connections to it, and the task, who sees its own address in all of them, takes them for one. It would
//! remember one that it ended for a minute, and answer the next one's SYN with what it remembers, until
//! the client sends that again a second later. So connections in TCP have a zone for each gate, in which
//! connection tracking tells them apart; where two are there, it gives the later one another port of the
//! client's address, as it does wherever two would be one.
//!
//! TCP answers from the address that it was asked at. Datagrams need not: a socket that is bound to no
//! address sends from that of the route to the client, and connection tracking would see another
//! connection. So what was asked for in UDP and SCTP is remembered for as long as connection tracking
//! remembers a dialogue, and the answer gets the address back, in front of connection tracking.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{EndpointId, MacAddr, Protocol};

use crate::kernel::nft::{
    expr::{ACCEPT, Base, Cmp, Ct, DROP, Expr, Meta, Reg, ct_state},
    packet::{R0, bits, destination, destination_port, protocol, source, version},
    set::{self, Data, Field, Key, Set, SetSpec},
    table::{Chain, ChainKind, Family, Hook, HookPoint, Rule, Table, TableId},
};

/// The next hop of answers: nobody has these addresses.
pub const NEXT_HOP: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 109, 115)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x6d65, 0x7368)),
];
/// Its Ethernet address. Endpoints get none that begins like this.
pub const NEXT_HOP_MAC: MacAddr = MacAddr([0x0a, 0x42, 0, 0, 0, 2]);
/// The bit of a mark that says that the others are ours.
pub const FLAG: u32 = 0x4000_0000;
/// The bits that we use. What others put in the lower half stays.
pub const MASK: u32 = 0x7fff_0000;
const SHIFT: u32 = 16;
/// Gates that there are numbers for.
pub const MOST_GATES: u16 = 0x3fff;

/// How long, in milliseconds, connection tracking remembers a dialogue in UDP that is idle, and half as
/// much again; how long it remembers a question that nobody answered; and how many of both are remembered.
const DIALOGUE_MS: u64 = 180_000;
const QUESTION_MS: u64 = 30_000;
const DIALOGUES: u32 = 65_536;

/// Priorities: in front of connection tracking (`raw`), right behind it, `mangle`, `filter`, `srcnat`.
const RAW: i32 = -300;
const BEHIND_TRACKING: i32 = -199;
const MANGLE: i32 = -150;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// Where an ICMP error of IPv4, and of IPv6, tells the protocol of the packet that it is about, from its own
/// first octet.
const ABOUT: [(u8, u32); 2] = [(1, 8 + 9), (58, 8 + 6)];

/// Gates: Ethernet address to mark.
const GATES: &str = "gates";
/// The way back.
const MARKS: &str = "marks";
/// Who asked from where, and which address was asked, by the version of IP.
const ASKED: [&str; 2] = ["asked4", "asked6"];
/// Protocols that answer from another address than they were asked at.
const DATAGRAMS: &str = "datagrams";
const REMEMBER: &str = "remember";

/// Numbers of gates, in one namespace.
pub type Numbers = BTreeMap<MacAddr, u16>;

/// The tables of a task: one sees packets, one frames.
pub fn table_ids(endpoint: EndpointId) -> [TableId; 2] {
    let name = format!("overlay_mesh_{endpoint}");
    [Family::Inet, Family::Netdev].map(|family| TableId::new(family, &name))
}

/// Gives gates their numbers. One that has a number keeps it, and one that is new does not get that of
/// one that has just gone, if it can be helped. Gates for which there is none are left out.
pub fn number(known: &Numbers, gates: &BTreeSet<MacAddr>) -> Numbers {
    let mut numbers: Numbers =
        known.iter().filter(|(mac, _)| gates.contains(*mac)).map(|(mac, n)| (*mac, *n)).collect();
    let mut taken: BTreeSet<u16> = numbers.values().copied().collect();
    let mut next = known.values().max().map_or(1, |last| last + 1);
    for mac in gates {
        if numbers.contains_key(mac) || taken.len() >= usize::from(MOST_GATES) {
            continue;
        }
        while next > MOST_GATES || taken.contains(&next) {
            next = if next >= MOST_GATES { 1 } else { next + 1 };
        }
        numbers.insert(*mac, next);
        taken.insert(next);
    }
    numbers
}

/// The numbers that a task's table of packets says.
pub fn read(table: &Table) -> Numbers {
    let elements = table.sets.get(GATES).into_iter().flat_map(|set| &set.elements);
    let number = |(key, data): (&Key, &Option<Data>)| {
        let Some(Data::Value(mark)) = data else { return None };
        let mark = u32::from_ne_bytes(mark.as_slice().try_into().ok()?);
        let number = ((mark & MASK & !FLAG) >> SHIFT) as u16;
        let mac = MacAddr(key.first.as_slice().try_into().ok()?);
        (mark == self::mark(number) && (1..=MOST_GATES).contains(&number)).then_some((mac, number))
    };
    elements.filter_map(number).collect()
}

/// The tables of a task whose interface on the ingress network is `device`.
pub fn tables(device: &str, numbers: &Numbers) -> [Table; 2] {
    [packets(device, numbers), frames(device, numbers)]
}

const fn mark(number: u16) -> u32 {
    FLAG | (number as u32) << SHIFT
}

fn empty() -> Table {
    let comment = "overlay networks: answers to clients of the routing mesh";
    Table { comment: Some(comment.into()), ..Table::default() }
}

fn packets(device: &str, numbers: &Numbers) -> Table {
    let mut table = empty();
    let mut gates = Set::new(SetSpec::map([Field::Mac], [Field::Mark]));
    gates.elements.extend(numbers.iter().map(|(mac, number)| {
        (Key::new(&[&mac.0]), Some(Data::new(&[&mark(*number).to_ne_bytes()])))
    }));
    let mut datagrams = Set::new(SetSpec::set([Field::Protocol]));
    for known in [Protocol::Udp, Protocol::Sctp] {
        datagrams.elements.insert(Key::new(&[&[protocol(known)]]), None);
    }
    table.sets.extend([(GATES.to_owned(), gates), (DATAGRAMS.to_owned(), datagrams)]);
    for ipv6 in [false, true] {
        table.sets.insert(ASKED[usize::from(ipv6)].into(), Set::new(asked(ipv6)));
    }
    let (filter, route, nat) = (ChainKind::Filter, ChainKind::Route, ChainKind::Nat);
    let chains = [
        ("zones", filter, HookPoint::Prerouting, RAW, zones(device)),
        // Without a chain that translates sources connection tracking gives no other port.
        ("ports", nat, HookPoint::Input, SOURCE_NAT, Vec::new()),
        ("prerouting", filter, HookPoint::Prerouting, BEHIND_TRACKING, prerouting(device)),
        ("raw", filter, HookPoint::Output, RAW, [false, true].map(restore_source).into()),
        ("output", route, HookPoint::Output, MANGLE, vec![restore_mark([])]),
        ("stray", filter, HookPoint::Output, FILTER, [false, true].map(refuse_stray).into()),
    ];
    for (name, kind, point, priority, rules) in chains {
        let hook = Some(Hook::new(kind, point, priority));
        table.chains.insert(name.into(), Chain { hook, rules });
    }
    let rules =
        [false, true].map(|ipv6| [false, true].map(|is_answered| remember(ipv6, is_answered)));
    let rules = rules.concat();
    table.chains.insert(REMEMBER.into(), Chain { hook: None, rules });
    table
}

fn frames(device: &str, numbers: &Numbers) -> Table {
    let mut marks = Set::new(SetSpec::map([Field::Mark], [Field::Mac]));
    marks.elements.extend(numbers.iter().map(|(mac, number)| {
        (Key::new(&[&mark(*number).to_ne_bytes()]), Some(Data::new(&[&mac.0])))
    }));
    let to_next_hop = || [link(0), Expr::eq(R0, &NEXT_HOP_MAC.0)];
    let to_gate = [
        Expr::Meta { key: Meta::Mark, to: R0 },
        keep(MASK),
        Expr::Lookup { set: MARKS.into(), from: R0, to: Some(R0) },
        Expr::SetPayload { base: Base::Link, offset: 0, len: 6, from: R0 },
        ACCEPT,
    ];
    let rules = vec![
        Rule::new([&to_next_hop()[..], &to_gate].concat()).comment("to the gate"),
        Rule::new([&to_next_hop()[..], &[Expr::Counter, DROP]].concat()).comment("to no gate"),
    ];
    let hook = Hook::new(ChainKind::Filter, HookPoint::Egress, 0);
    let hook = Some(Hook { device: Some(device.to_owned()), ..hook });
    let mut table = empty();
    table.sets.insert(MARKS.into(), marks);
    table.chains.insert("egress".into(), Chain { hook, rules });
    table
}

fn asked(ipv6: bool) -> SetSpec {
    let ip = if ipv6 { Field::Ipv6 } else { Field::Ipv4 };
    let key = [ip, Field::Port, Field::Protocol, Field::Port];
    SetSpec::map(key, [ip]).filled(DIALOGUE_MS, DIALOGUES)
}

/// A zone for each gate, of connections in TCP and errors about them.
fn zones(device: &str) -> Vec<Rule> {
    let tcp = [protocol(Protocol::Tcp)];
    let is = |number: u8| [Expr::Meta { key: Meta::Protocol, to: R0 }, Expr::eq(R0, &[number])];
    let mut enter = vec![
        Expr::Meta { key: Meta::InputName, to: R0 },
        Expr::eq(R0, &set::device(device)),
        link(6),
        Expr::Lookup { set: GATES.into(), from: R0, to: Some(R0) },
    ];
    // The upper half of the mark, in the first two octets of the register.
    if cfg!(target_endian = "little") {
        enter.push(Expr::ShiftRight { from: R0, to: R0, bits: SHIFT });
    }
    enter.push(Expr::SetCt { key: Ct::FirstZone, from: R0 });
    let mut rules =
        vec![Rule::new([&is(tcp[0])[..], &enter].concat()).comment("one for each gate")];
    rules.extend(ABOUT.map(|(icmp, offset)| {
        let inner = Expr::Payload { base: Base::Transport, offset, len: 1, to: R0 };
        Rule::new([&is(icmp)[..], &[inner, Expr::eq(R0, &tcp)], &enter].concat())
    }));
    rules
}

fn prerouting(device: &str) -> Vec<Rule> {
    let input = Expr::Meta { key: Meta::InputName, to: R0 };
    let name = set::device(device);
    let from_gate = [input.clone(), Expr::eq(R0, &name), link(6)];
    // A connection that somebody marks otherwise keeps that: bits cannot be put together here.
    let unmarked = [Expr::Ct { key: Ct::Mark, to: R0 }, keep(!MASK), Expr::eq(R0, &[0; 4])];
    let remember = [
        Expr::Lookup { set: GATES.into(), from: R0, to: Some(R0) },
        Expr::SetCt { key: Ct::Mark, from: R0 },
    ];
    let is_datagram = [
        Expr::Lookup { set: GATES.into(), from: R0, to: Some(Reg::new(4)) },
        Expr::Meta { key: Meta::Protocol, to: R0 },
        Expr::Lookup { set: DATAGRAMS.into(), from: R0, to: None },
        Expr::jump(REMEMBER),
    ];
    vec![
        Rule::new([&unmarked[..], &from_gate, &remember].concat()).comment("which gate"),
        Rule::new([&from_gate[..], &is_datagram].concat()),
        // For who is reached through this namespace.
        restore_mark([input, Expr::ne(R0, &name)]),
    ]
}

/// Whoever asks with a forged source has it remembered for a short time only.
fn remember(ipv6: bool, is_answered: bool) -> Rule {
    let words = words(ipv6);
    let mut exprs = version(ipv6).to_vec();
    exprs.push(Expr::Ct { key: Ct::State, to: R0 });
    exprs.extend(bits(ct_state::ESTABLISHED, if is_answered { Cmp::Ne } else { Cmp::Eq }));
    let timeout_ms = (!is_answered).then_some(QUESTION_MS);
    let set = ASKED[usize::from(ipv6)].into();
    exprs.extend([
        source(ipv6, R0),
        source_port(Reg::new(words)),
        Expr::Meta { key: Meta::Protocol, to: Reg::new(words + 1) },
        destination_port(Reg::new(words + 2)),
        destination(ipv6, Reg::new(8)),
        Expr::Update { set, key: R0, data: Reg::new(8), timeout_ms },
    ]);
    Rule::new(exprs)
}

/// Gives an answer the address that was asked as its source.
fn restore_source(ipv6: bool) -> Rule {
    let asked = || ASKED[usize::from(ipv6)].into();
    let words = words(ipv6);
    let mut exprs = version(ipv6).to_vec();
    exprs.extend([
        Expr::Meta { key: Meta::Protocol, to: R0 },
        Expr::Lookup { set: DATAGRAMS.into(), from: R0, to: None },
        destination(ipv6, R0),
        destination_port(Reg::new(words)),
        Expr::Meta { key: Meta::Protocol, to: Reg::new(words + 1) },
        source_port(Reg::new(words + 2)),
        Expr::Lookup { set: asked(), from: R0, to: Some(Reg::new(8)) },
        Expr::SetSource { ipv6, from: Reg::new(8) },
        // The dialogue is not idle.
        source(ipv6, Reg::new(8)),
        Expr::Update { set: asked(), key: R0, data: Reg::new(8), timeout_ms: None },
    ]);
    Rule::new(exprs).comment("from where it was asked")
}

fn restore_mark<const N: usize>(exprs: [Expr; N]) -> Rule {
    let load = Expr::Ct { key: Ct::Mark, to: R0 };
    let mut exprs = exprs.to_vec();
    exprs.push(load.clone());
    exprs.extend(bits(FLAG, Cmp::Ne));
    exprs.extend([load, keep(MASK), Expr::SetMeta { key: Meta::Mark, from: R0 }]);
    Rule::new(exprs).comment("back to the gate")
}

/// What is no answer has no business at the next hop.
fn refuse_stray(ipv6: bool) -> Rule {
    let mut exprs = version(ipv6).to_vec();
    exprs.push(Expr::Meta { key: Meta::Mark, to: R0 });
    exprs.extend(bits(FLAG, Cmp::Eq));
    exprs.extend([
        Expr::NextHop { ipv6, to: R0 },
        Expr::eq(R0, &set::address(NEXT_HOP[usize::from(ipv6)])),
        Expr::NoRoute,
    ]);
    Rule::new(exprs).comment("there is no route")
}

/// Loads an Ethernet address.
const fn link(offset: u32) -> Expr {
    Expr::Payload { base: Base::Link, offset, len: 6, to: R0 }
}

const fn source_port(to: Reg) -> Expr {
    Expr::Payload { base: Base::Transport, offset: 0, len: 2, to }
}

/// Keeps these bits of the first register.
fn keep(bits: u32) -> Expr {
    Expr::Bitwise { from: R0, to: R0, mask: bits.to_ne_bytes().into(), xor: vec![0; 4] }
}

/// Registers that an address takes.
const fn words(ipv6: bool) -> u8 {
    if ipv6 { 4 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u8) -> MacAddr {
        MacAddr([2, 0x42, 10, 0, 0, number])
    }

    #[test]
    fn s11_a_gate_keeps_its_number_and_a_new_one_gets_none_that_was_just_given_up() {
        let gates = |numbers: &[u8]| numbers.iter().map(|n| mac(*n)).collect::<BTreeSet<_>>();
        let first = number(&Numbers::new(), &gates(&[1, 2, 3]));
        assert_eq!(first, [(mac(1), 1), (mac(2), 2), (mac(3), 3)].into());
        let second = number(&first, &gates(&[2, 3, 4]));
        assert_eq!(second, [(mac(2), 2), (mac(3), 3), (mac(4), 4)].into());
        // At the end it begins anew.
        let last = [(mac(1), 1), (mac(9), MOST_GATES)].into();
        assert_eq!(number(&last, &gates(&[1, 5, 9]))[&mac(5)], 2);
        let [packets, _] = tables("eth0", &second);
        assert_eq!(read(&packets), second);
    }
}
