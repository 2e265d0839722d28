//! Tables, chains and rules.

use std::collections::BTreeMap;

use super::{expr::Expr, set::Set};

/// What packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Frames that a bridge handles.
    Bridge,
    /// Frames of one device.
    Netdev,
}

impl Family {
    /// `NFPROTO_*`.
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ipv6 => 10,
        }
    }

    /// The family's name for the `nft` command.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ipv6 => "ip6",
        }
    }
}

/// Which table of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl TableId {
    /// The table with this name in this family.
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.to_owned() }
    }
}

/// Shown as the `nft` command has it.
impl core::fmt::Display for TableId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "table {} {}", self.family.as_str(), self.name)
    }
}

/// A table with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Shown by `nft list ruleset`.
    pub comment: Option<String>,
    /// Its chains see nothing. Never so in a table of ours, until somebody makes it so.
    pub dormant: bool,
    /// Chains, by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps, by name.
    pub sets: BTreeMap<String, Set>,
    /// What is in it that nothing of ours could be, by name. Never so in a table of ours, until
    /// somebody adds it.
    pub foreign: Vec<String>,
}

/// A list of rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where packets come from; `None` for a chain that rules jump to.
    pub hook: Option<Hook>,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Where in the stack it is.
    pub point: HookPoint,
    /// Lower comes first.
    pub priority: i32,
    /// What becomes of packets that no rule decides about.
    pub policy: Policy,
    /// The device, of a chain in a netdev table.
    pub device: Option<String>,
}

impl Hook {
    /// A hook for all devices that lets pass what no rule decides about.
    pub const fn new(kind: ChainKind, point: HookPoint, priority: i32) -> Self {
        Self { kind, point, priority, policy: Policy::Accept, device: None }
    }
}

/// What the rules of a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Let pass or drop.
    Filter,
    /// See the first packet of each connection, and translate addresses.
    Nat,
    /// Change what is routed by.
    Route,
}

impl ChainKind {
    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Filter, Self::Nat, Self::Route].into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kernel's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// A place in the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Received, not routed yet.
    Prerouting,
    /// For this namespace.
    Input,
    /// From one device to another.
    Forward,
    /// From a process of this namespace.
    Output,
    /// About to be sent.
    Postrouting,
    /// Received by a device; only in netdev tables here.
    Ingress,
    /// Sent by a device; only in netdev tables.
    Egress,
}

impl HookPoint {
    const IP: [Self; 5] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];
    const NETDEV: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn of(family: Family) -> &'static [Self] {
        if matches!(family, Family::Netdev) { &Self::NETDEV } else { &Self::IP }
    }

    /// Number of the hook in tables of `family`. One that the family does not have gets a number
    /// that the kernel refuses.
    pub fn number(self, family: Family) -> u32 {
        Self::of(family).iter().position(|point| *point == self).map_or(u32::MAX, |at| at as u32)
    }

    /// The hook with this number in tables of `family`.
    pub fn from_number(family: Family, number: u32) -> Option<Self> {
        Self::of(family).get(number as usize).copied()
    }
}

/// What becomes of packets that no rule of a base chain decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// They go on.
    Accept,
    /// They are dropped.
    Drop,
}

/// One rule: expressions that are evaluated until one does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Shown by `nft list ruleset`.
    pub comment: Option<String>,
    /// In the order in which they are evaluated.
    pub exprs: Vec<Expr>,
}

impl Rule {
    /// A rule without comment.
    pub fn new(exprs: impl Into<Vec<Expr>>) -> Self {
        Self { comment: None, exprs: exprs.into() }
    }

    /// The rule with this comment, of at most 127 octets.
    #[must_use]
    pub fn comment(mut self, text: &str) -> Self {
        self.comment = Some(text.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_have_the_numbers_of_their_family() {
        assert_eq!(HookPoint::Postrouting.number(Family::Inet), 4);
        assert_eq!(HookPoint::Egress.number(Family::Netdev), 1);
        assert_eq!(HookPoint::Input.number(Family::Netdev), u32::MAX);
        for family in [Family::Inet, Family::Netdev] {
            for point in HookPoint::of(family) {
                let number = point.number(family);
                assert_eq!(HookPoint::from_number(family, number), Some(*point));
            }
        }
    }
}
