//! Asks the endpoints of this node, and has managers know what they answered.

#![expect(clippy::disallowed_methods, reason = "the shell that knows when questions are due")]

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc, time::Instant};

use overlay_api::v1::{self, reports_client::ReportsClient};
use overlay_types::{EndpointId, NodeId, Readiness, View};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
};
use tonic::Status;

use super::{MAX_ASKED, Output, Probes, Report, Target, ask::ask};
use crate::{
    agent::Viewer,
    managers::Managers,
    ports::Port,
    reconcile::{Progress, Shared},
};

/// Shortest time from one report to the next: what changes meanwhile is in one write.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// What is asked, and who is told.
pub(crate) struct Prober {
    pub(crate) node: NodeId,
    pub(crate) viewer: Viewer,
    pub(crate) managers: Managers,
    pub(crate) shared: Arc<Shared>,
    pub(crate) progress: watch::Receiver<Progress>,
}

type Answer = (EndpointId, Target, bool);

impl Prober {
    /// Runs until the task is ended.
    pub(crate) async fn run(mut self) {
        let (answer, mut answers) = mpsc::channel::<Answer>(MAX_ASKED);
        let mut asking = Asking::default();
        let mut reporting: Option<JoinHandle<()>> = None;
        let mut probes = Probes::default();
        loop {
            let targets = self.targets();
            asking.keep(&targets);
            probes.follow(targets, Instant::now());
            let due = loop {
                match probes.poll_output(Instant::now()) {
                    Output::Ask(id, target) => {
                        asking.ask(id, target.clone(), put(id, target, answer.clone()));
                    }
                    Output::Wait(due) => break due,
                }
            };
            if reporting.as_ref().is_none_or(JoinHandle::is_finished) {
                let report = self.viewer.read(|view| probes.report(view, self.node));
                reporting = (!report.is_empty())
                    .then(|| tokio::spawn(tell(self.node, self.managers.clone(), report)));
            }
            let wait =
                due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
            tokio::select! {
                changed = self.progress.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some((id, target, passed)) = answers.recv() => {
                    probes.handle_answer(id, &target, passed, Instant::now());
                }
                () = pause(wait) => {}
            }
        }
    }

    /// Endpoints of this node that have a probe, are plugged in and not on their way out.
    fn targets(&self) -> BTreeMap<EndpointId, Target> {
        let ports = self.shared.ports.all();
        let plugged = self.progress.borrow();
        self.viewer.read(|view| {
            let known = ports.iter().filter(|(id, _)| plugged.plugged.contains(id));
            known.filter_map(|(id, port)| Some((*id, target(view, *id, port)?))).collect()
        })
    }
}

/// Questions under way, or over by now. They end with this.
#[derive(Debug, Default)]
struct Asking {
    tasks: JoinSet<()>,
    of: BTreeMap<EndpointId, (Target, AbortHandle)>,
}

impl Asking {
    fn ask(
        &mut self,
        id: EndpointId,
        target: Target,
        question: impl Future<Output = ()> + Send + 'static,
    ) {
        self.of.insert(id, (target, self.tasks.spawn(question)));
    }

    /// Ends the questions to all that are not among these targets: an answer that is waited for holds the
    /// network namespace of an endpoint that is gone, and the place of a question to another.
    fn keep(&mut self, targets: &BTreeMap<EndpointId, Target>) {
        self.of.retain(|id, (target, question)| {
            let stays = targets.get(id) == Some(target);
            if !stays {
                question.abort();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
    }
}

fn target(view: &View, id: EndpointId, port: &Port) -> Option<Target> {
    let endpoint = view.endpoints().get(&id)?;
    let probe = endpoint.health().filter(|_| endpoint.readiness != Readiness::Draining)?.clone();
    let Port::Interface(interface) = port else { return None };
    let address = endpoint.addresses.iter().next()?;
    Some(Target { probe, address, netns: interface.netns.clone() })
}

async fn put(id: EndpointId, target: Target, answer: mpsc::Sender<Answer>) {
    let outcome = ask(&target).await;
    if let Err(error) = &outcome {
        tracing::debug!(endpoint = %id, check = %target.probe.check, %error, "a probe fails");
    }
    // Nobody listens when the node stops.
    let _ = answer.send((id, target, outcome.is_ok())).await;
}

/// Tells a manager, and rests. What it does not hear is in the next report.
async fn tell(node: NodeId, managers: Managers, report: Report) {
    for id in &report.passing {
        tracing::info!(endpoint = %id, "its probe passes: it takes connections");
    }
    for id in &report.failing {
        tracing::warn!(endpoint = %id, "its probe fails: it takes no new connections");
    }
    if let Err(status) = send(node, &managers, report).await {
        tracing::debug!(reason = status.message(), "report not delivered");
    }
    pause(REPORT_PAUSE).await;
}

async fn send(node: NodeId, managers: &Managers, report: Report) -> Result<(), Status> {
    let ids = |ids: &std::collections::BTreeSet<EndpointId>| {
        ids.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let request = v1::ReportHealthRequest {
        node: node.to_string(),
        passing: ids(&report.passing),
        failing: ids(&report.failing),
    };
    ReportsClient::new(managers.channel().await?).report_health(request).await.map(drop)
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
    use core::future::pending;

    use overlay_types::HealthDraft;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn s13_a_question_to_an_endpoint_that_is_gone_ends() {
        let target = |check: &str| {
            let probe = HealthDraft::new(check.parse().unwrap()).try_into().unwrap();
            Target { probe, address: [10, 0, 0, 3].into(), netns: None }
        };
        let [stays, gone, changed] = [1, 2, 3].map(EndpointId::from_u128);
        let mut asking = Asking::default();
        let mut ends = Vec::new();
        for id in [stays, gone, changed] {
            // The sender is dropped with the question.
            let (held, end) = oneshot::channel::<()>();
            asking.ask(id, target("tcp:80"), async move {
                pending::<()>().await;
                drop(held);
            });
            ends.push(end);
        }
        asking.keep(&[(stays, target("tcp:80")), (changed, target("tcp:81"))].into());
        let [stays, gone, changed] = ends.as_mut_slice() else { panic!("three") };
        assert!(gone.await.is_err());
        assert!(changed.await.is_err());
        assert!(stays.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert_eq!(asking.of.len(), 1);
    }
}
