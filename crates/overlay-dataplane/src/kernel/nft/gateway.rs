//! The way out of endpoints, and ports that are published on their host (N18, S15, S16).
//!
//! ```text
//!  out:   endpoint ─► bridge ─► forward ─► masquerade ─► anywhere but the bridge
//!  in:    host address:published ─► dnat ─► forward (translated: passes) ─► endpoint:target
//!  local: a process of the host, or an endpoint, asks for host address:published:
//!         the same, and the answer comes back through the host, whose address is the source
//! ```
//!
//! What the links have to do: the ports of the bridge are set up as [`PortMode`] says, which keeps
//! frames between endpoints off; what an endpoint sends to another through the host is refused here.
//! For published ports on 127.0.0.1 the bridge needs `route_localnet`; this table keeps endpoints from
//! sending to 127.0.0.0/8 with it. There is no such setting for `::1`: a published port does not
//! answer there.
//!
//! A bridge that was there before may serve others too: whoever plans for it chooses what is done.

use overlay_types::Subnet;

use super::{
    expr::{Base, Cmp, Ct, DROP, Expr, FibAddress, LOCAL, ct_state, ct_status},
    packet::{R0, bits, came_through, leaves_through, of_no_connection, source, version},
    publish::{self, Ports},
    set,
    table::{Chain, ChainKind, Family, Hook, HookPoint, Rule, Table, TableId},
};

/// Priorities of `nft`: raw, filter, srcnat.
const RAW: i32 = -300;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// A gateway bridge and what is published through it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gateway {
    /// Name of the bridge.
    pub bridge: String,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// What leaves through another device gets that device's address.
    pub masquerade: bool,
    /// Endpoints reach one another only through published ports, and nobody reaches them
    /// otherwise unasked.
    pub isolated: bool,
    /// Published ports, and where they lead.
    pub ports: Ports,
}

/// How a port of the bridge is to be set up, so that endpoints reach published ports of their own
/// host, and nothing else of one another.
///
/// Where Docker or Kubernetes run, packets that a bridge handles are filtered and translated like
/// routed ones (`br_netfilter`). The kernel then hands a packet that was translated to another port of
/// the same bridge over inside the bridge: an isolated port would refuse it, and a port without
/// hairpin mode refuses what it sent itself. What was not translated, this table refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMode {
    /// `IFLA_BRPORT_ISOLATED`.
    pub isolated: bool,
    /// `IFLA_BRPORT_MODE`.
    pub hairpin: bool,
}

impl PortMode {
    /// The mode where `net.bridge.bridge-nf-call-iptables` and `…-ip6tables` are so. With only one of
    /// them, keeping endpoints apart goes first.
    pub const fn new(call_iptables: bool, call_ip6tables: bool) -> Self {
        let filtered = call_iptables && call_ip6tables;
        Self { isolated: !filtered, hairpin: filtered }
    }
}

/// Where bridges hand no packets to the firewall.
impl Default for PortMode {
    fn default() -> Self {
        Self::new(false, false)
    }
}

/// The table's name.
pub fn table_id() -> TableId {
    TableId::new(Family::Inet, "overlay_gateway")
}

impl Gateway {
    /// The table that does it.
    pub fn table(&self) -> Table {
        let comment = format!("overlay networks: {} and published ports", self.bridge);
        let mut table = Table { comment: Some(comment), ..Table::default() };
        publish::add_to(&mut table, &self.ports);
        let hooked = |kind, point, priority, rules| Chain {
            hook: Some(Hook::new(kind, point, priority)),
            rules,
        };
        let (filter, nat) = (ChainKind::Filter, ChainKind::Nat);
        table.chains.extend([
            ("guard".into(), hooked(filter, HookPoint::Prerouting, RAW, vec![self.guard()])),
            ("forward".into(), hooked(filter, HookPoint::Forward, FILTER, self.forward())),
            ("postrouting".into(), hooked(nat, HookPoint::Postrouting, SRCNAT, self.postrouting())),
        ]);
        table
    }

    /// Endpoints do not get at what listens on the host's loopback addresses only.
    fn guard(&self) -> Rule {
        let mut exprs = came_through(&self.bridge, Cmp::Eq).to_vec();
        exprs.extend(version(false));
        exprs.extend([
            Expr::Payload { base: Base::Network, offset: 16, len: 1, to: R0 },
            Expr::eq(R0, &[127]),
            Expr::Counter,
            DROP,
        ]);
        Rule::new(exprs).comment("to the host's loopback")
    }

    fn forward(&self) -> Vec<Rule> {
        if !self.isolated {
            return Vec::new();
        }
        let translated = [Expr::Ct { key: Ct::Status, to: R0 }];
        let not_translated = || translated.iter().cloned().chain(bits(ct_status::DNAT, Cmp::Eq));
        let mut unknown: Vec<_> = leaves_through(&self.bridge, Cmp::Eq).into();
        unknown.extend(of_no_connection());
        unknown.extend([Expr::Counter, DROP]);
        let mut between: Vec<_> = came_through(&self.bridge, Cmp::Eq).into();
        between.extend(leaves_through(&self.bridge, Cmp::Eq));
        between.extend(not_translated());
        between.extend([Expr::Counter, DROP]);
        let mut unasked: Vec<_> = leaves_through(&self.bridge, Cmp::Eq).into();
        unasked.push(Expr::Ct { key: Ct::State, to: R0 });
        unasked.extend(bits(ct_state::ESTABLISHED | ct_state::RELATED, Cmp::Eq));
        unasked.extend(not_translated());
        unasked.extend([Expr::Counter, DROP]);
        vec![
            Rule::new(unknown).comment("of no connection"),
            Rule::new(between).comment("between endpoints"),
            Rule::new(unasked).comment("to what is not published"),
        ]
    }

    fn postrouting(&self) -> Vec<Rule> {
        let mut rules = vec![self.answer_through_host(
            &[
                Expr::AddressType { of: FibAddress::Source, to: R0 },
                Expr::eq(R0, &LOCAL.to_ne_bytes()),
            ],
            "from the host to a published port",
        )];
        for subnet in &self.subnets {
            let from_subnet = within(*subnet);
            rules.push(
                self.answer_through_host(&from_subnet, "from an endpoint to a published port"),
            );
            if self.masquerade {
                let mut exprs = from_subnet;
                exprs.extend(leaves_through(&self.bridge, Cmp::Ne));
                exprs.push(Expr::Masquerade);
                rules.push(Rule::new(exprs).comment("the way out"));
            }
        }
        rules
    }

    /// What goes to a published port from behind or on the host gets the bridge's address, so that
    /// answers come back to be translated.
    fn answer_through_host(&self, from: &[Expr], comment: &str) -> Rule {
        let mut exprs = from.to_vec();
        exprs.extend(leaves_through(&self.bridge, Cmp::Eq));
        exprs.push(Expr::Ct { key: Ct::Status, to: R0 });
        exprs.extend(bits(ct_status::DNAT, Cmp::Ne));
        exprs.push(Expr::Masquerade);
        Rule::new(exprs).comment(comment)
    }
}

/// Holds for packets whose source is in the subnet.
fn within(subnet: Subnet) -> Vec<Expr> {
    let ipv6 = !subnet.is_ipv4();
    let first = set::address(subnet.first());
    let octets = first.len() * 8 - usize::from(subnet.prefix_len());
    let mask = if ipv6 {
        u128::MAX.checked_shl(octets as u32).unwrap_or(0).to_be_bytes().to_vec()
    } else {
        u32::MAX.checked_shl(octets as u32).unwrap_or(0).to_be_bytes().to_vec()
    };
    let mut exprs = version(ipv6).to_vec();
    let xor = vec![0; first.len()];
    exprs.extend([
        source(ipv6, R0),
        Expr::Bitwise { from: R0, to: R0, mask, xor },
        Expr::eq(R0, &first),
    ]);
    exprs
}
