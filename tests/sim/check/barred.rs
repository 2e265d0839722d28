//! **barred**: a node that was removed learns nothing of the cluster after its removal.

use overlay_types::{Change, NodeId, ObjectKey, Revision, View};

use super::Violation;
use crate::{agent::Agent, ledger::Ledger, nodes};

/// Looks at the agents of those that are not in the last state.
pub(crate) fn check<'a>(
    agents: impl Iterator<Item = &'a Agent>,
    last: &View,
    ledger: &Ledger,
) -> Vec<Violation> {
    let gone = agents.filter(|agent| !last.nodes().contains_key(&agent.id));
    let told = gone.filter_map(|agent| {
        // Nobody removed it: it never joined.
        let removed = removed_at(agent.id, ledger)?;
        let knows = agent.view().revision();
        let who = nodes::short(agent.id);
        let text = format!("{who} was removed at revision {removed} and was told of {knows}");
        (knows > removed).then(|| Violation::new("barred", text))
    });
    told.collect()
}

fn removed_at(node: NodeId, ledger: &Ledger) -> Option<Revision> {
    let deletes = |changes: &[Change]| changes.contains(&Change::Delete(ObjectKey::Node(node)));
    let changes = ledger.changes().into_iter().rev();
    changes.into_iter().find(|(_, changes)| deletes(changes)).map(|(revision, _)| revision)
}
