//! **no-entry**: who may send frames into the networks of a node.
//!
//! ```text
//! underlay ─► udp port? ─► (VNI, outer source) in members? ─yes─► VXLAN socket ─► network
//!                │no                    │no
//!                ▼                      └─► dropped and counted
//!            not ours
//! ```
//!
//! The table is in the host's namespace, where the VXLAN socket stays when the device moves, at the
//! hook in front of sockets: an IPv4 packet is whole there, and what no rule of ours admits reaches
//! no device. With no members nobody is admitted: the table belongs there before the first device is
//! up. A change of a member is one element.
//!
//! Of a fragmented IPv6 packet only the first fragment has the UDP header. It is judged like a whole
//! packet, and refused when the VNI is not in it; the rest of a refused packet is never put together.
//! (Linux 5.11 and later refuse first fragments that do not get as far as the UDP header.)
//!
//! VNIs below [`Vni::MIN_OVERLAY`] are left to tunnels that people make by hand on the same port.
//!
//! Encrypted networks have another port. What comes to it has to come out of IPsec, and what leaves for
//! it has to go into IPsec. The policies of [`xfrm`](crate::kernel::xfrm) say the same: somebody who
//! flushes one of both lets nothing out.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use overlay_types::Vni;

use super::{
    batch::Batch,
    expr::{ACCEPT, Base, Cmp, DROP, Expr, Meta, Reg},
    fence::Reason,
    packet::{R0, UDP, destination_port, source, version},
    set::{self, Field, Key, Set, SetSpec},
    table::{Chain, ChainKind, Family, Hook, HookPoint, Rule, Table, TableId},
};
use crate::user::engine::DropReason;

/// Sets of members, by the version of IP of their data paths.
const MEMBERS: [&str; 2] = ["members4", "members6"];
/// The chain that judges frames.
const JUDGE: &str = "judge";
/// Comments of the rules that drop, and what the switch in user space calls that.
const CLEAR: Reason = ("in clear", DropReason::ClearOnEncrypted);
const UNSEALED: Reason = ("would leave in clear", DropReason::NoOutboundSa);
const STRANGER: Reason = ("from nobody on that network", DropReason::NotMember);
/// Why datagrams are dropped here.
pub const REASONS: [Reason; 3] = [CLEAR, UNSEALED, STRANGER];
/// Before other tables that filter, which may drop what we let pass, but not the other way round.
const PRIORITY: i32 = -300;
/// Offset of the VNI behind the beginning of the UDP header (RFC 7348 §5).
const VNI_OFFSET: u32 = 12;

/// UDP ports of VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// That of plain networks.
    pub plain: u16,
    /// That of encrypted networks, which only IPsec may carry; `None` when the kernel has none.
    pub sealed: Option<u16>,
}

impl From<u16> for Ports {
    fn from(plain: u16) -> Self {
        Self { plain, sealed: None }
    }
}

/// Data-path addresses of the other nodes on each network, by its VNI.
pub type Members = BTreeMap<Vni, BTreeSet<IpAddr>>;

/// The table's name.
pub fn table_id() -> TableId {
    TableId::new(Family::Inet, "overlay_admission")
}

/// The table that admits these members' frames to the UDP ports, and no other frames.
pub fn table(ports: impl Into<Ports>, members: &Members) -> Table {
    let ports = ports.into();
    let mut table =
        Table { comment: Some("overlay networks: who may send".into()), ..Table::default() };
    for (ipv6, name) in [false, true].into_iter().zip(MEMBERS) {
        table.sets.insert(name.into(), Set::new(spec(ipv6)));
    }
    for (vni, addresses) in members {
        for address in addresses {
            let set = table.sets.get_mut(MEMBERS[usize::from(address.is_ipv6())]);
            set.map(|set| set.elements.insert(key(*vni, *address), None));
        }
    }
    let hook = Hook::new(ChainKind::Filter, HookPoint::Input, PRIORITY);
    let mut input = vec![addressed_to(ports.plain, [Expr::goto(JUDGE)])];
    if let Some(port) = ports.sealed {
        let secpath = Expr::Meta { key: Meta::SecPath, to: R0 };
        let clear = addressed_to(port, [secpath, Expr::eq(R0, &[0]), Expr::Counter, DROP]);
        input.push(clear.comment(CLEAR.0));
        input.push(addressed_to(port, [Expr::goto(JUDGE)]));
        let output = addressed_to(
            port,
            [Expr::RouteHasXfrm { to: R0 }, Expr::eq(R0, &[0]), Expr::Counter, DROP],
        );
        let hook = Hook::new(ChainKind::Filter, HookPoint::Output, PRIORITY);
        let rules = vec![output.comment(UNSEALED.0)];
        table.chains.insert("output".into(), Chain { hook: Some(hook), rules });
    }
    table.chains.insert("input".into(), Chain { hook: Some(hook), rules: input });
    let judge = vec![
        admit(false).comment("from a member over IPv4"),
        admit(true).comment("from a member over IPv6"),
        other_tunnel().comment("VNI below 4096: not ours"),
        Rule::new([Expr::Counter, DROP]).comment(STRANGER.0),
    ];
    table.chains.insert(JUDGE.into(), Chain { hook: None, rules: judge });
    table
}

/// Adds to `batch` what makes the members of one network others. Both have to be as the table is,
/// and as it shall be.
pub fn change(batch: &mut Batch, vni: Vni, before: &BTreeSet<IpAddr>, after: &BTreeSet<IpAddr>) {
    let id = table_id();
    for (ipv6, name) in [false, true].into_iter().zip(MEMBERS) {
        let keys = |addresses: Vec<&IpAddr>| -> Vec<Key> {
            let addresses = addresses.into_iter().filter(|a| a.is_ipv6() == ipv6);
            addresses.map(|address| key(vni, *address)).collect()
        };
        let (gone, come) =
            (keys(before.difference(after).collect()), keys(after.difference(before).collect()));
        batch.delete_elements(&id, name, &spec(ipv6), &gone);
        batch.add_elements(&id, name, &spec(ipv6), come.iter().map(|key| (key, None)));
    }
}

/// Who is admitted by a table that was read.
pub fn members(table: &Table) -> Members {
    let mut members = Members::new();
    for set in MEMBERS.iter().filter_map(|name| table.sets.get(*name)) {
        for (vni, address) in set.elements.keys().filter_map(read_key) {
            members.entry(vni).or_default().insert(address);
        }
    }
    members
}

fn spec(ipv6: bool) -> SetSpec {
    SetSpec::set([Field::Mark, if ipv6 { Field::Ipv6 } else { Field::Ipv4 }])
}

/// The VNI is in the host's byte order, so that the `nft` command shows it as a number.
fn key(vni: Vni, address: IpAddr) -> Key {
    Key::new(&[&vni.get().to_ne_bytes(), &set::address(address)])
}

fn read_key(key: &Key) -> Option<(Vni, IpAddr)> {
    let (vni, address) = key.first.split_at_checked(4)?;
    let vni = Vni::new(u32::from_ne_bytes(vni.try_into().ok()?))?;
    Some((vni, set::to_address(address)?))
}

/// Loads the 24 bits of the VNI; the reserved octet behind them stays zero (RFC 7348 §5).
const fn vni_in_network_order() -> Expr {
    Expr::Payload { base: Base::Transport, offset: VNI_OFFSET, len: 3, to: R0 }
}

/// Holds for UDP to a port.
fn addressed_to(port: u16, then: impl IntoIterator<Item = Expr>) -> Rule {
    let to_port = [
        Expr::Meta { key: Meta::Protocol, to: R0 },
        Expr::eq(R0, &[UDP]),
        destination_port(R0),
        Expr::eq(R0, &port.to_be_bytes()),
    ];
    Rule::new(to_port.into_iter().chain(then).collect::<Vec<_>>())
}

fn admit(ipv6: bool) -> Rule {
    let mut exprs = version(ipv6).to_vec();
    exprs.extend([
        vni_in_network_order(),
        Expr::ToHostOrder { from: R0, to: R0 },
        Expr::ShiftRight { from: R0, to: R0, bits: 8 },
        source(ipv6, Reg::new(1)),
        Expr::Lookup { set: MEMBERS[usize::from(ipv6)].into(), from: R0, to: None },
        ACCEPT,
    ]);
    Rule::new(exprs)
}

fn other_tunnel() -> Rule {
    let value = Vni::MIN_OVERLAY.to_be_bytes()[1..].to_vec();
    Rule::new([vni_in_network_order(), Expr::Cmp { from: R0, op: Cmp::Lt, value }, ACCEPT])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::nft::diff;

    fn sample() -> Members {
        let vni = |number| Vni::for_overlay(number).unwrap();
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]);
        Members::from([
            (vni(4096), BTreeSet::from([[192, 0, 2, 2].into(), [192, 0, 2, 3].into()])),
            (vni(Vni::MAX), BTreeSet::from([[192, 0, 2, 2].into(), v6])),
        ])
    }

    #[test]
    fn n08_members_are_read_back() {
        assert_eq!(members(&table(4789, &sample())), sample());
        assert_eq!(members(&Table::default()), Members::new());
    }

    #[test]
    fn n08_a_change_of_a_member_is_what_differs_and_no_more() {
        let (before, mut after) = (sample(), sample());
        let (vni, addresses) = after.first_entry().map(|e| (*e.key(), e.into_mut())).unwrap();
        addresses.remove(&IpAddr::from([192, 0, 2, 3]));
        addresses.insert([192, 0, 2, 9].into());
        let mut batch = Batch::new();
        change(&mut batch, vni, &before[&vni], &after[&vni]);
        let whole = diff(&table_id(), Some(&table(4789, &after)), Some(&table(4789, &before)));
        assert_eq!(batch.changes().count(), 2);
        assert_eq!(batch.encode(1), whole.encode(1));
    }
}
