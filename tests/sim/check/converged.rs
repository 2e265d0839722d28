//! **converged**: after faults heal, every node equals the replicated state within 10 s. That is what
//! a linearizable read sees: managers that have no leader yet may be equal, and old.

use core::time::Duration;

use overlay_cluster::{control::Control, state::State, watch::Interest};
use overlay_types::{Role, View};
use tokio::time::{self, Instant};

use super::Violation;
use crate::{cluster::Cluster, nodes};

/// How long nodes may differ after the last fault.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until all are equal, as long as they may take. Answers with the newest state.
pub(crate) async fn check(cluster: &mut Cluster, violations: &mut Vec<Violation>) -> View {
    let healed = Instant::now();
    while let Err(text) = linearize(cluster).await {
        if healed.elapsed() >= LIMIT {
            violations.push(Violation::new("converged", text));
            break;
        }
        time::sleep(LOOK).await;
        cluster.follow_roles().await;
    }
    loop {
        let newest = newest(cluster).expect("managers run");
        let view = newest.replica().read(|state| state.view().clone());
        let Err(difference) = difference(cluster, newest, &view) else { return view };
        if healed.elapsed() >= LIMIT {
            violations.push(Violation::new("converged", difference));
            return view;
        }
        time::sleep(LOOK).await;
        cluster.follow_roles().await;
    }
}

/// By any manager: some may be none any more, and not know it yet.
async fn linearize(cluster: &Cluster) -> Result<(), String> {
    let mut why = "no manager runs".to_owned();
    for control in cluster.controls() {
        match time::timeout(Duration::from_secs(1), control.linearize()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(status)) => status.message().clone_into(&mut why),
            Err(_) => "no manager answers".clone_into(&mut why),
        }
    }
    Err(why)
}

fn newest(cluster: &Cluster) -> Option<&Control> {
    let controls = cluster.controls().into_iter();
    controls.max_by_key(|control| control.replica().read(State::revision))
}

fn difference(cluster: &Cluster, newest: &Control, view: &View) -> Result<(), String> {
    let revision = view.revision();
    let is_manager = |control: &&Control| {
        view.nodes().get(&control.node()).is_some_and(|node| node.role == Role::Manager)
    };
    let controls: Vec<_> = cluster.controls().into_iter().filter(is_manager).collect();
    for control in &controls {
        let theirs = control.replica().read(State::revision);
        if theirs != revision {
            let who = nodes::short(control.node());
            return Err(format!("{who} is at revision {theirs}, others at {revision}"));
        }
    }
    let encoded = newest.replica().read(State::encode);
    for control in &controls {
        if control.replica().read(State::encode) != encoded {
            let (one, other) = (nodes::short(control.node()), nodes::short(newest.node()));
            return Err(format!("{one} and {other} have other states at revision {revision}"));
        }
    }
    let agents = cluster.machines.iter().map(|machine| &machine.agent);
    for agent in agents.filter(|agent| view.nodes().contains_key(&agent.id)) {
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
