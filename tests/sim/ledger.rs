//! The history of the state, as the managers applied it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use overlay_types::{Change, NodeId, Revision};

use crate::{check::Violation, nodes, trace::Trace};

/// What each revision changed. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    changes: BTreeMap<Revision, (NodeId, Arc<[Change]>)>,
    violations: Vec<Violation>,
    trace: Trace,
}

impl Ledger {
    pub(crate) fn new(trace: Trace) -> Self {
        let (changes, violations) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(Inner { changes, violations, trace })))
    }

    /// The manager `id` has applied these changes.
    pub(crate) fn enter(&self, id: NodeId, revision: Revision, changes: Arc<[Change]>) {
        let mut inner = self.0.lock().unwrap();
        inner.trace.note(|| format!("{} applied revision {revision}", nodes::short(id)));
        let known = inner.changes.entry(revision).or_insert_with(|| (id, Arc::clone(&changes)));
        if known.1 != changes {
            let other = nodes::short(known.0);
            let text = format!(
                "revision {revision} is one thing on {} and another on {other}: \
                {changes:?}, {:?}",
                nodes::short(id),
                known.1
            );
            inner.violations.push(Violation::new("one-history", text));
        }
    }

    pub(crate) fn violate(&self, violation: Violation) {
        self.0.lock().unwrap().violations.push(violation);
    }

    pub(crate) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut self.0.lock().unwrap().violations)
    }

    /// Every change, with the revision that it led to.
    pub(crate) fn changes(&self) -> Vec<(Revision, Arc<[Change]>)> {
        let inner = self.0.lock().unwrap();
        inner.changes.iter().map(|(revision, (_, changes))| (*revision, changes.clone())).collect()
    }
}
