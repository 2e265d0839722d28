//! From the table that is and the one that shall be to the transaction between them.
//!
//! 1. New sets and chains come first: rules and elements name them.
//! 2. A chain whose rules differ gets all of them anew; they are few, what is many lies in sets.
//! 3. Sets lose what goes before they get what comes: a key can change what it leads to.
//! 4. What goes loses its rules first, so that nothing names it any more.
//!
//! What the kernel cannot change in place, it gets anew with its whole table, in one transaction.

use super::{
    batch::Batch,
    set::Set,
    table::{Chain, Table, TableId},
};

/// The changes that make `observed` what is `desired`. None when they agree.
pub fn diff(id: &TableId, desired: Option<&Table>, observed: Option<&Table>) -> Batch {
    let mut batch = Batch::new();
    match (desired, observed) {
        (None, None) => {}
        (None, Some(_)) => batch.delete_table(id),
        (Some(new), None) => batch.add_all(id, new),
        (Some(new), Some(old)) if is_other(new, old) => {
            batch.delete_table(id);
            batch.add_all(id, new);
        }
        (Some(new), Some(old)) => change(&mut batch, id, new, old),
    }
    batch
}

/// Whether the kernel cannot make one of the other.
fn is_other(new: &Table, old: &Table) -> bool {
    let other_set = |(name, set): (&String, &Set)| {
        old.sets.get(name).is_some_and(|before| before.spec != set.spec)
    };
    let other_chain = |(name, chain): (&String, &Chain)| {
        old.chains.get(name).is_some_and(|before| is_other_hook(chain, before))
    };
    new.comment != old.comment
        || new.dormant != old.dormant
        || new.foreign != old.foreign
        || new.sets.iter().any(other_set)
        || new.chains.iter().any(other_chain)
}

/// Only its policy can be changed.
fn is_other_hook(new: &Chain, old: &Chain) -> bool {
    match (&new.hook, &old.hook) {
        (Some(new), Some(old)) => {
            (new.kind, new.point, new.priority, &new.device)
                != (old.kind, old.point, old.priority, &old.device)
        }
        (new, old) => new != old,
    }
}

fn change(batch: &mut Batch, id: &TableId, new: &Table, old: &Table) {
    for (name, set) in &new.sets {
        if !old.sets.contains_key(name) {
            batch.add_set(id, name, &set.spec);
        }
    }
    for (name, chain) in &new.chains {
        match (old.chains.get(name), &chain.hook) {
            (None, hook) => batch.add_chain(id, name, hook.as_ref()),
            (Some(before), Some(hook)) if before.hook.as_ref() != Some(hook) => {
                batch.set_policy(id, name, hook.policy);
            }
            _ => {}
        }
    }
    for (name, before) in &old.chains {
        let stays = new.chains.get(name).is_some_and(|after| after.rules == before.rules);
        if !stays && !before.rules.is_empty() {
            batch.flush_chain(id, name);
        }
    }
    for (name, set) in &new.sets {
        change_elements(batch, id, name, set, old.sets.get(name));
    }
    for (name, chain) in &new.chains {
        if old.chains.get(name).is_none_or(|before| before.rules != chain.rules) {
            batch.add_rules(id, name, chain);
        }
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        batch.delete_set(id, name);
    }
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        batch.delete_chain(id, name);
    }
}

fn change_elements(batch: &mut Batch, id: &TableId, name: &str, new: &Set, old: Option<&Set>) {
    let before = old.map(|set| &set.elements);
    if let Some(before) = before {
        let gone = before.iter().filter(|(key, data)| new.elements.get(*key) != Some(*data));
        batch.delete_elements(id, name, &new.spec, gone.map(|(key, _)| key));
    }
    let come = new
        .elements
        .iter()
        .filter(|(key, data)| before.is_none_or(|before| before.get(*key) != Some(*data)));
    batch.add_elements(id, name, &new.spec, come.map(|(key, data)| (key, data.as_ref())));
}
