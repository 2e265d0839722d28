//! **headless**: without managers, nodes keep what they know.

use overlay_types::{Revision, View};

use super::Violation;
use crate::{agent::Agent, nodes};

/// What agents know while no manager runs.
pub(crate) struct Headless(Vec<(Agent, View)>);

impl Headless {
    /// All managers have just stopped. `agents` run.
    pub(crate) fn begin(agents: impl Iterator<Item = Agent>) -> Self {
        Self(agents.map(|agent| (agent.clone(), agent.view())).collect())
    }

    /// No manager has run since: every agent knows what it knew.
    pub(crate) fn end(self) -> Vec<Violation> {
        let forgot = self.0.into_iter().filter_map(|(agent, before)| {
            let now = agent.view();
            let (who, had, has) = (nodes::short(agent.id), before.revision(), now.revision());
            let known = before.revision() != Revision::ZERO;
            let text = format!("{who} had revision {had} when the managers stopped, then {has}");
            (known && now != before).then(|| Violation::new("headless", text))
        });
        forgot.collect()
    }
}
