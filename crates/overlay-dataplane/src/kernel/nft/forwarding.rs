//! Hosts that forward nothing by default.
//!
//! Docker, and many who configure iptables, set the policy of the FORWARD chain to DROP. What one
//! table drops, no other table can let pass: a rule of ours for the gateway bridge, or for the cable of the
//! routing mesh, has to be in that chain itself. So where `ip filter FORWARD` or `ip6 filter FORWARD`, which `iptables-nft` owns, has
//! the policy DROP, two rules are added **at its end** for each: what comes from the device, and what
//! goes to it, is accepted. They are of the form that `iptables -S` shows. They override the policy
//! and no rule: whatever Docker's DOCKER-USER or an administrator refuses is refused before. What
//! the gateway's own table refuses stays refused.
//!
//! Nothing is done about a rule that refuses everything at the end of FORWARD, about chains of others
//! in other tables (firewalld's, `/etc/nftables.conf`), or about the xtables of `iptables-legacy`,
//! which nf_tables does not see. [`obstacles`] names the chains with the policy DROP that are left
//! alone, for a log.

use super::{
    batch::Batch,
    dump::{DumpedChain, DumpedRule},
    error::NftError,
    expr::{ACCEPT, Cmp, Expr},
    packet::{came_through, leaves_through},
    socket::Nft,
    table::{Family, HookPoint, Policy, Rule, TableId},
};

/// Where `iptables-nft` keeps what is forwarded.
const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
/// Families that it has tables in.
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// Whose traffic is to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The gateway bridge's.
    Gateway,
    /// The routing mesh's cable's.
    Mesh,
}

impl Passage {
    const ALL: [Self; 2] = [Self::Gateway, Self::Mesh];

    /// Marks rules as ours in a table that is not.
    const fn comment(self) -> &'static str {
        match self {
            Self::Gateway => "overlay networks",
            Self::Mesh => "overlay networks: mesh",
        }
    }

    fn has(self, dumped: &DumpedRule) -> bool {
        dumped.rule.comment.as_deref() == Some(self.comment())
    }

    /// The rules that a FORWARD chain gets for a device.
    fn rules(self, device: &str) -> [Rule; 2] {
        [came_through(device, Cmp::Eq), leaves_through(device, Cmp::Eq)].map(|matched| {
            let mut exprs = matched.to_vec();
            exprs.extend([Expr::Counter, ACCEPT]);
            Rule::new(exprs).comment(self.comment())
        })
    }
}

/// Adds to `batch` what makes a passage's rules at the end of a chain those of `device`, or none.
///
/// Ours have to be the last ones: they must not override what somebody appends later.
fn change(
    batch: &mut Batch,
    id: &TableId,
    (passage, device): (Passage, Option<&str>),
    observed: &[DumpedRule],
) {
    let wanted = device.map_or_else(Vec::new, |device| passage.rules(device).to_vec());
    let ours = observed.iter().filter(|dumped| passage.has(dumped));
    let of_any = |dumped: &&DumpedRule| Passage::ALL.iter().any(|any| any.has(dumped));
    let last = observed.iter().rev().take_while(of_any).filter(|dumped| passage.has(dumped));
    let are_last = last.map(|dumped| &dumped.rule).eq(wanted.iter().rev());
    if are_last && ours.clone().count() == wanted.len() {
        return;
    }
    for dumped in ours {
        batch.delete_rule(id, CHAIN, dumped.handle);
    }
    for rule in &wanted {
        batch.add_rule(id, CHAIN, rule);
    }
}

/// Makes the FORWARD chains that drop by default forward for `device`, or takes that back (`None`).
/// Says what it changed.
pub fn reconcile(
    nft: &mut Nft,
    passage: Passage,
    device: Option<&str>,
) -> Result<Vec<String>, NftError> {
    let mut changed = Vec::new();
    for family in FAMILIES {
        let id = TableId::new(family, TABLE);
        let chains = nft.chains(family)?;
        let Some(chain) = chains.iter().find(|chain| is_iptables_forward(chain)) else { continue };
        let drops = chain.chain.hook.as_ref().is_some_and(|hook| hook.policy == Policy::Drop);
        let mut batch = Batch::new();
        let device = device.filter(|_| drops);
        change(&mut batch, &id, (passage, device), &nft.rules(&id, CHAIN)?);
        nft.apply(&batch)?;
        changed.extend(batch.changes().map(str::to_owned));
    }
    Ok(changed)
}

/// Chains of others that drop what no rule of theirs accepts, and that are left alone.
pub fn obstacles(nft: &mut Nft) -> Result<Vec<String>, NftError> {
    let mut found = Vec::new();
    for family in [Family::Inet, Family::Ipv4, Family::Ipv6] {
        for dumped in nft.chains(family)? {
            let hook = dumped.chain.hook.as_ref();
            let drops = hook.is_some_and(|hook| {
                hook.point == HookPoint::Forward && hook.policy == Policy::Drop
            });
            if drops && !(FAMILIES.contains(&family) && is_iptables_forward(&dumped)) {
                let table = TableId::new(family, &dumped.table);
                found.push(format!("chain {} of {table}", dumped.name));
            }
        }
    }
    Ok(found)
}

fn is_iptables_forward(chain: &DumpedChain) -> bool {
    let hooked = chain.chain.hook.as_ref().is_some_and(|hook| hook.point == HookPoint::Forward);
    chain.table == TABLE && chain.name == CHAIN && hooked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(handle: u64, rule: Rule) -> DumpedRule {
        DumpedRule { chain: CHAIN.into(), handle, rule }
    }

    fn changes(device: Option<&str>, observed: &[DumpedRule]) -> usize {
        changes_of(Passage::Gateway, device, observed)
    }

    fn changes_of(passage: Passage, device: Option<&str>, observed: &[DumpedRule]) -> usize {
        let mut batch = Batch::new();
        change(&mut batch, &TableId::new(Family::Ipv4, TABLE), (passage, device), observed);
        batch.changes().count()
    }

    /// Both are last, in either order.
    #[test]
    fn two_passages_do_not_mind_each_other() {
        let [a, b] = Passage::Gateway.rules("gw");
        let [c, d] = Passage::Mesh.rules("cable");
        let all = [a, b, c, d].map(|rule| dumped(1, rule));
        for _ in 0..2 {
            assert_eq!(changes_of(Passage::Gateway, Some("gw"), &all), 0);
            assert_eq!(changes_of(Passage::Mesh, Some("cable"), &all), 0);
            assert_eq!(changes_of(Passage::Mesh, None, &all), 2);
        }
        let theirs = dumped(9, Rule::new([Expr::Counter, ACCEPT]));
        let behind = [&all[..], &[theirs]].concat();
        assert_eq!(changes_of(Passage::Gateway, Some("gw"), &behind), 4);
    }

    #[test]
    fn only_our_own_rules_are_changed() {
        let theirs = dumped(3, Rule::new([Expr::Counter, ACCEPT]));
        let [input, output] = Passage::Gateway.rules("gw");
        assert_eq!(changes(Some("gw"), core::slice::from_ref(&theirs)), 2);
        let ours = [theirs, dumped(4, input), dumped(5, output)];
        assert_eq!(changes(Some("gw"), &ours), 0);
        assert_eq!(changes(Some("other"), &ours), 4);
        assert_eq!(changes(None, &ours), 2);
        assert_eq!(changes(None, &ours[..1]), 0);
        assert_eq!(changes(Some("gw"), &ours[..2]), 3);
        let appended = [&ours[1..], &ours[..1]].concat();
        assert_eq!(changes(Some("gw"), &appended), 4);
    }
}
