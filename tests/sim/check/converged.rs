//! **converged**: after faults heal, every node equals the replicated state within 10 s. That is what
//! a linearizable read sees: managers that have no leader yet may be equal, and old.

use core::time::Duration;

use overlay_cluster::{control::Control, state::State, watch::Interest};
use overlay_types::View;
use tokio::time::{self, Instant};

use super::Violation;
use crate::{agent::Agent, nodes};

/// How long nodes may differ after the last fault.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until all are equal, as long as they may take. Answers with the newest state.
pub(crate) async fn check(
    controls: &[&Control],
    agents: &[Agent],
    violations: &mut Vec<Violation>,
) -> View {
    let healed = Instant::now();
    while let Err(status) = controls[0].linearize().await {
        if healed.elapsed() >= LIMIT {
            violations.push(Violation::new("converged", status.message()));
            break;
        }
        time::sleep(LOOK).await;
    }
    loop {
        let newest = newest(controls).expect("managers run");
        let view = newest.replica().read(|state| state.view().clone());
        let Err(difference) = difference(newest, &view, (controls, agents)) else { return view };
        if healed.elapsed() >= LIMIT {
            violations.push(Violation::new("converged", difference));
            return view;
        }
        time::sleep(LOOK).await;
    }
}

fn newest<'a>(controls: &[&'a Control]) -> Option<&'a Control> {
    controls.iter().copied().max_by_key(|control| control.replica().read(State::revision))
}

fn difference(
    newest: &Control,
    view: &View,
    (controls, agents): (&[&Control], &[Agent]),
) -> Result<(), String> {
    let revision = view.revision();
    for control in controls {
        let theirs = control.replica().read(State::revision);
        if theirs != revision {
            let who = nodes::short(control.node());
            return Err(format!("{who} is at revision {theirs}, others at {revision}"));
        }
    }
    let encoded = newest.replica().read(State::encode);
    for control in controls {
        if control.replica().read(State::encode) != encoded {
            let (one, other) = (nodes::short(control.node()), nodes::short(newest.node()));
            return Err(format!("{one} and {other} have other states at revision {revision}"));
        }
    }
    for agent in agents {
        let concerns = Interest::of_node(agent.id, view);
        let expected = View::from_snapshot(revision, concerns.snapshot(view));
        let known = agent.view();
        if known != expected {
            let who = nodes::short(agent.id);
            let theirs = known.revision();
            return Err(format!("the view of {who} at {theirs} is not the state's at {revision}"));
        }
    }
    Ok(())
}
