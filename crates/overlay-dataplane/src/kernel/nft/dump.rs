//! Tables from the messages in which the kernel lists them.

use std::collections::BTreeMap;

use super::{
    attribute::{Attributes, Message, text},
    batch::{CONCATENATION, EVAL, INTERVAL, INTERVAL_END, MAP, TIMEOUT, VERDICT_TYPE, predecessor},
    expr::{data, decode},
    set::{self, Data, DataSpec, Filled, Key, SetSpec},
    table::{Chain, ChainKind, Family, Hook, HookPoint, Policy, Rule, Table},
};

/// `NFT_TABLE_F_DORMANT`.
const DORMANT: u32 = 1;
/// Flags of sets that ours have.
const KNOWN_SET_FLAGS: u32 = INTERVAL | MAP | CONCATENATION | TIMEOUT | EVAL;

/// A chain, and the table that it is in.
#[derive(Debug)]
pub struct DumpedChain {
    /// Name of the table.
    pub table: String,
    /// Name of the chain.
    pub name: String,
    /// The chain, without rules.
    pub chain: Chain,
    /// Why it is none that could be ours.
    pub is_foreign: bool,
}

/// A rule with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedRule {
    /// Name of the chain.
    pub chain: String,
    /// Names the rule in its table.
    pub handle: u64,
    /// The rule.
    pub rule: Rule,
}

/// What a rule with a counter and a comment has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Names the rule in its table.
    pub handle: u64,
    /// The rule's comment.
    pub comment: String,
    /// Packets that got as far as the counter.
    pub packets: u64,
}

/// A set.
#[derive(Debug)]
pub(super) struct DumpedSet {
    pub(super) name: String,
    /// What it holds; `None` when it is nothing that could be ours.
    pub(super) spec: Option<SetSpec>,
}

/// One element of the kernel's.
#[derive(Debug)]
pub(super) struct DumpedElement {
    key: Key,
    data: Option<Data>,
    ends: bool,
}

pub(super) fn table(message: Message<'_>) -> Table {
    let a = message.attributes();
    let comment = a.get(6).and_then(comment);
    Table { comment, dormant: a.u32(2).unwrap_or(0) & DORMANT != 0, ..Table::default() }
}

pub(super) fn chain(message: Message<'_>, family: Family) -> Option<DumpedChain> {
    let a = message.attributes();
    let (hook, is_foreign) = match a.nest(4) {
        Some(nested) => {
            let hook = hook(a, nested, family);
            let is_foreign = hook.is_none();
            (hook, is_foreign)
        }
        None => (None, false),
    };
    let chain = Chain { hook, rules: Vec::new() };
    Some(DumpedChain { table: a.text(1)?, name: a.text(3)?, chain, is_foreign })
}

fn hook(a: Attributes<'_>, nested: Attributes<'_>, family: Family) -> Option<Hook> {
    Some(Hook {
        kind: ChainKind::parse(&a.text(7)?)?,
        point: HookPoint::from_number(family, nested.u32(1)?)?,
        priority: nested.u32(2)?.cast_signed(),
        policy: if a.u32(5)? == 0 { Policy::Drop } else { Policy::Accept },
        device: nested.text(3),
    })
}

pub(super) fn rule(message: Message<'_>) -> Option<DumpedRule> {
    let a = message.attributes();
    let expressions = a.nest(4).unwrap_or(Attributes(&[]));
    let exprs = expressions.iter().map(|(_, payload)| {
        let expression = Attributes(payload);
        let name = expression.text(1).unwrap_or_default();
        decode(&name, expression.nest(2).unwrap_or(Attributes(&[])))
    });
    let rule = Rule { comment: a.get(7).and_then(comment), exprs: exprs.collect() };
    Some(DumpedRule { chain: a.text(2)?, handle: a.u64(3)?, rule })
}

pub(super) fn counted(message: Message<'_>) -> Option<Counted> {
    let a = message.attributes();
    let counter = a.nest(4)?.iter().find_map(|(_, payload)| {
        let expression = Attributes(payload);
        let is_counter = expression.text(1).is_some_and(|name| name == "counter");
        if is_counter { expression.nest(2) } else { None }
    })?;
    let comment = a.get(7).and_then(comment)?;
    Some(Counted { handle: a.u64(3)?, comment, packets: counter.u64(2)? })
}

pub(super) fn set(message: Message<'_>) -> Option<DumpedSet> {
    let a = message.attributes();
    Some(DumpedSet { name: a.text(2)?, spec: spec(a) })
}

fn spec(a: Attributes<'_>) -> Option<SetSpec> {
    let flags = a.u32(3).unwrap_or(0);
    let key = set::fields(a.u32(4)?)?;
    let data = if flags & MAP == 0 {
        None
    } else if a.u32(6)? == VERDICT_TYPE {
        Some(DataSpec::Verdict)
    } else {
        let fields = set::fields(a.u32(6)?)?;
        (set::length(&fields) as u32 == a.u32(7)?).then_some(())?;
        Some(DataSpec::Value(fields))
    };
    let filled = match (flags & EVAL != 0, flags & TIMEOUT != 0) {
        (false, false) => None,
        (true, true) => Some(Filled { timeout_ms: a.u64(11)?, size: a.nest(9)?.u32(1)? }),
        _ => return None,
    };
    let is_ours = flags & !KNOWN_SET_FLAGS == 0 && set::length(&key) as u32 == a.u32(5)?;
    is_ours.then_some(SetSpec { key, data, interval: flags & INTERVAL != 0, filled })
}

pub(super) fn elements(message: Message<'_>) -> Vec<DumpedElement> {
    let list = message.attributes().nest(3).unwrap_or(Attributes(&[]));
    list.iter().filter_map(|(_, payload)| element(Attributes(payload))).collect()
}

fn element(a: Attributes<'_>) -> Option<DumpedElement> {
    let last = a.nest(10).and_then(|value| Some(value.get(1)?.to_vec()));
    Some(DumpedElement {
        key: Key { first: a.nest(1)?.get(1)?.to_vec(), last },
        data: a.nest(2).and_then(data),
        ends: a.u32(3).unwrap_or(0) & INTERVAL_END != 0,
    })
}

/// Puts the ends of ranges to their beginnings.
pub(super) fn assemble(
    spec: &SetSpec,
    elements: Vec<DumpedElement>,
) -> BTreeMap<Key, Option<Data>> {
    if !(spec.interval && spec.key.len() == 1) {
        return elements.into_iter().map(|element| (element.key, element.data)).collect();
    }
    let mut elements = elements;
    // A range can end where the next begins: the end comes first.
    elements.sort_by(|a, b| (&a.key.first, !a.ends).cmp(&(&b.key.first, !b.ends)));
    let mut ranges = BTreeMap::new();
    let mut open: Option<DumpedElement> = None;
    let close = |begun: DumpedElement, last: Vec<u8>, ranges: &mut BTreeMap<_, _>| {
        ranges.insert(Key { first: begun.key.first, last: Some(last) }, begun.data);
    };
    for element in elements {
        if let Some(begun) = open.take() {
            close(begun, predecessor(&element.key.first), &mut ranges);
        }
        open = (!element.ends).then_some(element);
    }
    if let Some(begun) = open {
        let highest = vec![0xff; begun.key.first.len()];
        close(begun, highest, &mut ranges);
    }
    ranges
}

/// The `nft` command's comment in user data.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let payload = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(payload));
        }
        data = &rest[usize::from(*length)..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        netlink::replies,
        nft::{attribute::Writer, set::Field},
    };

    fn range(first: u8, last: u8) -> Key {
        Key::range(&[&[first]], &[&[last]])
    }

    #[test]
    fn ranges_are_put_together() {
        let spec = SetSpec::set([Field::Protocol]).interval();
        let element = |key: u8, ends| DumpedElement { key: Key::new(&[&[key]]), data: None, ends };
        // As the kernel may have them: in any order, the last one without an end.
        let kernel = vec![
            element(200, false),
            element(20, true),
            element(10, false),
            element(20, false),
            element(30, true),
            element(0, true),
        ];
        let ranges: Vec<_> = assemble(&spec, kernel).into_keys().collect();
        assert_eq!(ranges, [range(10, 19), range(20, 29), range(200, 255)]);
    }

    #[test]
    fn octets_that_are_no_dump_are_survived() {
        let mut writer = Writer::default();
        writer.message(1, 0, 0, 0, |w| {
            w.octets(4, &[9; 7]);
            w.octets(7, &[0, 200, 1]);
        });
        for message in replies(writer.bytes()) {
            assert!(rule(message).is_none());
            assert!(chain(message, Family::Inet).is_none());
            assert!(set(message).is_none());
            assert!(elements(message).is_empty());
            assert_eq!(table(message), Table::default());
        }
    }
}
