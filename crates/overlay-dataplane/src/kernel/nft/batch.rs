//! One transaction as netlink messages.
//!
//! ```text
//! BATCH_BEGIN | add table … | add chain … | add rule … | BATCH_END     one datagram, all or nothing
//! ```

use super::{
    attribute::{Attributes, FAMILY_LEN, HEADER_LEN, Writer},
    set::{self, Data, DataSpec, Key, SetSpec},
    table::{Chain, Hook, Policy, Rule, Table, TableId},
};

/// nf_tables in the upper octet of a message's type: `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE`, `NLM_F_APPEND`.
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 16;
const END: u16 = 17;
/// `NFT_MSG_*`.
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM + 2;
const NEW_CHAIN: u16 = SUBSYSTEM + 3;
const DEL_CHAIN: u16 = SUBSYSTEM + 5;
const NEW_RULE: u16 = SUBSYSTEM + 6;
const DEL_RULE: u16 = SUBSYSTEM + 8;
const NEW_SET: u16 = SUBSYSTEM + 9;
const DEL_SET: u16 = SUBSYSTEM + 11;
const NEW_ELEMENTS: u16 = SUBSYSTEM + 12;
const DEL_ELEMENTS: u16 = SUBSYSTEM + 14;

/// Elements in one message: an attribute has at most 64 KiB, the longest element some 200 octets,
/// and the kernel repeats a message that it refuses.
const ELEMENTS_PER_MESSAGE: usize = 128;

/// `NFT_SET_*` flags.
pub(super) const INTERVAL: u32 = 4;
pub(super) const MAP: u32 = 8;
pub(super) const CONCATENATION: u32 = 0x80;
pub(super) const TIMEOUT: u32 = 0x10;
pub(super) const EVAL: u32 = 0x20;
/// `NFT_DATA_VERDICT`.
pub(super) const VERDICT_TYPE: u32 = 0xffff_ff00;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;

/// Changes that are made together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    writer: Writer,
    objects: Vec<Object>,
    sets: u32,
}

/// One message of a batch.
#[derive(Debug, Clone)]
struct Object {
    /// Where it begins.
    start: usize,
    /// What it does, for people.
    what: String,
}

impl Batch {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// What it does, for people, message by message.
    pub fn changes(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().map(|object| object.what.as_str())
    }

    /// Adds a table without what is in it; none is added when it is there.
    pub fn add_table(&mut self, id: &TableId, table: &Table) {
        self.push(format!("add {id}"), NEW_TABLE, CREATE, id, |w| {
            w.text(1, &id.name);
            w.u32(2, 0);
            if let Some(comment) = &table.comment {
                w.octets(6, &user_text(comment));
            }
        });
    }

    /// Adds a table with all that is in it.
    pub fn add_all(&mut self, id: &TableId, table: &Table) {
        self.add_table(id, table);
        for (name, set) in &table.sets {
            self.add_set(id, name, &set.spec);
        }
        for (name, chain) in &table.chains {
            self.add_chain(id, name, chain.hook.as_ref());
        }
        for (name, set) in &table.sets {
            let elements = set.elements.iter().map(|(key, data)| (key, data.as_ref()));
            self.add_elements(id, name, &set.spec, elements);
        }
        for (name, chain) in &table.chains {
            self.add_rules(id, name, chain);
        }
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, id: &TableId) {
        self.push(format!("delete {id}"), DEL_TABLE, 0, id, |w| w.text(1, &id.name));
    }

    /// Adds a chain without rules.
    pub fn add_chain(&mut self, id: &TableId, name: &str, hook: Option<&Hook>) {
        self.push(format!("add chain {name} of {id}"), NEW_CHAIN, CREATE, id, |w| {
            w.text(1, &id.name);
            w.text(3, name);
            let Some(hook) = hook else { return };
            w.nest(4, |w| {
                w.u32(1, hook.point.number(id.family));
                w.u32(2, hook.priority.cast_unsigned());
                if let Some(device) = &hook.device {
                    w.text(3, device);
                }
            });
            w.u32(5, policy(hook.policy));
            w.text(7, hook.kind.as_str());
        });
    }

    /// Changes the policy of a base chain.
    pub fn set_policy(&mut self, id: &TableId, name: &str, new: Policy) {
        self.push(format!("change the policy of chain {name} of {id}"), NEW_CHAIN, 0, id, |w| {
            w.text(1, &id.name);
            w.text(3, name);
            w.u32(5, policy(new));
        });
    }

    /// Deletes a chain that nothing jumps to.
    pub fn delete_chain(&mut self, id: &TableId, name: &str) {
        self.push(format!("delete chain {name} of {id}"), DEL_CHAIN, 0, id, |w| {
            w.text(1, &id.name);
            w.text(3, name);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, id: &TableId, name: &str) {
        self.push(format!("flush chain {name} of {id}"), DEL_RULE, 0, id, |w| {
            w.text(1, &id.name);
            w.text(2, name);
        });
    }

    /// Adds a chain's rules behind those that it has.
    pub fn add_rules(&mut self, id: &TableId, name: &str, chain: &Chain) {
        for rule in &chain.rules {
            self.add_rule(id, name, rule);
        }
    }

    /// Adds a rule behind those that a chain has.
    pub fn add_rule(&mut self, id: &TableId, chain: &str, rule: &Rule) {
        let named = rule.comment.as_deref().map_or_else(String::new, |c| format!(" {c:?}"));
        let what = format!("add rule{named} to chain {chain} of {id}");
        self.push(what, NEW_RULE, CREATE | APPEND, id, |w| {
            w.text(1, &id.name);
            w.text(2, chain);
            w.nest(4, |w| rule.exprs.iter().for_each(|expr| w.nest(1, |w| expr.encode(w))));
            if let Some(comment) = &rule.comment {
                w.octets(7, &user_text(comment));
            }
        });
    }

    /// Deletes the rule with this handle.
    pub fn delete_rule(&mut self, id: &TableId, chain: &str, handle: u64) {
        let what = format!("delete rule {handle} of chain {chain} of {id}");
        self.push(what, DEL_RULE, 0, id, |w| {
            w.text(1, &id.name);
            w.text(2, chain);
            w.u64(3, handle);
        });
    }

    /// Adds a set or map with nothing in it.
    pub fn add_set(&mut self, id: &TableId, name: &str, spec: &SetSpec) {
        self.sets += 1;
        let number = self.sets;
        self.push(format!("add set {name} of {id}"), NEW_SET, CREATE, id, |w| {
            w.text(1, &id.name);
            w.text(2, name);
            encode_spec(w, spec);
            w.u32(10, number);
        });
    }

    /// Deletes a set or map that no rule looks into.
    pub fn delete_set(&mut self, id: &TableId, name: &str) {
        self.push(format!("delete set {name} of {id}"), DEL_SET, 0, id, |w| {
            w.text(1, &id.name);
            w.text(2, name);
        });
    }

    /// Adds elements. One whose key is there is refused, unless it is the same.
    pub fn add_elements<'a>(
        &mut self,
        id: &TableId,
        set: &str,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = (&'a Key, Option<&'a Data>)>,
    ) {
        self.push_elements("add", NEW_ELEMENTS, CREATE, (id, set, spec), elements);
    }

    /// Deletes elements that are there.
    pub fn delete_elements<'a>(
        &mut self,
        id: &TableId,
        set: &str,
        spec: &SetSpec,
        keys: impl IntoIterator<Item = &'a Key>,
    ) {
        let elements = keys.into_iter().map(|key| (key, None));
        self.push_elements("delete", DEL_ELEMENTS, 0, (id, set, spec), elements);
    }

    fn push_elements<'a>(
        &mut self,
        verb: &str,
        kind: u16,
        flags: u16,
        (id, set, spec): (&TableId, &str, &SetSpec),
        elements: impl IntoIterator<Item = (&'a Key, Option<&'a Data>)>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let what = format!("{verb} elements of set {set} of {id}");
            self.push(what, kind, flags, id, |w| {
                w.text(1, &id.name);
                w.text(2, set);
                w.nest(3, |w| {
                    for (key, data) in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                        encode_element(w, spec, key, data);
                    }
                });
            });
        }
    }

    fn push(
        &mut self,
        what: String,
        kind: u16,
        flags: u16,
        id: &TableId,
        content: impl FnOnce(&mut Writer),
    ) {
        self.objects.push(Object { start: self.writer.len(), what });
        self.writer.message(kind, REQUEST | flags, id.family.number(), 0, content);
    }

    /// The datagram whose first message has the sequence number `first`, and the number of the
    /// message that is acknowledged when all of them are done.
    pub(super) fn encode(&self, first: u32) -> (Vec<u8>, u32) {
        let mut whole = Writer::default();
        whole.message(BEGIN, REQUEST, 0, SUBSYSTEM >> 8, |_| {});
        let offset = whole.len();
        let mut bytes = [whole.bytes(), self.writer.bytes()].concat();
        let end = bytes.len();
        let mut ending = Writer::default();
        ending.message(END, REQUEST, 0, SUBSYSTEM >> 8, |_| {});
        bytes.extend_from_slice(ending.bytes());

        let objects = self.objects.iter().map(|object| offset + object.start);
        let mut sequence = first;
        for start in [0].into_iter().chain(objects).chain([end]) {
            bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
        }
        if let Some(last) = self.objects.last() {
            let flags = offset + last.start + 6;
            bytes[flags] |= ACK as u8;
        }
        (bytes, sequence.wrapping_sub(2))
    }

    /// What the message with this number, counted from `BATCH_BEGIN`, does; and which element the
    /// offset in it is about.
    pub(super) fn describe(&self, number: u32, offset: Option<u32>) -> String {
        let Some(index) = (number as usize).checked_sub(1) else {
            return "commit a transaction".to_owned();
        };
        let Some(object) = self.objects.get(index) else { return "end a transaction".to_owned() };
        let end = self.objects.get(index + 1).map_or(self.writer.len(), |next| next.start);
        let message = &self.writer.bytes()[object.start..end];
        match offset.and_then(|offset| element_at(message, offset as usize)) {
            Some(key) => format!("{}, key {key}", object.what),
            None => object.what.clone(),
        }
    }
}

const fn policy(policy: Policy) -> u32 {
    match policy {
        Policy::Drop => 0,
        Policy::Accept => 1,
    }
}

/// A text as the `nft` command keeps comments: type 0, length, octets that end in a zero.
fn user_text(text: &str) -> Vec<u8> {
    [&[0, text.len() as u8 + 1], text.as_bytes(), &[0]].concat()
}

fn encode_spec(w: &mut Writer, spec: &SetSpec) {
    let ranges_of_several = spec.interval && spec.key.len() > 1;
    let mut flags = 0;
    for (flag, set) in [
        (INTERVAL, spec.interval),
        (MAP, spec.data.is_some()),
        (CONCATENATION, ranges_of_several),
        (TIMEOUT | EVAL, spec.filled.is_some()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    w.u32(3, flags);
    w.u32(4, set::type_number(&spec.key));
    w.u32(5, set::length(&spec.key) as u32);
    // What the `nft` command wants to know of the byte order: key, then data.
    let mut orders = [&[0, 4][..], &set::byte_order(&spec.key).to_ne_bytes()].concat();
    match &spec.data {
        Some(DataSpec::Value(fields)) => {
            w.u32(6, set::type_number(fields));
            w.u32(7, set::length(fields) as u32);
            orders.extend([1, 4]);
            orders.extend(set::byte_order(fields).to_ne_bytes());
        }
        Some(DataSpec::Verdict) => w.u32(6, VERDICT_TYPE),
        None => {}
    }
    if ranges_of_several {
        w.nest(9, |w| {
            w.nest(2, |w| {
                for field in &spec.key {
                    w.nest(1, |w| w.u32(1, field.size() as u32));
                }
            });
        });
    }
    if let Some(filled) = spec.filled {
        w.nest(9, |w| w.u32(1, filled.size));
        w.u64(11, filled.timeout_ms);
    }
    w.octets(13, &orders);
}

fn encode_element(w: &mut Writer, spec: &SetSpec, key: &Key, data: Option<&Data>) {
    w.nest(1, |w| {
        w.value(1, &key.first);
        match data {
            Some(Data::Value(value)) => w.value(2, value),
            Some(Data::Verdict(verdict)) => w.nest(2, |w| verdict.encode(w)),
            None => {}
        }
        if let Some(last) = key.last.as_ref().filter(|_| spec.key.len() > 1) {
            w.value(10, last);
        }
    });
    // A range of a single field is two elements: where it begins, and where the next could.
    if spec.key.len() == 1
        && let Some(after) = key.last.as_ref().and_then(|last| successor(last))
    {
        w.nest(1, |w| {
            w.value(1, &after);
            w.u32(3, INTERVAL_END);
        });
    }
}

/// The next value, unless this is the highest one.
fn successor(value: &[u8]) -> Option<Vec<u8>> {
    let mut next = value.to_vec();
    for octet in next.iter_mut().rev() {
        *octet = octet.wrapping_add(1);
        if *octet != 0 {
            return Some(next);
        }
    }
    None
}

/// The value before; of zero, the highest one.
pub(super) fn predecessor(value: &[u8]) -> Vec<u8> {
    let mut before = value.to_vec();
    for octet in before.iter_mut().rev() {
        *octet = octet.wrapping_sub(1);
        if *octet != 0xff {
            break;
        }
    }
    before
}

/// The key, in hexadecimal digits, of the element that covers `offset` of a message.
fn element_at(message: &[u8], offset: usize) -> Option<String> {
    let attributes = Attributes(message.get(HEADER_LEN + FAMILY_LEN..)?);
    let elements = attributes.nest(3)?;
    let (_, element) = elements.iter().find(|(_, payload)| {
        let begin = payload.as_ptr().addr() - message.as_ptr().addr();
        (begin - 4..begin + payload.len()).contains(&offset)
    })?;
    let key = Attributes(element).nest(1)?.get(1)?;
    let digits = |octet: &u8| [octet >> 4, octet & 0xf];
    key.iter().flat_map(digits).map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        netlink::replies,
        nft::{set::Field, table::Family},
    };

    #[test]
    fn a_batch_is_numbered_and_only_its_last_change_is_acknowledged() {
        let id = TableId::new(Family::Inet, "t");
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.add_table(&id, &Table::default());
        batch.delete_table(&id);
        let (bytes, last) = batch.encode(40);
        let messages: Vec<_> = replies(&bytes).collect();
        assert_eq!(last, 42);
        assert_eq!(messages.iter().map(|m| m.sequence).collect::<Vec<_>>(), [40, 41, 42, 43]);
        assert_eq!(messages.iter().map(|m| m.flags & ACK).collect::<Vec<_>>(), [0, 0, 4, 0]);
        assert_eq!(batch.describe(0, None), "commit a transaction");
        assert_eq!(batch.describe(2, None), "delete table inet t");
    }

    #[test]
    fn an_offset_names_an_element() {
        let id = TableId::new(Family::Inet, "t");
        let mut batch = Batch::new();
        let keys = [Key::new(&[&[0, 80]]), Key::new(&[&[1, 187]])];
        batch.delete_elements(&id, "ports", &SetSpec::set([Field::Port]), &keys);
        let found =
            (0..80).map(|offset| batch.describe(1, Some(offset))).find(|d| d.ends_with('b'));
        assert_eq!(found.unwrap(), "delete elements of set ports of table inet t, key 01bb");
    }

    #[test]
    fn neighbours_of_a_value() {
        assert_eq!(successor(&[1, 255]), Some(vec![2, 0]));
        assert_eq!(successor(&[255, 255]), None);
        assert_eq!(predecessor(&[2, 0]), [1, 255]);
        assert_eq!(predecessor(&[0, 0]), [255, 255]);
    }
}
