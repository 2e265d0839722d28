//! **exactly-once**: however often a write is repeated, it changes the state once, and what its caller is
//! told to be gone does not come again. Each call marks what it makes with its own number: the name of an
//! endpoint, the value of a register.

use std::collections::{BTreeMap, BTreeSet};

use overlay_types::{Change, Endpoint, Object, View};

use super::Violation;
use crate::{
    client,
    history::{Ask, Call, Told},
    ledger::Ledger,
};

/// Looks for marks that are on more than one object, or at more than one revision, and for those in the
/// last state that should not be there.
pub(crate) fn check(calls: &[Call], last: &View, ledger: &Ledger) -> Vec<Violation> {
    let mut marks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (revision, changes) in ledger.changes() {
        for change in changes.iter() {
            let (mark, made) = match change {
                Change::Put(Object::Endpoint(endpoint)) => {
                    let Some(name) = &endpoint.name else { continue };
                    (name.to_string(), endpoint.id.to_string())
                }
                Change::Put(Object::Service(service)) => {
                    let Some(value) = client::value_of(service) else { continue };
                    (format!("{} = {value}", service.spec.name), revision.to_string())
                }
                _ => continue,
            };
            marks.entry(mark).or_default().insert(made);
        }
    }
    let twice = marks.iter().filter(|(_, made)| made.len() > 1);
    let mut violations: Vec<_> = twice
        .map(|(mark, made)| Violation::new("exactly-once", format!("{mark} was made as {made:?}")))
        .collect();
    violations.extend(calls.iter().filter_map(|call| refused_but_done(call, &marks)));
    violations.extend(calls.iter().filter_map(|call| undone_but_there(call, last)));
    violations
}

/// What was refused changes nothing.
fn refused_but_done(call: &Call, marks: &BTreeMap<String, BTreeSet<String>>) -> Option<Violation> {
    let Told::Refused(code) = call.told else { return None };
    let mark = match call.ask {
        Ask::Attach { .. } => client::endpoint_name(call.number),
        Ask::Write { register, .. } => format!("{} = {}", client::register(register), call.number),
        _ => return None,
    };
    let made = marks.get(&mark)?;
    let text =
        format!("call {} was refused ({code}), but {mark} was made as {made:?}", call.number);
    Some(Violation::new("exactly-once", text))
}

/// What was removed before its caller heard of it is not made again for the caller.
fn undone_but_there(call: &Call, last: &View) -> Option<Violation> {
    let name = (call.told == Told::Undone).then(|| client::endpoint_name(call.number))?;
    let known = |known: &Endpoint| known.name.as_ref().is_some_and(|known| **known == *name);
    let there = last.endpoints().values().find(|endpoint| known(endpoint))?;
    let text = format!("call {} was undone, but {name} is there as {}", call.number, there.id);
    Some(Violation::new("exactly-once", text))
}
