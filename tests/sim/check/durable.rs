//! **durable**: an acknowledged write is in the state at the end, unless somebody asked for what
//! takes it back; and in the history, at the revision that the client was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use overlay_types::{Change, ObjectKey, Revision, View};

use super::Violation;
use crate::{
    client,
    history::{Ask, Call, Told},
    ledger::Ledger,
};

fn lost(call: &Call, how: &str) -> Violation {
    let Call { number, ask, told, .. } = call;
    Violation::new("durable", format!("call {number} ({ask:?}) was told {told:?}, but {how}"))
}

/// Looks for each acknowledged write of `calls` in the last state and in the ledger.
pub(crate) fn check(calls: &[Call], last: &View, ledger: &Ledger) -> Vec<Violation> {
    let mut gone: BTreeSet<ObjectKey> =
        calls.iter().filter_map(|call| removed(&call.ask)).collect();
    let with_nodes = calls.iter().filter(|call| on(&call.ask).is_some_and(|n| gone.contains(&n)));
    let with_nodes: Vec<_> = with_nodes.filter_map(|call| Some(made(&call.told)?.0)).collect();
    gone.extend(with_nodes);
    let mut violations = Vec::new();
    for call in calls {
        if call.told == Told::Undone && !on(&call.ask).is_some_and(|node| gone.contains(&node)) {
            violations.push(lost(call, "nobody asked for what takes it back"));
        }
        if let Some((key, _)) = made(&call.told)
            && !gone.contains(&key)
            && last.get(key).is_none()
        {
            violations.push(lost(call, "it is not in the state"));
        }
        if let (Told::Done, Some(key)) = (&call.told, removed(&call.ask))
            && last.get(key).is_some()
        {
            violations.push(lost(call, "it is in the state"));
        }
        if let (Ask::Write { register, .. }, Told::Value(_, revision)) = (&call.ask, &call.told) {
            let name = client::register(*register);
            let service = last.services().values().find(|s| *s.spec.name == *name);
            if service.is_none_or(|service| service.meta.changed_at < *revision) {
                violations.push(lost(call, "the register is older"));
            }
        }
    }
    violations.extend(check_history(calls, &ledger.changes().into_iter().collect()));
    violations
}

fn removed(ask: &Ask) -> Option<ObjectKey> {
    match ask {
        Ask::Detach(id) => Some(ObjectKey::Endpoint(*id)),
        Ask::RemoveService(id) => Some(ObjectKey::Service(*id)),
        Ask::RemoveNode(id) => Some(ObjectKey::Node(*id)),
        _ => None,
    }
}

/// The node that what the call wrote goes with, when nobody else could have removed it yet.
const fn on(ask: &Ask) -> Option<ObjectKey> {
    match ask {
        Ask::Attach { node } | Ask::SetRole { node, .. } => Some(ObjectKey::Node(*node)),
        _ => None,
    }
}

/// What the call made, and the revision that it led to.
fn made(told: &Told) -> Option<(ObjectKey, Revision)> {
    match told {
        Told::Node(id, revision) => Some((ObjectKey::Node(*id), *revision)),
        Told::Network(id, revision) => Some((ObjectKey::Network(*id), *revision)),
        Told::Service(id, revision) => Some((ObjectKey::Service(*id), *revision)),
        Told::Endpoint(id, _, _, revision) => Some((ObjectKey::Endpoint(*id), *revision)),
        _ => None,
    }
}

/// A revision may be missing in the ledger: its managers may have crashed just after it, and come
/// back with a snapshot of a later one.
fn check_history(calls: &[Call], ledger: &BTreeMap<Revision, Arc<[Change]>>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for call in calls {
        let Some((key, revision)) = made(&call.told) else { continue };
        let Some(changes) = ledger.get(&revision) else { continue };
        let put = |change: &Change| matches!(change, Change::Put(object) if object.key() == key);
        if !changes.iter().any(put) {
            violations.push(lost(call, "the history has another write at that revision"));
        }
    }
    violations
}
